"""Commands for several datasets: messages, documents, exit status."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main
from headrace.command import Command
from headrace.exceptions import DatasetError, SourceUnavailable
from headrace.ingest import load as load_module
from headrace.ingest import parallel
from headrace.ingest.drain import DrainResult
from headrace.ingest.load import LoadOptions, LoadResult
from headrace.ingest.plan import Plan
from headrace.publish import dead_letter_topic
from headrace.repair import generations

ENVIRONMENT = {
    "HEADRACE_HOME": "/nonexistent",
    "HEADRACE_POSTGRES_DSN": "postgresql:///x",
    "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "x:1",
}


def run(*arguments: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, env=ENVIRONMENT, input=answer)


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that drains were started for; jobs cannot be drained."""
    names: list[str] = []

    def drain(_deployment: object, name: str, **_options: Any) -> tuple[Plan, DrainResult]:
        names.append(name)
        if name == "jobs":
            raise SourceUnavailable("jobs: kafka did not answer", command=Command("up"))
        plan = Plan(name, 1, f"topic_{name}", "id", {}, waiting=4)
        return plan, DrainResult(name, 2, staged=5, dead=1, reasons=Counter(wrong_type=1), next_offsets={1: 3, 0: 4})

    monkeypatch.setattr(parallel, "drain_dataset", drain)
    monkeypatch.setattr(dead_letter_topic, "publish_after_drain", lambda _deployment, dataset: len(dataset.name))
    return names


def test_drain_of_several_goes_on_after_a_failure_and_ends_with_1(drained: list[str]) -> None:
    result = run("drain", "events", "jobs", "rides", "events")
    assert drained == ["events", "jobs", "rides"]
    assert result.exit_code == 1
    assert result.stderr == "headrace: jobs: kafka did not answer\n"
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["events", "events", "rides", "rides"]
    assert lines[1] == "events: 6 dead letters published"
    drained.clear()
    assert run("drain", "events", "rides").exit_code == 0


def test_drain_of_several_with_json_is_one_document_with_the_errors(drained: list[str]) -> None:
    result = run("drain", "jobs", "rides", "--json")
    assert result.exit_code == 1
    assert result.stderr == "headrace: jobs: kafka did not answer\n"
    assert json.loads(result.stdout) == {
        "datasets": [
            {"dataset": "jobs", "error": "jobs: kafka did not answer", "command": "headrace up"},
            {
                "dataset": "rides", "generation": 1, "source": "topic_rides", "batches": 2, "staged": 5, "dead": 1,
                "tombstones": 0, "ignored": 0, "empty": 0, "bytes": 0, "seconds": 0.0, "reasons": {"wrong_type": 1},
                "next_offsets": {"0": 4, "1": 3}, "waiting": 4, "published": 5,
            },
        ]
    }  # fmt: skip


@pytest.mark.parametrize("command", ["drain", "replay", "reset", "adopt", "describe"])
def test_unknown_name_is_refused_before_the_others_are_touched(command: str, drained: list[str]) -> None:
    result = run(command, "events", "rids")
    assert result.exit_code == 1
    assert "dataset 'rids': not declared in " in result.stderr
    assert ", did you mean rides?; expected one of events, jobs, rides, telemetry, users" in result.stderr
    assert (result.stdout, drained) == ("", [])


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (("users",), [("users", None)]),
        (("users", "jobs"), [("users", None), ("jobs", None)]),
        (("users", "./jobs"), [("users", Path("jobs").absolute())]),
        (("users", "new.csv"), [("users", Path("new.csv").absolute())]),
    ],
)
def test_load_takes_datasets_or_one_and_its_file(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], loaded: list[tuple[str, Path | None]]
) -> None:
    found: list[tuple[str, Path | None]] = []

    def load(_deployment: object, name: str, *, path: Path | None, options: LoadOptions) -> LoadResult:
        found.append((name, path))
        return LoadResult(path or Path("x.csv"), False, DrainResult(name, staged=3), 2, 2)

    monkeypatch.setattr(load_module, "load_file", load)
    result = run("load", *arguments, "--json")
    assert result.exit_code == 0, result.output
    assert found == loaded
    assert [(each["dataset"], each["replaced"]) for each in json.loads(result.stdout)["datasets"]] == [
        (name, 2) for name, _ in loaded
    ]


@pytest.fixture
def adopted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that were adopted; the source of jobs is unchanged, which is a refusal."""
    names: list[str] = []

    def preview(_deployment: object, dataset: Any) -> list[str]:
        if dataset.name == "jobs":
            raise DatasetError("jobs: found its topic unchanged")
        return [f"{dataset.name}: it was deleted", f"{dataset.name}[0]: reads [0, 5)"]

    def adopt(_deployment: object, dataset: Any) -> int:
        names.append(dataset.name)
        return 2

    monkeypatch.setattr(generations, "preview_adopt", preview)
    monkeypatch.setattr(generations, "adopt", adopt)
    return names


def test_adopt_without_a_terminal_prints_the_effects_and_changes_nothing(adopted: list[str]) -> None:
    result = run("adopt", "events", "rides")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "events: it was deleted",
        "events[0]: reads [0, 5)",
        "rides: it was deleted",
        "rides[0]: reads [0, 5)",
    ]
    assert result.stderr == "headrace: nothing was changed; `headrace adopt events rides --yes` does it\n"
    document = json.loads(run("adopt", "events", "--json").stdout)
    assert document == {
        "datasets": [{"dataset": "events", "effects": ["events: it was deleted", "events[0]: reads [0, 5)"]}]
    }
    assert adopted == []


def test_adopt_asks_on_a_terminal_after_the_effects(adopted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    declined = run("adopt", "rides", answer="n\n")
    assert (declined.exit_code, adopted) == (1, [])
    assert declined.stderr.endswith("headrace: nothing was changed\n")
    accepted = run("adopt", "rides", answer="y\n")
    assert (accepted.exit_code, adopted) == (0, ["rides"])
    effects, question, done = accepted.stdout.partition("headrace adopt rides? [y/N]: y\n")
    assert effects.splitlines() == ["rides: it was deleted", "rides[0]: reads [0, 5)"]
    assert question
    assert done == "rides: generation 2 is open\n"


def test_adopt_of_several_does_what_is_not_refused_and_ends_with_1(adopted: list[str]) -> None:
    result = run("adopt", "jobs", "rides", "--yes", "--json")
    assert (result.exit_code, adopted) == (1, ["rides"])
    assert result.stderr == "headrace: jobs: found its topic unchanged\n"
    refused, done = json.loads(result.stdout)["datasets"]
    assert refused == {"dataset": "jobs", "error": "jobs: found its topic unchanged", "command": None}
    assert (done["generation"], len(done["effects"])) == (2, 2)


def test_reset_with_nothing_to_delete_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "preview_reset", lambda _deployment, _dataset: [])
    result = run("reset", "jobs", "users")
    assert (result.exit_code, result.stdout) == (0, "jobs: nothing to delete\nusers: nothing to delete\n")
