"""Read all figures once for page, JSON, Prometheus and `headrace status`, in one snapshot.

No query reads a staging table, and none reads the ledger from its beginning.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row, dict_row
from psycopg.sql import SQL, Literal

from headrace.command import Command
from headrace.escaping import visible
from headrace.marts.claims import SCHEMA
from headrace.monitor.figures import (
    BatchStatus,
    BuildStatus,
    DatasetStatus,
    DeadLetterSample,
    ModelStatus,
    PartitionStatus,
    Status,
)
from headrace.monitor.series import read_history
from headrace.postgres.connection import Connect, database
from headrace.postgres.ledger import RunContext
from headrace.postgres.liveness import answered_within
from headrace.sql_files import read_sql

BATCHES = 12
BUILDS = 8
BUILD_LINES = 400  # the newest lines of headrace.builds that are searched for the last builds
SAMPLES = 2  # dead letters of each reason
SAMPLE_BYTES = 200
STATEMENT_TIMEOUT_MS = 15_000  # a page that refreshes itself must not pile up queries
READ_S = 30.0  # for all queries, also if the server is frozen and measures no time


def read_status(connect: Connect) -> Status:
    """Read all figures in one snapshot, within READ_S plus the time to connect.

    Raises DatabaseUnavailable, or DatabaseError without Headrace's tables.
    """
    with answered_within(READ_S), database(connect) as connection, connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        connection.execute(SQL("set local statement_timeout = {}").format(Literal(STATEMENT_TIMEOUT_MS)))
        (at,) = connection.execute("select now()").fetchone() or (datetime.now(UTC),)
        datasets = _datasets(connection)
        return Status(
            at=at,
            datasets=datasets,
            models=_models(connection),
            builds=_builds(connection),
            batches=_batches(connection),
            dead_letters=_dead_letters(connection, datasets),
            history=read_history(connection, at, datasets),
        )


def _datasets(connection: Connection[Any]) -> list[DatasetStatus]:
    with connection.cursor(row_factory=dict_row) as cursor:
        lines: dict[str, list[dict[str, Any]]] = {}
        for line in cursor.execute("select * from headrace.status order by dataset, partition").fetchall():
            lines.setdefault(line["dataset"], []).append(line)
        known = cursor.execute(_query("datasets")).fetchall()
    return [_dataset(found, lines.get(found["dataset"], [])) for found in known]


def _known(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a dataset has before its first batch."""
    return {
        "dataset": found["dataset"],
        "batches": found["last_seq"],
        "recent_dead": found["recent_dead"],
        "dead_since": found["dead_since"],
        "acknowledged": found["acknowledged"],
        "ignored": found["ignored"],
        "last_error": found["error"],
        "last_command": Command.of_row(found["command"], found["dataset"]),
        "observed_at": found["observed_at"],
        "drain_error": found["drain_error"],
        "drain_command": Command.of_row(found["drain_command"], found["dataset"]),
        "drain_failed_at": found["drain_failed_at"],
        "last_cause": found["cause"],
        "error_since": found["error_since"],
        "last_run": _run(found, "run_"),
        "drain_cause": found["drain_cause"],
        "drain_failing_since": found["drain_failing_since"],
        "drain_run": _run(found, "drain_run_"),
        "followed_by": found["holder_name"] if found["is_held"] else None,
        "follower_lost_at": None if found["is_held"] else found["lapses_at"],
        "paused_at": found["paused_at"],
        "paused_by": found["paused_by"],
        "pause_reason": found["pause_reason"],
    }


