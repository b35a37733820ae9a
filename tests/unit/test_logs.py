"""JSON log lines."""

import json
import logging
from collections.abc import Iterator
from uuid import UUID

import pytest

from headrace import logs
from headrace.exceptions import CheckpointMoved, SourceUnavailable
from headrace.ingest.drain import DrainResult
from headrace.ingest.journal import Journal
from headrace.ingest.plan import Plan
from headrace.postgres.ledger import LedgerKind, LedgerLine
from headrace.settings import Settings
from headrace.sources.base import Range

JSON = Settings(log_format="json")
LINE = LedgerLine(
    batch_id=UUID(int=1), dataset="jobs", generation=2, partition=3, start_offset=10, end_offset=20,
    kind=LedgerKind.DRAIN, staged=5, dead=2, tombstones=1, empty=2, bytes=99,
)  # fmt: skip
PLAN = Plan("jobs", 2, "jobs", "id", {3: Range(10, 20)})


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    before = logs.logger.handlers, logs.logger.level, logs.logger.propagate
    yield
    logs.logger.handlers, logs.logger.propagate = before[0], before[2]
    logs.logger.setLevel(before[1])


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_batch_is_one_json_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(JSON)
    Journal(JSON).batch(LINE, 7, 1.23456)
    (line,) = lines(capsys)
    assert str(line.pop("timestamp")).endswith("+00:00")
    assert line == {
        "level": "info", "event": "batch committed", "logger": "headrace", "dataset": "jobs", "kind": "drain",
        "batch_id": "00000000-0000-0000-0000-000000000001", "seq": 7, "generation": 2, "partition": 3,
        "start_offset": 10, "end_offset": 20, "staged": 5, "dead": 2, "tombstones": 1, "ignored": 0, "empty": 2,
        "bytes": 99, "seconds": 1.235,
    }  # fmt: skip


def test_end_of_a_drain_is_one_json_line_with_its_error_if_it_has_one(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(JSON)
    result = DrainResult("jobs", batches=2, staged=5, seconds=0.5, next_offsets={3: 20})
    Journal(JSON).end(PLAN, result)
    Journal(JSON).end(PLAN, result, SourceUnavailable("gone\naway"))
    Journal(JSON).end(PLAN, result, CheckpointMoved("jobs[3]: checkpoint is 30", partition=3, offset=20))
    ended, failed, moved = lines(capsys)
    assert (ended["level"], ended["event"], ended["batches"]) == ("info", "drain ended", 2)
    assert (ended["next_offsets"], ended["seconds"], ended["generation"]) == ({"3": 20}, 0.5, 2)
    assert "error" not in ended
    assert (failed["level"], failed["event"], failed["error"]) == ("error", "drain failed", "gone\\naway")
    assert "partition" not in failed
    assert (moved["error"], moved["partition"], moved["offset"]) == ("jobs[3]: checkpoint is 30", 3, 20)


def test_text_keeps_quiet(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    text = Settings()
    logs.configure(text)
    journal = Journal(text)
    with caplog.at_level(logging.INFO, "headrace"):
        journal.batch(LINE, 7, 1.0)
        journal.end(PLAN, DrainResult("jobs"))
    assert caplog.messages == []
    assert lines(capsys) == []


def test_whatever_else_headrace_logs_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure(JSON)
    logging.getLogger("headrace.postgres.lock_watchdog").warning("lock_watchdog: ended backend %s\n%s", 7, "ü")
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("headrace.postgres.lock_watchdog").exception("oh")
    warned, raised = lines(capsys)
    assert (warned["level"], warned["event"], warned["logger"]) == (
        "warning", "lock_watchdog: ended backend 7\\nü", "headrace.postgres.lock_watchdog",
    )  # fmt: skip
    assert "ValueError: x" in str(raised["exception"])


def test_refusal_is_logged_only_where_logs_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert not logs.refused("headrace: no")
    logs.configure(JSON)
    assert logs.refused("headrace: no")
    (line,) = lines(capsys)
    assert (line["level"], line["event"]) == ("error", "headrace: no")
