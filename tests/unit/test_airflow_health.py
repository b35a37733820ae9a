"""Airflow's own health: from the REST API's documents, and the problems that it shows."""

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from headrace.airflow import health as in_airflow
from headrace.monitor.airflow_health import (
    AirflowHealth,
    ComponentHealth,
    components_of,
    import_error_of,
)
from headrace.monitor.airflow_probe import AirflowProbe
from headrace.monitor.metrics import exposition
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from headrace.settings import Settings
from tests.support.statuses import dataset, seconds_ago, status

BEAT = "2026-03-01T11:50:00.123456+00:00"
HEALTH = {
    "metadatabase": {"status": "healthy"},
    "scheduler": {"status": "unhealthy", "latest_scheduler_heartbeat": BEAT},
    "triggerer": {"status": None, "latest_triggerer_heartbeat": None},
    "dag_processor": {"status": "healthy", "latest_dag_processor_heartbeat": BEAT},
}
STACK = 'Traceback:\n  File "/opt/dags/headrace.py", line 1\nModuleNotFoundError: No module named headrace\n'


def overview(health: AirflowHealth, **values: Any) -> Overview:
    names = ("jobs", "rides")
    datasets = [dataset(name, **values) for name in names]
    return find_problems_by(status(*datasets), dict.fromkeys(names, AlertThresholds()), airflow=health)


def test_dead_scheduler_is_one_problem_that_names_the_datasets_that_are_not_checked() -> None:
    health = AirflowHealth(components_of(HEALTH))
    (problem,) = overview(health, observed_at=seconds_ago(600)).problems
    assert problem.line() == (
        "Airflow's scheduler: last heartbeat at 11:50:00 UTC: no DAG run starts; not checked since: 2 datasets "
        "(jobs, rides); run `airflow scheduler`"
    )
    assert (problem.since, problem.datasets) == (datetime.fromisoformat(BEAT), ["jobs", "rides"])
    (problem,) = overview(AirflowHealth(components_of(HEALTH), is_local=True)).problems
    assert str(problem.command) == "headrace up --only airflow"


def test_all_components_that_are_down_are_one_problem_and_one_never_started_is_none() -> None:
    down = [ComponentHealth(name, False) for name in ("scheduler", "dag_processor", "triggerer")]
    (problem,) = overview(AirflowHealth(down)).problems
    assert problem.about == "Airflow's scheduler, DAG processor and triggerer"
    (problem,) = overview(AirflowHealth(down[1:])).problems
    assert (problem.severity, problem.about) == ("warning", "Airflow's DAG processor and triggerer")
    assert (
        overview(AirflowHealth([ComponentHealth("triggerer", None), ComponentHealth("scheduler", True)])).problems == []
    )


def test_import_errors_with_one_cause_are_one_problem_and_those_of_others_a_warning() -> None:
    stack = "Traceback\n  headrace\nModuleNotFoundError: No module named 'shared'\n"
    errors = [
        import_error_of("one.py", stack, seconds_ago(60)),
        import_error_of("two.py", stack, seconds_ago(90)),
        import_error_of("their.py", "Traceback\nValueError: x\n", None),
        import_error_of("other.py", "Traceback\nKeyError: y\n", None),
    ]
    found = overview(AirflowHealth(import_errors=errors))
    assert [(each.severity, each.about, each.since) for each in found.problems] == [
        ("error", "a DAG file cannot be imported: ModuleNotFoundError: No module named 'shared'", seconds_ago(90)),
        ("warning", "DAG files of others", None),
    ]
    assert found.problems[1].runbook == "docs/runbook.md#airflow-cannot-import-a-dag-file"
    hidden = found.without_import_messages()
    assert "shared" not in json.dumps(hidden.document()["problems"])
    assert b"headrace_dag_import_errors 4.0" in exposition(found)


def test_metrics_have_the_components_that_were_ever_started() -> None:
    text = exposition(overview(AirflowHealth(components_of(HEALTH)))).decode()
    assert 'headrace_airflow_up{component="scheduler"} 0.0' in text
    assert 'headrace_airflow_up{component="dag_processor"} 1.0' in text
    assert "triggerer" not in text
    assert "headrace_airflow_up" not in exposition(overview(AirflowHealth(error="no answer"))).decode()


def test_health_in_airflow_is_read_again_after_a_pause_and_its_failure_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[None] = []

    def fail() -> Mapping[str, Any]:
        asked.append(None)
        raise OSError("no database")

    functions = SimpleNamespace(get_airflow_health=fail)  # the module imports all of Airflow's components
    monkeypatch.setitem(sys.modules, "airflow.api.common.airflow_health", functions)
    cache = in_airflow.HealthCache()
    for _ in range(3):
        health = cache.read(is_local=False)
    assert len(asked) == 1
    assert health is not None
    (problem,) = overview(health).problems
    assert problem.line() == "Airflow: its health is not known: OSError: no database; run `airflow db check`"
    functions.get_airflow_health = lambda: HEALTH | {"metadatabase": {"status": "unhealthy"}}
    health = in_airflow.read_health(is_local=False)
    assert health is not None
    assert str(health.error).endswith("Airflow's metadata database does not answer")
    functions.get_airflow_health = lambda: HEALTH
    monkeypatch.setattr(in_airflow, "_import_errors", list)
    monkeypatch.setattr(in_airflow, "AGAIN_S", 0.0)
    health = cache.read(is_local=False)
    assert health is not None
    assert health.components == components_of(HEALTH)


class _Answers(BaseHTTPRequestHandler):
    """Answers like Airflow's REST API of 3.1 to 3.3."""

    password: ClassVar[str] = "let-me-in-27"

    def do_GET(self) -> None:
        if self.path == "/api/v2/monitor/health":
            self._answer(200, HEALTH)
        elif self.headers["Authorization"] == "Bearer token-of-27":
            error = {"filename": "headrace.py", "stack_trace": STACK, "timestamp": BEAT}
            self._answer(200, {"import_errors": [error], "total_entries": 1})
        else:
            self._answer(401, {"detail": "no"})

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_right = given == {"username": "admin", "password": self.password}
        self._answer(201 if is_right else 401, {"access_token": "token-of-27"})

    def _answer(self, code: int, document: Mapping[str, Any]) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def airflow_url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Answers)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_shell_asks_for_health_without_a_login_and_for_import_errors_with_one(airflow_url: str, tmp_path: Path) -> None:
    health = AirflowProbe(Settings(airflow_url=airflow_url)).read()
    assert health is not None
    assert (list(health.components), list(health.import_errors)) == (components_of(HEALTH), [])
    password = tmp_path / "password"
    for text, found in (("let-me-in-27\n", ["headrace.py"]), ("let-me-in-28\n", [])):
        password.write_text(text)
        health = AirflowProbe(Settings(airflow_url=airflow_url, airflow_password_file=password)).read()
        assert health is not None
        assert [each.file for each in health.import_errors] == found


def test_airflow_that_does_not_answer_is_a_problem_and_a_local_one_that_was_stopped_is_none() -> None:
    nowhere = "http://127.0.0.1:1"
    health = AirflowProbe(Settings(airflow_url=nowhere)).read()
    assert health is not None
    (problem,) = overview(health).problems
    assert problem.text.startswith(f"{nowhere} does not tell its health: ")
    assert AirflowProbe(Settings(services={"airflow": {"address": nowhere}})).read() is None
    assert AirflowProbe(Settings()).read() is None
