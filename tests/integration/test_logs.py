"""HEADRACE_LOG_FORMAT=json: every batch and every drain's end is a JSON object, for every kind of source."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import streams
from tests.support.airflow_environment import airflow_environment
from tests.support.command_line import CommandResult, assert_refused, run
from tests.support.jobs import send_jobs
from tests.support.stage import Stage

FIELDS = (
    "dataset", "kind", "batch_id", "seq", "generation", "partition", "start_offset", "end_offset", "staged", "dead",
    "tombstones", "empty", "bytes",
)  # fmt: skip
LEDGER = (
    "select dataset, kind, batch_id::text, seq, generation, partition, start_offset, end_offset, staged, dead, "
    "tombstones, empty, bytes from headrace.batches where kind in ('drain', 'load') order by dataset, seq"
)


def logged(outcome: CommandResult) -> list[dict[str, Any]]:
    """The objects on stderr; every line is one, and has a time, a level and an event."""
    assert outcome.status == 0, outcome
    lines = [json.loads(line) for line in outcome.stderr.splitlines()]
    assert all(line.keys() >= {"timestamp", "level", "event"} for line in lines)
    return lines


def assert_are_the_ledger(stage: Stage, lines: list[dict[str, Any]]) -> None:
    batches = [line for line in lines if line["event"] == "batch committed"]
    assert all(line["seconds"] > 0 for line in batches)
    found = sorted((tuple(line[name] for name in FIELDS) for line in batches), key=lambda row: (row[0], row[3]))
    assert found == stage.query(LEDGER)
    assert len(found) > 1


def test_drain_of_a_stream_logs_its_batches_and_its_end(telemetry: Stage) -> None:
    streams.send(telemetry, 30)
    streams.add(telemetry.deployment.redis(), streams.stream_of(telemetry), [{b"data": b"bad"}])
    lines = logged(run(telemetry, "drain", "telemetry", HEADRACE_LOG_FORMAT="json"))
    assert_are_the_ledger(telemetry, lines)
    end = lines[-1]
    assert (end["event"], end["level"], end["dataset"], end["batches"]) == ("drain ended", "info", "telemetry", 2)
    assert (end["staged"], end["dead"], end["next_offsets"]) == (30, 1, {"0": 31})


@pytest.mark.parametrize("parallel", ["1", "3"])
def test_drain_of_a_topic_logs_the_batches_of_all_its_workers(parallel: str, stage: Stage) -> None:
    send_jobs(stage, 900)
    outcome = run(stage, "drain", "jobs", "--parallel", parallel, HEADRACE_LOG_FORMAT="json")
    assert outcome.stdout.startswith("jobs: 900 records in ")
    lines = logged(outcome)
    assert_are_the_ledger(stage, lines)
    ends = [line for line in lines if line["event"] == "drain ended"]
    assert len(ends) == int(parallel)
    assert sum(line["staged"] for line in ends) == 900


def test_load_of_a_file_logs_its_batches_and_its_end(stage: Stage, tmp_path: Path) -> None:
    file = tmp_path / "users.ndjson"
    file.write_bytes(b"".join(b'{"LOCATION": "L", "USERID": %d}\n' % n for n in range(500)))
    lines = logged(run(stage, "load", "users", str(file), HEADRACE_LOG_FORMAT="json"))
    assert_are_the_ledger(stage, lines)
    assert [line["event"] for line in lines][-1] == "drain ended"


def test_text_prints_what_it_always_printed(telemetry: Stage) -> None:
    streams.send(telemetry, 30)
    outcome = run(telemetry, "drain", "telemetry")
    assert outcome.stderr == ""
    assert outcome.stdout.count("\n") == 1
    assert outcome.stdout.startswith("telemetry: 30 records in ")


def test_command_that_fails_logs_why(telemetry: Stage) -> None:
    gone = {"HEADRACE_REDIS_URL": "redis://127.0.0.1:1/0"}
    assert_refused(run(telemetry, "drain", "telemetry", **gone), "redis: 127.0.0.1:1 did not answer")
    outcome = run(telemetry, "drain", "telemetry", HEADRACE_LOG_FORMAT="json", **gone)
    assert outcome.status == 1
    (refused,) = (json.loads(line) for line in outcome.stderr.splitlines())
    assert (refused["level"], refused["event"][:40]) == ("error", "headrace: redis: 127.0.0.1:1 did not ans")


# as Airflow's task runner sets its logging up before it runs a task
RUN_AS_TASK = """
import sys
from airflow.sdk.log import configure_logging
configure_logging(json_output=True, output=sys.stdout.buffer, sending_to_supervisor=True)
from headrace.ingest import runner as ingest
from headrace.airflow.connections import deployment
ours = deployment()
dataset = ours.dataset("telemetry")
ingest.drain_plan(ours, dataset, ingest.plan(ours, dataset))
"""


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_airflow_task_logs_batches_with_all_their_fields(log_format: str, telemetry: Stage, tmp_path: Path) -> None:
    streams.send(telemetry, 30)
    settings = {"HEADRACE_BATCH_ROWS": "20", "HEADRACE_LOG_FORMAT": log_format}
    environment = airflow_environment(telemetry, tmp_path) | settings
    done = subprocess.run(
        [sys.executable, "-c", RUN_AS_TASK], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ours = [line for line in lines if line.get("logger") == "headrace"]
    if log_format == "text":
        assert ours == []
        return
    assert_are_the_ledger(telemetry, ours)
    assert [(line["event"], line["level"]) for line in ours] == [
        ("batch committed", "info"), ("batch committed", "info"), ("drain ended", "info"),
    ]  # fmt: skip
    assert all("timestamp" in line for line in ours)