def _dataset(found: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> DatasetStatus:
    common = _known(found)
    if not lines:
        return DatasetStatus(**common)
    first = lines[0]
    newest = max((line for line in lines if line["last_committed_at"]), key=_committed_at, default=first)
    lagging = [line["lag_s"] for line in lines if line["lag"]]
    lag_s = None if None in lagging else max(lagging, default=0.0)
    seconds = sum(line["recent_s"] for line in lines)
    records = sum(line["recent_records"] for line in lines)
    return DatasetStatus(
        **common,
        generation=first["generation"],
        topic=first["topic"],
        lag=sum(line["lag"] for line in lines),
        lag_s=lag_s,
        behind_open_transaction=sum(line["behind_open_transaction"] or 0 for line in lines),
        staging_freshness_s=newest["staging_freshness_s"],
        mart_freshness_s=first["mart_freshness_s"],
        stale_s=None if lag_s is None else max(lag_s, first["unbuilt_record_s"] if first["has_marts"] else 0.0),
        staged=sum(line["staged"] for line in lines),
        dead=sum(line["dead"] for line in lines),
        tombstones=sum(line["tombstones"] for line in lines),
        recent_records=records,
        rows_per_s=round(records / seconds) if seconds else None,
        last_committed_at=newest["last_committed_at"],
        has_marts=first["has_marts"],
        unbuilt_batches=first["unbuilt_batches"],
        unbuilt_s=first["unbuilt_s"],
        dead_by_reason=dict(sorted(first["dead_by_reason"].items(), key=lambda item: (-item[1], item[0]))),
        partitions=[
            PartitionStatus(**{name: line[name] for name in PartitionStatus.__dataclass_fields__}) for line in lines
        ],
    )


def _run(row: Mapping[str, Any], prefix: str) -> RunContext | None:
    """The run in a row's columns of this prefix; None outside Airflow."""
    run = RunContext(**{name: row[f"{prefix}{name}"] for name in RunContext.__dataclass_fields__})
    return None if run.dag_id is None or run.run_id is None else run


def _committed_at(line: Mapping[str, Any]) -> datetime:
    at: datetime = line["last_committed_at"]
    return at


def _models(connection: Connection[Any]) -> list[ModelStatus]:
    """The models of the last full build, with later builds; models that dbt no longer knows are left out.

    A failure of dbt itself is over with the next line of another kind; the failure of a test without a model is over
    with the next full build that runs tests.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_query("models"), {"schema": SCHEMA, "lines": BUILD_LINES}).fetchall()
    columns = [name for name in ModelStatus.__dataclass_fields__ if name != "run"]
    return [ModelStatus(**{name: row[name] for name in columns}, run=_run(row, "")) for row in rows]


def _builds(connection: Connection[Any]) -> list[BuildStatus]:
    with connection.cursor(row_factory=class_row(BuildStatus)) as cursor:
        return cursor.execute(
            _query("builds"),
            {"lines": BUILD_LINES, "builds": BUILDS},
        ).fetchall()


def _batches(connection: Connection[Any]) -> list[BatchStatus]:
    with connection.cursor(row_factory=class_row(BatchStatus)) as cursor:
        return cursor.execute(
            _query("batches"),
            (BATCHES,),
        ).fetchall()


def _dead_letters(connection: Connection[Any], datasets: Sequence[DatasetStatus]) -> list[DeadLetterSample]:
    """The newest of each reason, by generation, partition and offset; only the beginning of large values.

    Empty for a reader, who may see counts and not contents.
    """
    if connection.execute(_query("may_read_dead_letters")).fetchone() != (True,):
        return []
    reasons = [(each.dataset, reason) for each in datasets for reason in each.dead_by_reason]
    query = _query("dead_letters")
    parameters = {
        "bytes": SAMPLE_BYTES,
        "datasets": [dataset for dataset, _ in reasons],
        "reasons": [reason for _, reason in reasons],
        "samples": SAMPLES,
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, parameters).fetchall()
    return [DeadLetterSample(**row | {"value": _beginning(row["value"], row["size"])}) for row in rows]


def _beginning(value: bytes | None, size: int | None) -> str | None:
    """The beginning of a value as one line of visible text."""
    if value is None:
        return None
    text = value.decode(errors="backslashreplace")
    beginning = visible(text)[:SAMPLE_BYTES]
    return f"{beginning}…" if (size or 0) > len(value) or len(beginning) == SAMPLE_BYTES else beginning


def _query(name: str) -> bytes:
    return read_sql("headrace.monitor", name)
