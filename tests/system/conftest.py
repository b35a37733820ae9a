"""A whole deployment of its own: PostgreSQL, Kafka and Airflow on free ports, once for this package.

It does not outlive the package: an idle Airflow takes a fifth of a core.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import jwt
import pytest

from headrace.sample.airflow_api import AirflowApi
from headrace.settings import Settings
from tests.support.databases import make_server_faster
from tests.support.system import HEADRACE, System


@pytest.fixture(scope="package")
def system(session_home: Path) -> Iterator[System]:
    """`headrace up` on an empty home; `headrace down` at the end of this package, whatever happened."""
    home = session_home / "system"
    home.mkdir()
    environment = {
        **os.environ,
        "HEADRACE_HOME": str(home),
        "HEADRACE_DATASETS_DIR": str(rarely_scheduled(session_home / "datasets")),
    }
    try:
        subprocess.run([HEADRACE, "up"], env=environment, check=True, timeout=400)
        make_server_faster(home)
        settings = Settings.from_environment({"HEADRACE_HOME": str(home)})
        yield System(home, AirflowApi.from_settings(settings), environment)
    finally:
        subprocess.run([HEADRACE, "down"], env=environment, check=True, timeout=120)


def rarely_scheduled(folder: Path) -> Path:
    """The project's declarations, drained every quarter of an hour: tests trigger the runs that they want."""
    folder.mkdir()
    for path in Settings().datasets_dir.glob("*.py"):
        (folder / path.name).write_text(path.read_text().replace(" = Dataset(", " = Dataset(schedule_s=900, "))
    return folder


@pytest.fixture(scope="package")
def url(system: System) -> str:
    """The address of Airflow."""
    return system.settings.require_airflow_url()


@pytest.fixture(scope="package")
def admin_password(system: System) -> str:
    """The password of the user admin."""
    return (system.home / "airflow" / "password").read_text().strip()


@pytest.fixture(scope="package")
def admin_token(url: str, admin_password: str) -> str:
    """A token of the user admin."""
    response = httpx.post(
        f"{url}/auth/token", json={"username": "admin", "password": admin_password}, trust_env=False, timeout=60
    )
    return str(response.json()["access_token"])


@pytest.fixture(scope="package")
def get_page(url: str, admin_token: str) -> Callable[..., httpx.Response]:
    """GET below /headrace/, as the admin unless another token is given."""

    def get_page(path: str, bearer: str | None = admin_token, **headers: str) -> httpx.Response:
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        return httpx.get(f"{url}/headrace/{path}", headers=headers, trust_env=False, timeout=60)

    return get_page


@pytest.fixture(scope="package")
def token_of(system: System, admin_token: str) -> Callable[[str | None], str]:
    """A token of a user with another role, signed with this Airflow's key."""
    key = (system.home / "airflow" / "jwt_secret").read_text().strip()

    def token_of(role: str | None) -> str:
        claims = jwt.decode(admin_token, options={"verify_signature": False})
        claims |= {"sub": f"a {role}", "role": role, "jti": f"test-{role}"}
        return jwt.encode(claims, key, algorithm=jwt.get_unverified_header(admin_token)["alg"])

    return token_of
