"""The Dockerfile of docs/your-airflow.md: Airflow's image with Headrace and a project, and a run of its DAG."""

import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from headrace.local import services
from headrace.settings import Settings
from tests.compose.engine import Engine, run
from tests.support.your_airflow import PAGE, RELEASES, Api, blocks, build_wheel, free_port, warehouse_of, warehouse_rows

RELEASE = "3.1"
READ_ONLY = ("--read-only", "--tmpfs", "/tmp:exec")
WRITES_TO = {  # what writes below /opt/airflow where nothing else is said
    "AIRFLOW_CONFIG": "/tmp/airflow.cfg", "AIRFLOW__LOGGING__BASE_LOG_FOLDER": "/tmp/logs",
    "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": "/tmp/logs/dag_processor",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite:////tmp/airflow.db", "HEADRACE_HOME": "/tmp/headrace",
}  # fmt: skip
LIMIT_S = 600


def dockerfile() -> str:
    """The page's one Dockerfile."""
    (text,) = re.findall(r"^```dockerfile\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(text)


def airflow_image() -> str:
    """The image that it extends."""
    (image,) = re.findall(r"^FROM (\S+)$", dockerfile(), re.MULTILINE)
    assert RELEASES[RELEASE][0] in image
    return str(image)


def check_extended(engine: Engine, room: Path, say: Callable[[str], None]) -> None:
    """Build the image as the page says, and run the example's DAGs with it."""
    room.chmod(0o755)  # PostgreSQL runs as another user
    image = _built(engine, room)
    say(f"build: the page's Dockerfile, on {airflow_image()}")
    name = f"headrace-test-{secrets.token_hex(4)}"
    try:
        _check_unprivileged(engine, image)
        say("container: user 50000, a root file system that is read-only; headrace check, plugin and DAGs are found")
        with _services(room / "home") as warehouse:
            _check_run(engine, image, name, warehouse, room)
        say("first run: the DAGs of the image staged, built and rejected as the page says")
    except BaseException:
        print(engine.docker("logs", "--tail", "60", name, check=False))
        raise
    finally:
        engine.docker("rm", "--force", "--volumes", name, check=False)
        engine.docker("image", "rm", "--force", image, check=False)


def _built(engine: Engine, room: Path) -> str:
    """The image of the page's Dockerfile; pip finds the wheel of this checkout, which PyPI does not have."""
    base, image = "headrace-test-airflow-with-wheels", "headrace-test-extended"
    build_wheel(room, "0.1.0")
    (room / "base.Dockerfile").write_text(
        f"FROM {airflow_image()}\nCOPY wheels /wheels\nENV PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n"
    )
    environment = {**engine.environment, "DOCKER_BUILDKIT": "0"}
    # our engine's bridges have no way out, and pip needs one
    build = ["docker", "build", "--quiet", *(["--network", "host"] if engine.is_ours else [])]
    run([*build, "--file", str(room / "base.Dockerfile"), "--tag", base, str(room)], environment)
    context = room / "context"
    context.mkdir()
    run([str(Path(sys.executable).with_name("headrace")), "new", str(context / "sales")], engine.environment)
    text = dockerfile().replace(f"FROM {airflow_image()}\n", f"FROM {base}\n")
    assert f"FROM {base}" in text
    (context / "Dockerfile").write_text(text)
    run([*build, "--tag", image, str(context)], environment, limit_s=1_800)
    return image


def _check_unprivileged(engine: Engine, image: str) -> None:
    """As Airflow's own user, with a root file system that cannot be written to."""
    script = """
        set -euo pipefail
        id -u
        headrace --version
        cd /opt/airflow/dags/sales && headrace check
        cd /tmp && airflow db migrate > /tmp/migrate.log 2>&1 || { cat /tmp/migrate.log; exit 1; }
        airflow plugins --output plain
        airflow dags reserialize > /tmp/dags.log 2>&1 || { cat /tmp/dags.log; exit 1; }
        airflow dags list --output plain
        airflow dags list-import-errors
        touch /opt/airflow/x 2>&1 || true
    """
    variables = [word for key, value in WRITES_TO.items() for word in ("--env", f"{key}={value}")]
    said = engine.docker("run", "--rm", *READ_ONLY, "--cap-drop", "ALL", *variables, image, "bash", "-c", script)
    assert said.splitlines()[:2] == ["50000", "headrace, version 0.1.0"], said
    assert "'url_route': 'headrace'" in said, said  # the plugin's page
    for found in ("no faults", "ingest_orders", "build_marts", "No data found", "Read-only file system"):
        assert found in said, f"{found} in:\n{said}"


@contextmanager
def _services(home: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL and a broker of this machine, as the page's variables name them."""
    home.mkdir()
    settings = Settings(home=home)
    try:
        yield warehouse_of(services.up(settings, only=("postgres", "kafka"), print_line=lambda _line: None))
    finally:
        services.down(settings, print_line=lambda _line: None)


def _check_run(engine: Engine, image: str, name: str, warehouse: dict[str, str], room: Path) -> None:
    """All of Airflow in one read-only container; as root, because local servers take connections of this user only."""
    port = free_port()
    dsn = "postgresql://{WAREHOUSE_USER}:{WAREHOUSE_PASSWORD}@{WAREHOUSE_HOST}:{WAREHOUSE_PORT}/{WAREHOUSE_DB}"
    variables = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True", "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port), "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname", "AIRFLOW__CORE__PARALLELISM": "4",
        "HEADRACE_POSTGRES_DSN": dsn.format(**warehouse), "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": warehouse["BROKERS"],
        "BROKERS": warehouse["BROKERS"], **WRITES_TO,
    }  # fmt: skip
    file = room / "variables"  # it has a password, which no command line may have
    file.touch(mode=0o600)
    file.write_text("".join(f"{key}={value}\n" for key, value in variables.items()))
    common = (*READ_ONLY, "--network", "host", "--user", "0:0", "--env-file", str(file), image)
    engine.docker("run", "--rm", *common, "bash", "-c", f"headrace init && {blocks()['First run'][0]}")
    engine.docker("run", "--detach", "--name", name, *common, "standalone")
    api = Api(f"http://127.0.0.1:{port}")
    for dag_id in ("ingest_orders", "build_marts"):
        _waited(dag_id, partial(_unpaused, api, dag_id))
    found = _waited("mart", lambda: warehouse_rows(warehouse, "select order_id, customer from marts.orders"))
    assert found == [(1, "Ada")]
    assert warehouse_rows(warehouse, "select reason from headrace.dead_letters") == [("out_of_range",)]
    assert [each["dataset"] for each in api.get("/headrace/status")["datasets"]] == ["orders"]


def _waited(what: str, check: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + LIMIT_S
    while not (found := check()):
        assert time.monotonic() < deadline, f"{what}: not within {LIMIT_S} s"
        time.sleep(1)
    return found


def _unpaused(api: Api, dag_id: str) -> bool:
    try:
        return api.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False}).status_code == 200
    except (httpx.HTTPError, KeyError, ValueError):
        return False  # it is still starting
