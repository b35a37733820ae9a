"""The command line with running and with stopped services."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.command_line import TIME_LIMIT_S, assert_refused, finish, run, start
from tests.support.jobs import servers, topic_of
from tests.support.ledger_checks import assert_ledger, environment
from tests.support.stage import Stage


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which connections are accepted and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield listener.getsockname()[1]


def test_command_whose_services_are_down_is_refused_in_one_line_and_in_time(
    stage: Stage, silent_port: int, closed_port: int, tmp_path: Path
) -> None:
    lines = tmp_path / "jobs.kafka"
    lines.write_bytes(b"k|v\n")
    kafka, postgres = "HEADRACE_KAFKA_BOOTSTRAP_SERVERS", "HEADRACE_POSTGRES_DSN"
    cases = [
        (("drain", "jobs"), {kafka: f"127.0.0.1:{closed_port}"}, f"127.0.0.1:{closed_port}"),
        (("drain", "jobs"), {kafka: f"127.0.0.1:{silent_port}"}, f"127.0.0.1:{silent_port}"),
        (("drain", "jobs"), {kafka: "no-such-host.invalid:9092"}, "no-such-host.invalid"),
        (("produce", "jobs", str(lines)), {kafka: f"127.0.0.1:{closed_port}"}, "headrace up"),
        (("drain", "jobs"), {postgres: f"postgresql://127.0.0.1:{closed_port}/x"}, "expected a server that answers"),
        (("drain", "jobs"), {postgres: f"postgresql://127.0.0.1:{silent_port}/x"}, "expected a server that answers"),
        (("init",), {postgres: f"postgresql://127.0.0.1:{closed_port}/x"}, "expected a server that answers"),
        (("load", "users"), {postgres: f"postgresql://127.0.0.1:{closed_port}/x"}, "expected a server that answers"),
        (("status",), {postgres: "postgresql://no-such-host.invalid/x"}, "expected a server that answers"),
        (("status",), {postgres: "this is no DSN"}, "postgres: "),
    ]
    began = time.monotonic()
    processes = [start(environment(stage.deployment.settings) | given, *arguments) for arguments, given, _ in cases]
    for process, (_, _, expected) in zip(processes, cases, strict=True):
        assert_refused(finish(process), expected)
    assert time.monotonic() - began < TIME_LIMIT_S + 5  # ten at once on two cores


def test_command_that_is_refused_says_why_in_one_line(stage: Stage, tmp_path: Path) -> None:
    cases = [
        (("load", "users", str(tmp_path / "absent.ndjson")), {}, ("absent.ndjson: cannot be read: No such file",)),
        (("load", "users", str(tmp_path / "users.txt")), {}, ("users.txt: found ", "expected .ndjson")),
        (("produce", "jobs", str(tmp_path / "absent")), {}, ("absent: cannot be read",)),
        (("drain", "dance"), {}, ("dataset 'dance': not declared", "expected one of jobs, users")),
        (("drain", "jobs"), {"HEADRACE_BATCH_ROW": "1"}, ("HEADRACE_BATCH_ROW: not a setting",)),
        (("drain", "jobs"), {"HEADRACE_BATCH_ROWS": "0"}, ("HEADRACE_BATCH_ROWS: found '0'",)),
        (("accept-loss", "jobs", "--partition", "0", "--to", "9"), {}, ("jobs[0]: no such partition",)),
    ]
    processes = [start(environment(stage.deployment.settings) | given, *arguments) for arguments, given, _ in cases]
    for process, (_, _, parts) in zip(processes, cases, strict=True):
        assert_refused(finish(process), *parts)


def test_command_for_a_topic_that_does_not_exist_is_refused_in_one_line(stage: Stage) -> None:
    declared = stage.deployment.settings.datasets_dir / "jobs.py"
    declared.write_text(declared.read_text().replace(f'topic="{topic_of(stage)}"', 'topic="absent"'))
    assert_refused(run(stage, "drain", "jobs"), f"absent: no such topic at {servers(stage)}; create it")


def test_command_without_tables_is_refused_in_one_line_and_works_after_init(stage: Stage) -> None:
    stage.execute("drop schema headrace cascade", "drop schema staging cascade")
    for arguments in (("drain", "jobs"), ("load", "users"), ("status",), ("reset", "jobs", "--yes")):
        assert_refused(run(stage, *arguments), "run `headrace init`")
    assert run(stage, "init").stdout.startswith("applied 0001_bookkeeping")
    assert run(stage, "init").stdout == "nothing to do\n"


def test_commands_from_generation_to_status_work_together(stage: Stage, tmp_path: Path) -> None:
    lines = tmp_path / "jobs.kafka"
    assert run(stage, "generate", "jobs", "--records", "500", "--bad-percent", "5", "--out", str(lines)).status == 0
    assert run(stage, "produce", "jobs", str(lines)).stdout == f"500 records sent to {topic_of(stage)}\n"
    drained = run(stage, "drain", "jobs", "--parallel", "2")
    assert drained.stdout.startswith("jobs: 500 records in ")
    assert drained.stderr == ""
    assert run(stage, "drain", "jobs").stdout == "jobs: nothing new\n"
    assert run(stage, "load", "users").stdout == "users: 21467 staged and 0 dead from users.ndjson\n"
    status = json.loads(run(stage, "status", "--json").stdout)["datasets"]
    partitions = [(each["dataset"], part["partition"], part["lag"]) for each in status for part in each["partitions"]]
    assert partitions == [("jobs", 0, 0), ("jobs", 1, 0), ("jobs", 2, 0), ("users", 0, 0)]
    assert "21,467" in run(stage, "status").stdout
    assert run(stage, "reset", "jobs", "--yes").stdout.splitlines()[-1].startswith("jobs: deleted ")
    assert run(stage, "drain", "jobs").stdout.startswith("jobs: 500 records in ")
    assert_ledger(stage)


def test_command_produce_in_a_transaction_shows_all_records_or_none(stage: Stage, tmp_path: Path) -> None:
    lines = tmp_path / "jobs.kafka"
    lines.write_bytes(b"a|{}\nb|{}\n")
    assert run(stage, "produce", "jobs", str(lines), "--transactional-id", topic_of(stage)).status == 0
    lines.write_bytes(b"a|{}\nb\n")
    assert_refused(
        run(stage, "produce", "jobs", str(lines), "--transactional-id", topic_of(stage)), "line 2", "nothing was sent"
    )
    run(stage, "drain", "jobs")
    assert stage.value("select count(*) from headrace.dead_letters") == 2


def test_command_shows_no_password(stage: Stage, closed_port: int) -> None:
    secret = "canary-5up3r"
    dsn = f"postgresql://headrace:{secret}@127.0.0.1:{closed_port}/x"
    outcome = run(stage, "status", HEADRACE_POSTGRES_DSN=dsn)
    assert_refused(outcome, "expected a server")
    assert secret not in outcome.stderr


def test_command_leaves_no_session_behind(stage: Stage) -> None:
    for arguments in (("drain", "jobs"), ("load", "users"), ("status",)):
        run(stage, *arguments)
    with psycopg.connect(stage.dsn) as connection:
        found = connection.execute(
            "select application_name from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        ).fetchall()
    assert found == []
