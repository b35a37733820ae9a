"""--json: every command that reports has it, and its documents are JSON."""

import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import click
import pytest
from click.testing import CliRunner

from headrace.cli import main
from headrace.marts.build import BuildResult
from headrace.marts.claims import NodeResult
from headrace.repair.fill import FillResult
from headrace.repair.reload import ReloadResult
from headrace.repair.reload_request import RequestedRange
from headrace.repair.replay import ReplayResult
from headrace.repair.restage import Restaged
from tests.unit.test_cli import commands

# start something and print its progress, or hand over to another program
WITHOUT = {"up", "down", "generate", "produce", "follow", "psql", "kafka", "completion", "new"}
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_command_that_reports_has_json() -> None:
    found = {name for name, *_ in commands() if "as_json" not in _parameters(main.commands[name])}
    assert found <= WITHOUT


def _parameters(command: click.Command) -> set[str | None]:
    return {parameter.name for parameter in command.params}


def test_describe_with_json_has_fields_and_reasons() -> None:
    result = CliRunner().invoke(main, ["describe", "users", "rides", "--json"], env={"HEADRACE_HOME": "/nonexistent"})
    assert result.exit_code == 0, result.output
    users, rides = json.loads(result.stdout)["datasets"]
    assert (users["dataset"], rides["dataset"]) == ("users", "rides")
    assert users["key"] == ["USERID"]
    assert [field["column"] for field in users["fields"]] == ["location", "userid"]
    assert "invalid_json" in users["record_reasons"]


def test_init_and_env_print_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.ingest.prepare.initialise", lambda _deployment, print_line: ["0001_first"])
    monkeypatch.setattr("headrace.local.services.environment", lambda _settings: {"HEADRACE_HOME": "/x y"})
    environ = {"HEADRACE_HOME": "/nonexistent"}
    assert json.loads(CliRunner().invoke(main, ["init", "--json"], env=environ).stdout) == {"applied": ["0001_first"]}
    assert json.loads(CliRunner().invoke(main, ["env", "--json"], env=environ).stdout) == {"HEADRACE_HOME": "/x y"}


def test_build_with_json_keeps_its_progress_out_of_the_document(monkeypatch: pytest.MonkeyPatch) -> None:
    node = NodeResult("marts", "jobs", "model", "success", 7, 0.25, (), None, NOW, NOW)
    made = BuildResult(UUID(int=1), ((node,),), 1.5)

    def build(_settings: object, *, print_line: Callable[[str], None], **_options: object) -> BuildResult:
        print_line("marts.jobs: success")
        return made

    monkeypatch.setattr("headrace.marts.build.build", build)
    result = CliRunner().invoke(main, ["build", "--json"], env={"HEADRACE_HOME": "/nonexistent"})
    assert result.stderr == "marts.jobs: success\n"
    assert json.loads(result.stdout) == {
        "build_id": str(UUID(int=1)), "passes": 1, "rows": 7, "seconds": 1.5,
        "nodes": [{
            "pass": 1, "schema": "marts", "model": "jobs", "kind": "model", "status": "success", "rows": 7,
            "seconds": 0.25, "failed_tests": [], "message": None,
        }],
    }  # fmt: skip


def test_results_of_repairs_are_json() -> None:
    replay = ReplayResult("jobs", None, True, staged=2, remaining=Counter(a=1, b=3), changed=Counter({("a", "b"): 1}))
    assert replay.document()["remaining"] == {"b": 3, "a": 1}
    assert replay.document()["changed"] == [{"from": "a", "to": "b", "dead": 1}]
    fill = FillResult("jobs", "CITY", 3, 1, Counter(wrong_type=2))
    restaged = Restaged(RequestedRange(1, 5, 9, 12), staged=4)
    reload = ReloadResult("jobs", (restaged,))
    assert reload.document()["partitions"][0] | {"batch_id": ""} == {
        "partition": 1, "start_offset": 5, "end_offset": 9, "asked_end": 12, "batch_id": "", "staged": 4,
        "tombstones": 0, "ignored": 0, "dead": 0, "still_dead": 0, "resolved": 0, "reopened": 0, "replaced": 0,
        "kept": 0,
    }  # fmt: skip
    for document in (replay.document(), fill.document(), reload.document()):
        assert json.loads(json.dumps(document)) == document
