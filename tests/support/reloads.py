"""Reloads: a range read again, its lines of the ledger, and all that a reload may change."""

from datetime import UTC, datetime
from typing import Any

from headrace.repair.options import RepairOptions
from headrace.repair.reload import ReloadResult, reload_range
from tests.support import topics
from tests.support.jobs import job, servers, topic_of
from tests.support.stage import Stage

START_MS = 1_700_000_000_000
START = datetime.fromtimestamp(START_MS / 1000, UTC)

# a row's content: all but the batch that staged it
CONTENT = (
    "select jobidentifier, jobcreatedate, jobdate, jobstatus, location, revenue, servicename, userid, _generation, "
    "_partition, _offset, _timestamp, _key, _headers, _deleted, _extra from staging.jobs order by _partition, _offset"
)


def state(stage: Stage) -> list[list[tuple[Any, ...]]]:
    """All that a reload may write."""
    return [
        stage.query("select * from staging.jobs order by _partition, _offset"),
        stage.query("select * from staging._replaced_jobs order by _partition, _offset, _replaced_by"),
        stage.query('select * from headrace.dead_letters order by partition, "offset"'),
        stage.query("select * from headrace.batches order by seq"),
        stage.query("select partition, next_offset, source_position from headrace.checkpoints order by partition"),
        stage.query("select last_seq from headrace.datasets order by 1"),
    ]


def reloaded(stage: Stage, start: object, end: object, partition: int | None = None, **options: Any) -> ReloadResult:
    dataset = stage.deployment.dataset("jobs")
    return reload_range(
        stage.deployment, dataset, str(start), str(end), partition=partition, options=RepairOptions(**options)
    )


def reload_lines(stage: Stage) -> list[tuple[Any, ...]]:
    return stage.query(
        "select partition, start_offset, end_offset, staged, dead, tombstones, empty from headrace.batches "
        "where kind = 'reload' order by seq"
    )


def send_timed(stage: Stage, count: int, partitions: int = 3) -> None:
    """Jobs one second apart, dealt out to partitions in turn."""
    with topics.producer(servers(stage)) as client:
        for n in range(count):
            client.send(
                topic_of(stage),
                partition=n % partitions,
                key=b"%d" % n,
                value=job(n),
                timestamp_ms=START_MS + 1_000 * n,
            )
        client.flush()
