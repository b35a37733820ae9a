"""What the pages of a dataset and of a dead letter show beyond the figures: ledger, runs, marts, stored bytes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Literal

from headrace.exceptions import DatasetError
from headrace.marts.claims import SCHEMA
from headrace.monitor.figures import BatchStatus
from headrace.monitor.status import READ_S, STATEMENT_TIMEOUT_MS
from headrace.postgres.checkpoints import origin_texts
from headrace.postgres.connection import Connect, database
from headrace.postgres.dead_letter_pages import DeadLetter, DeadLetterCoordinate, find
from headrace.postgres.liveness import answered_within
from headrace.sql_files import read_sql

BATCHES = 25
RUNS = 15
RUN_LINES = 500  # the newest ledger lines that are searched for runs
MODELS = 100
SHOWN_BYTES = 64 * 1024  # of a key or a value; a page with more is slow


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run of Airflow's that committed batches."""

    dag_id: str
    run_id: str
    batches: int
    records: int
    dead: int
    committed_at: datetime


@dataclass(frozen=True, slots=True)
class MartReader:
    """A model behind a dataset. depth: 1 if it reads the staging table. upstreams: what it reads, among these."""

    model: str
    depth: int
    upstreams: Sequence[str]


@dataclass(frozen=True, slots=True)
class DatasetDetail:
    """A dataset's newest ledger lines, the runs that wrote them, and the models that read it."""

    batches: Sequence[BatchStatus]
    runs: Sequence[RunStatus]
    marts: Sequence[MartReader]


@dataclass(frozen=True, slots=True)
class DeadLetterDetail:
    """A dead letter as stored; key and value are the first SHOWN_BYTES, their sizes those of the whole."""

    dataset: str
    generation: int
    partition: int
    offset: int
    timestamp: str | None  # as Postgres writes it: its year may be beyond Python's range
    reason: str
    detail: str
    json_path: str | None
    masked: Sequence[str] | None
    stored_headers: Sequence[Mapping[str, str | None]] | None
    key_size: int | None
    key: bytes | None
    value_size: int | None
    value: bytes | None
    published_at: datetime | None
    seq: int
    committed_at: datetime
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int | None
    replayed_seq: int | None
    replayed_at: datetime | None
    topic: str | None = None  # and its partition, of a dataset of several topics

    @property
    def coordinate(self) -> str:
        """`1:0:42`: generation, partition and offset."""
        return f"{self.generation}:{self.partition}:{self.offset}"


def read_detail(connect: Connect, dataset: str) -> DatasetDetail:
    """Read the newest batches and runs of a dataset, and the models behind it."""
    with _reading(connect) as connection:
        given = {
            "dataset": dataset, "schema": SCHEMA, "batches": BATCHES, "runs": RUNS, "lines": RUN_LINES,
            "models": MODELS,
        }  # fmt: skip
        # a member of headrace_reader may not see what models read of one another
        may_read = connection.execute(_query("may_read_lineage")).fetchone() == (True,)
        return DatasetDetail(
            _rows(connection, BatchStatus, "dataset_batches", given),
            _rows(connection, RunStatus, "dataset_runs", given),
            _rows(connection, MartReader, "dataset_marts" if may_read else "dataset_claims", given),
        )


def read_dead_letter(connect: Connect, dataset: str, coordinate: DeadLetterCoordinate) -> DeadLetterDetail | None:
    """Read a dead letter, without the rest of large bytes; None if there is none.

    Raises DatasetError for a role that may see counts of dead letters and not contents.
    """
    with _reading(connect) as connection:
        _check_rights(connection)
        generation, partition, offset = coordinate
        given = {
            "dataset": dataset, "generation": generation, "partition": partition, "offset": offset,
            "bytes": SHOWN_BYTES,
        }  # fmt: skip
        with connection.cursor() as cursor:
            row = cursor.execute(_query("dead_letter"), given).fetchone()
            if row is None:
                return None
            names = [column.name for column in cursor.description or ()]
        topic = origin_texts(connection, dataset).get((generation, partition))
        return DeadLetterDetail(**dict(zip(names, row, strict=True)), topic=topic)


def read_whole(connect: Connect, dataset: str, coordinate: str) -> DeadLetter:
    """Read a dead letter with all of its bytes; raises DatasetError if there is none."""
    with _reading(connect) as connection:
        _check_rights(connection)
        return find(connection, dataset, coordinate)


@contextmanager
def _reading(connect: Connect) -> Iterator[Connection[Any]]:
    with answered_within(READ_S), database(connect) as connection, connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        connection.execute(SQL("set local statement_timeout = {}").format(Literal(STATEMENT_TIMEOUT_MS)))
        yield connection


def _rows(connection: Connection[Any], kind: type[Any], name: str, given: Mapping[str, Any]) -> list[Any]:
    with connection.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(_query(name), given).fetchall()


def _check_rights(connection: Connection[Any]) -> None:
    if connection.execute(_query("may_read_dead_letters")).fetchone() != (True,):
        raise DatasetError(
            "headrace.dead_letters: found a role that may not read dead letters, expected one of headrace_loader"
        )


def _query(name: str) -> bytes:
    return read_sql("headrace.monitor", name)
