"""The ledger, headrace.batches: one line per batch, numbered per dataset in commit order.

No function here begins or ends a transaction; it runs in the caller's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import uuid6
from psycopg import Connection
from psycopg.types.json import Jsonb

from headrace.exceptions import DatabaseError


class LedgerKind(StrEnum):
    """What wrote a ledger line.

    The kinds in CHAINED move a checkpoint: per partition their ranges form a chain. The others leave the checkpoint
    unchanged; their range spans the rows that they touched.
    """

    DRAIN = "drain"
    """A batch of records of a topic or stream."""
    LOAD = "load"
    """A batch of lines of a file."""
    REPLACE = "replace"
    """`load --replace`: tombstones after the file's last line, one for each absent entity. Lines from before migration
    0022 are of kind `load`."""
    ADOPT = "adopt"
    """The first line of a partition whose source does not serve its first offsets: [0, log start), without records."""
    ACCEPT_LOSS = "accept_loss"
    """A range that the source no longer serves, abandoned unread."""
    REPLAY = "replay"
    """Dead letters that the contract now accepts, staged under their coordinates."""
    RELOAD = "reload"
    """A range that was read again; its new rows replace the staged ones."""
    FILL = "fill"
    """Rows whose column got its value from `_extra`. Lines from before migration 0022 are of kind `reload`."""
    RESET = "reset"
    """Everything of the dataset was deleted; the line has no range."""


CHAINED = (LedgerKind.DRAIN, LedgerKind.LOAD, LedgerKind.REPLACE, LedgerKind.ADOPT, LedgerKind.ACCEPT_LOSS)


def new_batch_id() -> UUID:
    """An id for a batch: a UUID of version 7 (RFC 9562, 5.7), which begins with the time.

    The index of _batch_id then grows at its end; random ids cost Postgres a tenth more per row.
    """
    return UUID(int=uuid6.uuid7().int)  # psycopg adapts only a plain UUID


@dataclass(frozen=True, slots=True)
class RunContext:
    """The Airflow task that commits; all None outside Airflow."""

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    try_number: int | None = None
    map_index: int | None = None  # -1 for an unmapped task


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One line: the counts of [start_offset, end_offset) of one partition in one batch."""

    batch_id: UUID
    dataset: str
    generation: int
    partition: int
    start_offset: int
    end_offset: int
    kind: LedgerKind
    elapsed_s: float = 0.0  # since the batch began; started_at is the database's time minus this
    staged: int = 0
    dead: int = 0
    tombstones: int = 0
    empty: int = 0
    elements: Mapping[str, int] | None = None  # rows of each child's table; None if the batch wrote none
    ignored: int = 0  # records that the dataset's condition `where` leaves out
    bytes: int = 0
    first_record_at: datetime | None = None
    last_record_at: datetime | None = None
    position: str | None = None
    run: RunContext = RunContext()
    note: str | None = None  # for adopt, accept_loss, reset and replace: what was abandoned or removed, and why


APPEND_LINE = """
with counted as (
    update headrace.datasets set last_seq = last_seq + 1 where dataset = %(dataset)s returning last_seq
)

insert into headrace.batches (
    batch_id, dataset, seq, generation, partition, start_offset, end_offset, staged, dead, tombstones, empty, ignored,
    elements, bytes, first_record_at, last_record_at, started_at, kind, dag_id, run_id, task_id, try_number, map_index,
    note
)
select
    %(batch_id)s, %(dataset)s, counted.last_seq, %(generation)s, %(partition)s, %(start)s, %(end)s, %(staged)s,
    %(dead)s, %(tombstones)s, %(empty)s, %(ignored)s, %(elements)s, %(bytes)s, %(first)s, %(last)s,
    clock_timestamp() - make_interval(secs => %(elapsed_s)s), %(kind)s, %(dag_id)s, %(run_id)s, %(task_id)s,
    %(try_number)s, %(map_index)s, %(note)s
from counted
returning seq
"""


def append_line(connection: Connection[Any], line: LedgerLine) -> int:
    """Write a ledger line and return its seq. Call it last in the transaction.

    seq has no gaps per dataset and follows commit order, because the dataset's row, which counts, stays locked until
    the transaction ends.
    """
    row = connection.execute(
        APPEND_LINE,
        {
            "batch_id": line.batch_id,
            "dataset": line.dataset,
            "generation": line.generation,
            "partition": line.partition,
            "start": line.start_offset,
            "end": line.end_offset,
            "staged": line.staged,
            "dead": line.dead,
            "tombstones": line.tombstones,
            "empty": line.empty,
            "ignored": line.ignored,
            "elements": None if line.elements is None else Jsonb(dict(line.elements)),
            "bytes": line.bytes,
            "first": line.first_record_at,
            "last": line.last_record_at,
            "elapsed_s": line.elapsed_s,
            "kind": line.kind,
            "dag_id": line.run.dag_id,
            "run_id": line.run.run_id,
            "task_id": line.run.task_id,
            "try_number": line.run.try_number,
            "map_index": line.run.map_index,
            "note": line.note,
        },
    ).fetchone()
    if row is None:
        raise DatabaseError(
            f"{line.dataset}[{line.partition}]: headrace.batches stored no line, expected one: a trigger or rule on it "
            "or on headrace.datasets leaves rows out; nothing was changed; remove or disable it, then run the same "
            "command again"
        )
    return int(row[0])


def committed_seq(connection: Connection[Any], line: LedgerLine) -> int | None:
    """Decide a commit in doubt: it happened if and only if the ledger has the batch's id. Return its seq, or None.

    Locks the checkpoint first, which waits for a backend that may still be committing.
    """
    connection.execute(
        "select 1 from headrace.checkpoints where dataset = %s and generation = %s and partition = %s for update",
        (line.dataset, line.generation, line.partition),
    )
    found = connection.execute("select seq from headrace.batches where batch_id = %s", (line.batch_id,)).fetchone()
    return None if found is None else int(found[0])
