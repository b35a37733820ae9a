"""Misspelt names: messages say what may have been meant, and nothing of a shell's mistake is stored."""

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main
from headrace.dataset import load_dataset
from headrace.dataset_files import similar
from headrace.exceptions import (
    AnotherCluster,
    HeadraceError,
    RegistryRefused,
    SettingError,
    SourceRefused,
    SourceUnavailable,
    UsageError,
)
from headrace.ingest import observations
from headrace.ingest.plan import Plan
from headrace.local.kafka_tools import PACKAGE, tool_class
from headrace.monitor.rules import refuse_unknown_reason
from headrace.postgres.ledger import RunContext
from headrace.settings import Settings
from headrace.sources.base import Range


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, env={"HEADRACE_HOME": "/nonexistent"})


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("stauts",), "Did you mean 'status'?"),
        (("generate", "jbos"), "Did you mean 'jobs'?"),
        (("drain", "jobs", "--paralel", "2"), "Did you mean '--parallel'?"),
    ],
)
def test_misspelt_command_or_option_names_the_similar_one(arguments: tuple[str, ...], meant: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert meant in result.stderr


def test_misspelt_kafka_tool_is_refused_before_any_setting_is_read() -> None:
    result = run("kafka", "console-producr", "--topic", "jobs")
    assert result.exit_code == 1
    assert result.stderr.startswith(
        "headrace: kafka: found 'console-producr', expected one of Kafka's tools, did you mean console-producer"
    )


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        ("topics", "TopicCommand"),
        ("kafka-topics.sh", "TopicCommand"),
        ("consumer-groups", "consumer.group.ConsumerGroupCommand"),
        ("get-offset-shell", "GetOffsetShell"),
    ],
)
def test_kafka_tool_is_known_by_its_script_and_its_class(tool: str, name: str) -> None:
    assert tool_class(tool) == f"{PACKAGE}.{name}"


def test_unknown_reason_is_refused_and_a_known_one_is_not() -> None:
    jobs = load_dataset(Settings().datasets_dir, "jobs")
    for reason in (None, "wrong_type", "too_large", "malformed_row"):
        refuse_unknown_reason(jobs, reason)
    with pytest.raises(UsageError, match=r"^jobs: found no dead letter of reason 'wrong_typ', did you mean wrong_type"):
        refuse_unknown_reason(jobs, "wrong_typ")


def test_similar_names_are_asked_for_in_any_case() -> None:
    assert similar("JOBS", ["jobs", "events"]) == ", did you mean jobs?"
    assert similar("x", ["jobs", "events"]) == ""


@pytest.mark.parametrize("kind", [SettingError, UsageError, AnotherCluster, SourceRefused, RegistryRefused])
def test_error_of_a_shells_own_settings_is_not_stored(kind: type[HeadraceError]) -> None:
    assert _stored(kind("wrong"), is_service=False) == 0
    assert _stored(kind("wrong"), is_service=True) == 2


def test_error_of_the_source_is_stored_from_a_shell_too() -> None:
    assert _stored(SourceUnavailable("no broker"), is_service=False) == 2


def _stored(error: HeadraceError, *, is_service: bool) -> int:
    """How often storing a plan's and a drain's error asks for a connection."""
    asked = []

    def connect() -> None:
        asked.append(True)
        raise OSError("no database here")

    run = RunContext() if is_service else None
    observations.save_failure(connect, "jobs", error, run)  # type: ignore[arg-type]
    observations.save_drain_failure(connect, Plan("jobs", 1, "jobs", "id", {0: Range(0, 5)}), error, run)  # type: ignore[arg-type]
    return len(asked)
