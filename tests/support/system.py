"""A whole deployment, driven by the command line and Airflow's API."""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from headrace.local import services
from headrace.sample.airflow_api import AirflowApi
from headrace.settings import Settings

HEADRACE = str(Path(sys.executable).with_name("headrace"))


@dataclass(frozen=True, slots=True)
class System:
    """Everything runs; `headrace` speaks to it as a user would."""

    home: Path
    api: AirflowApi
    environment: dict[str, str]

    def headrace(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line of this deployment."""
        return subprocess.run(
            [HEADRACE, *arguments], env=self.environment, check=check, capture_output=True, text=True, timeout=300
        )

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Rows of a query."""
        with psycopg.connect(services.environment(self.settings)["HEADRACE_POSTGRES_DSN"]) as connection:
            return connection.execute(statement.encode()).fetchall()

    @property
    def settings(self) -> Settings:
        """The settings after all services have started."""
        return Settings.from_environment({"HEADRACE_HOME": str(self.home)})

    def run_dag(self, dag_id: str, **conf: Any) -> tuple[str, str]:
        """Trigger a DAG through the API and wait until it has succeeded."""
        run = self.api.trigger(dag_id, conf)
        self.api.wait(run)
        return run


def pause(system: System, dag_id: str, is_paused: bool) -> None:
    """Pause a DAG or let it run again; waits until Airflow knows it."""
    deadline = time.monotonic() + 60
    while True:
        found = system.api._client.patch(f"/dags/{dag_id}", json={"is_paused": is_paused})
        if found.status_code == 200:
            return
        assert time.monotonic() < deadline, found.text
        time.sleep(1)
