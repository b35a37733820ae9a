"""A whole deployment of its own: PostgreSQL, Kafka and Airflow on free ports, once per session."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.sample.airflow_api import AirflowApi
from headrace.settings import Settings
from tests.support.system import HEADRACE, System


@pytest.fixture(scope="session")
def system(session_home: Path) -> Iterator[System]:
    """`headrace up` on an empty home; `headrace down` at the end, whatever happened."""
    home = session_home / "system"
    home.mkdir()
    environment = {**os.environ, "HEADRACE_HOME": str(home)}
    try:
        subprocess.run([HEADRACE, "up"], env=environment, check=True, timeout=400)
        settings = Settings.from_environment({"HEADRACE_HOME": str(home)})
        yield System(home, AirflowApi.from_settings(settings), environment)
    finally:
        subprocess.run([HEADRACE, "down"], env=environment, check=True, timeout=120)
