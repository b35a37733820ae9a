"""Airflow with the CeleryExecutor and workers that can be killed, on local services of its own."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg.rows import dict_row

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.local import airflow, services
from headrace.local.addresses import environment
from headrace.local.home import locked
from headrace.local.ports import choose_port
from headrace.local.process import Service
from headrace.sample.airflow_api import AirflowApi
from headrace.settings import ROOT, Settings
from tests.support import celery_host
from tests.support.system import System

READY_LIMIT_S = 180.0
CONCURRENCY = 2  # tasks at once of one worker


@dataclass(frozen=True, slots=True)
class Cluster(System):
    """Everything runs but workers, which tests start and kill."""

    airflow_environment: dict[str, str] = field(repr=False)
    metadata_dsn: str

    def start_workers(self, names: Sequence[str]) -> None:
        """Start workers and wait until each answers over the broker."""
        for name in names:
            self._service(name).start(
                [
                    *(sys.executable, "-m", "airflow", "celery", "worker", "--skip-serve-logs"),
                    *("--celery-hostname", f"celery@{name}", "--concurrency", str(CONCURRENCY), "--without-mingle"),
                ],
                ports=[],
                env=self.airflow_environment | {celery_host.VARIABLE: name},
                cwd=ROOT,
            )
        for name in names:
            self._service(name).wait(lambda name=name: self._why_not_ready(name), READY_LIMIT_S)  # type: ignore[misc]

    def kill_worker(self, name: str, *, whole: bool) -> list[int]:
        """SIGKILL a worker: its main process alone, or with all that it started, as a machine that lost its power.

        Returns the pids that were killed.
        """
        pid = self._service(name).pid()
        assert pid is not None, f"{name} does not run"
        main = psutil.Process(pid)
        victims = [main, *(main.children(recursive=True) if whole else [])]
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.send_signal(signal.SIGKILL)
        psutil.wait_procs(victims, timeout=10)
        return [victim.pid for victim in victims]

    def stop_workers(self, names: Sequence[str]) -> None:
        """Stop workers and whatever they left behind."""
        for name in names:
            self._service(name).stop()

    def metadata(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of Airflow's own database."""
        with psycopg.connect(self.metadata_dsn, row_factory=dict_row) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def drains(self, run_id: str) -> list[dict[str, Any]]:
        """The mapped drains of a run: where each is or was, and its state and attempt."""
        return self.metadata(
            "select map_index, hostname, state, try_number from task_instance "
            "where dag_id = 'ingest_jobs' and task_id = 'drain' and run_id = %s and map_index >= 0 order by 1",
            run_id,
        )

    def _service(self, name: str) -> Service:
        return Service(self.home, f"airflow-{name}")

    def _why_not_ready(self, name: str) -> str | None:
        from celery import Celery

        app = Celery(broker=self.airflow_environment["AIRFLOW__CELERY__BROKER_URL"])
        with app.connection_for_read():
            answered = app.control.ping(destination=[f"celery@{name}"], timeout=2)
        app.close()
        return None if answered else f"{name} does not answer over the broker"


@contextmanager
def cluster(home: Path, datasets: Path) -> Iterator[Cluster]:
    """Postgres, Kafka, Valkey and Airflow's four components on a new home; all of it ends with the block."""
    ours = {
        "HEADRACE_HOME": str(home),
        "HEADRACE_DATASETS_DIR": str(datasets),
        "HEADRACE_DRAIN_PARALLEL_LAG": "1000",
        "HEADRACE_BATCH_ROWS": "1000",  # many commits: a kill hits all of their steps
    }
    settings = Settings.from_environment(ours)
    try:
        services.up(settings, only=("postgres", "kafka", "redis"))
        initialise(Deployment.from_settings(Settings.from_environment(ours)))
        with locked(home, print) as held:
            port = choose_port("airflow", demanded=None, remembered=None, reserved=set())
            held.remember("airflow", {"address": f"http://127.0.0.1:{port}", "port": port})
            settings = Settings.from_environment(ours)
            airflow.prepare(held, settings, print)
            redis = environment(settings)["HEADRACE_REDIS_URL"]
            options = services.airflow_environment(settings) | {
                "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
                "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",  # runs are the tests' own
                "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{celery_host.__name__}.{celery_host.host_name.__name__}",
                "AIRFLOW__CELERY__BROKER_URL": redis.rpartition("/")[0] + "/1",
                # a lost task is missed after 6 s in place of 25: a round would be waiting for nothing else
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "1",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "6",
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "1",
                # likewise one that a worker took from the broker and died with before it began: 25 s in place of 600
                "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "25",
                "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "2",
                "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "10",
                "PYTHONPATH": str(ROOT),
            }
            for name, words in airflow.COMPONENTS.items():
                command = [sys.executable, "-m", "airflow", *words]
                airflow.component(home, name).start(command, ports=[port], env=options, cwd=ROOT)
        scheduler = airflow.component(home, "scheduler")
        scheduler.wait(lambda: airflow.why_not_ready(home, port), READY_LIMIT_S)
        metadata = environment(settings)["HEADRACE_POSTGRES_DSN"].replace("/headrace?", "/airflow?")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | ours
        yield Cluster(home, AirflowApi.from_settings(settings), environ, options, metadata)
    finally:
        for pid_file in (home / "run").glob("airflow-worker-*.pid"):
            Service(home, pid_file.stem).stop()
        services.down(settings)


def waited(condition: Any, limit_s: float, what: str) -> Any:
    """The first truth that a condition gives; AssertionError with `what` when time is up."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"after {limit_s:.0f} s: {what}"
        time.sleep(0.05)
    return found
