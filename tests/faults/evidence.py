"""The contents of the database for a stream, with both independent lists of records: the input of the checks."""

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Identifier, Literal

from tests.faults.traffic import Log, PartitionOffset

JOB_COLUMNS = (
    *("jobcreatedate", "jobdate", "jobidentifier", "jobstatus", "location", "revenue", "servicename", "userid"),
)
Coordinate = tuple[int, int, int]  # generation, partition, offset


@dataclass
class Stream:
    """A dataset and the topics that its generations read."""

    name: str
    logs: dict[int, Log]
    users: int = 0  # trials that have used it

    @property
    def log(self) -> Log:
        """The topic of the open generation."""
        return self.logs[max(self.logs)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """A line of the ledger."""

    batch_id: Any
    seq: int
    generation: int
    partition: int
    start_offset: int
    end_offset: int
    staged: int
    dead: int
    tombstones: int
    empty: int
    ignored: int
    bytes: int
    first_record_at: datetime | None
    last_record_at: datetime | None
    committed_at: datetime
    kind: str
    run_id: str | None


@dataclass
class Evidence:
    """A stream's tables and both lists of records at one moment without writers."""

    stream: Stream
    seen: dict[int, dict[PartitionOffset, str]]  # by generation: digests of the records that the second client read
    stable_ends: dict[int, int]  # of the open generation's topic, by the second client
    closed: dict[int, datetime | None] = field(default_factory=dict)
    checkpoints: dict[tuple[int, int], int] = field(default_factory=dict)
    lines: list[LedgerRow] = field(default_factory=list)
    last_seq: int = 0
    staged: dict[Coordinate, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    dead: dict[Coordinate, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    @property
    def fingerprint(self) -> tuple[Any, ...]:
        """Equal as long as nothing was written."""
        rows = [*self.staged.items(), *self.dead.items()]
        return (
            self.last_seq,
            tuple(sorted(self.checkpoints.items())),
            tuple(sorted((coordinate, len(found)) for coordinate, found in rows)),
        )


def gather(
    connection: Connection[Any],
    stream: Stream,
    seen: dict[int, dict[PartitionOffset, str]],
    stable_ends: dict[int, int],
) -> Evidence:
    """Read everything that the database holds for a stream, in one snapshot."""
    found = Evidence(stream, seen, stable_ends)
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        name = Literal(stream.name)
        cursor.execute(SQL("select generation, closed_at from headrace.generations where dataset = {}").format(name))
        found.closed = dict(cursor.fetchall())
        cursor.execute(
            SQL("select generation, partition, next_offset from headrace.checkpoints where dataset = {}").format(name)
        )
        found.checkpoints = {(generation, p): offset for generation, p, offset in cursor.fetchall()}
        cursor.execute(SQL("select last_seq from headrace.datasets where dataset = {}").format(name))
        found.last_seq = (cursor.fetchone() or (0,))[0]
        names = list(LedgerRow.__slots__)
        cursor.execute(
            SQL("select {} from headrace.batches where dataset = {} order by seq").format(
                SQL(", ").join(map(Identifier, names)), name
            )
        )
        found.lines = [LedgerRow(**dict(zip(names, row, strict=True))) for row in cursor.fetchall()]
        columns: tuple[str, ...] = (*JOB_COLUMNS, "_timestamp", "_key", "_headers", "_deleted", "_extra", "_batch_id")
        cursor.execute(
            SQL("select _generation, _partition, _offset, {} from {}").format(
                SQL(", ").join(map(Identifier, columns)), Identifier("staging", stream.name)
            )
        )
        for generation, partition, offset, *values in cursor:
            found.staged[generation, partition, offset].append(dict(zip(columns, values, strict=True)))
        columns = ("key", "value", "headers", "timestamp", "reason", "batch_id")
        cursor.execute(
            SQL('select generation, partition, "offset", {} from headrace.dead_letters where dataset = {}').format(
                SQL(", ").join(map(Identifier, columns)), name
            )
        )
        for generation, partition, offset, *values in cursor:
            found.dead[generation, partition, offset].append(dict(zip(columns, values, strict=True)))
    return found
