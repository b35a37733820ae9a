"""Read dead letters: counts by reason, the newest, a single one, or all of them page by page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed

from headrace.command import Command
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import NOT_KEPT, Rejection
from headrace.exceptions import DatasetError
from headrace.postgres.dead_letters import headers_of
from headrace.record import Headers

# A page's limit, without its last dead letter: a value of 30 MB may be why a record is dead
PAGE_ROWS = 5_000
PAGE_BYTES = 8 * 1024 * 1024

DeadLetterCoordinate = tuple[int, int, int]  # generation, partition, offset
BEGINNING: DeadLetterCoordinate = (0, -1, -1)

_COORDINATE = re.compile(r"(?:(\d{1,9}):)?(\d{1,9}):(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter: a record's bytes, and why it was rejected. It can be decoded like any record."""

    dataset: str
    generation: int
    partition: int
    offset: int
    timestamp: int | None  # milliseconds since 1970 UTC
    key: bytes | None
    value: bytes | None
    stored_headers: list[dict[str, str | None]] | None
    reason: str
    detail: str
    json_path: str | None
    batch_id: UUID
    replayed_by: UUID | None
    published_at: datetime | None
    masked: list[str] | None  # what is masked in key, value and headers: each field with how

    @property
    def headers(self) -> Headers:
        """The record's headers, in order, repeats included."""
        return headers_of(self.stored_headers)

    @property
    def rejection(self) -> Rejection | None:
        """Why no contract can accept it (its bytes are no document, or were not kept); None if one may."""
        if self.reason == Reason.MALFORMED_ROW or not self.is_kept:
            return Rejection(self.reason, self.detail, self.json_path or "$")
        return None

    @property
    def is_kept(self) -> bool:
        """Whether its bytes are stored.

        A record above the size limits has only its coordinate; one whose masked fields cannot be found in it has no
        value.
        """
        may_be_left_out = self.reason == Reason.TOO_LARGE or self.masked is not None
        return not may_be_left_out or self.value is not None or NOT_KEPT not in self.detail

    @property
    def coordinate(self) -> DeadLetterCoordinate:
        """Generation, partition and offset of the record."""
        return self.generation, self.partition, self.offset


# milliseconds, as in records: Python cannot read a timestamptz of the year 9999 in every time zone
_COLUMNS = SQL(
    'dataset, generation, partition, "offset", (extract(epoch from "timestamp") * 1000)::bigint as "timestamp", key, '
    "value, headers as stored_headers, reason, detail, json_path, batch_id, replayed_by, published_at, masked"
)


@dataclass(frozen=True, slots=True)
class DeadLetterSelection:
    """A selection of a dataset's dead letters: one reason or all; replayed and published ones unless excluded."""

    dataset: str
    reason: str | None = None
    unreplayed: bool = False
    unpublished: bool = False

    def condition(self) -> Composed:
        """The selection as an SQL condition; `parameters` has its values."""
        parts = [SQL("dataset = %(dataset)s")]
        if self.reason is not None:
            parts.append(SQL("reason = %(reason)s"))
        if self.unreplayed:
            parts.append(SQL("replayed_by is null"))
        if self.unpublished:
            parts.append(SQL("published_at is null"))
        return SQL(" and ").join(parts)

    def parameters(self) -> dict[str, Any]:
        """The values of `condition`."""
        return {"dataset": self.dataset, "reason": self.reason}


def pages(
    connection: Connection[Any], selection: DeadLetterSelection, *, rows: int = PAGE_ROWS, max_bytes: int = PAGE_BYTES
) -> Iterator[list[DeadLetter]]:
    """Yield dead letters in the order of generation, partition and offset, each one once; see `read_page`."""
    after = BEGINNING
    while page := read_page(connection, selection, after, rows=rows, max_bytes=max_bytes):
        yield page
        after = page[-1].coordinate


def read_page(
    connection: Connection[Any],
    selection: DeadLetterSelection,
    after: DeadLetterCoordinate,
    *,
    rows: int = PAGE_ROWS,
    max_bytes: int = PAGE_BYTES,
    claim: bool = False,
) -> list[DeadLetter]:
    """The dead letters after a coordinate, in the order of generation, partition and offset; empty at the end.

    A page ends with the dead letter that reaches either limit: `rows`, or `max_bytes` of keys, values and headers.
    claim: lock the dead letters until the transaction ends, and skip those that another transaction has locked.
    """
    # octet_length does not read values stored out of line; `limit` is inside, so the window covers one page only
    query = SQL(
        """
        select {columns} from (
            select *, sum(bytes) over (order by generation, partition, "offset") - bytes as bytes_before
            from (
                select
                    *,
                    coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0)
                    + coalesce(pg_column_size(headers), 0) as bytes
                from headrace.dead_letters
                where {condition} and (generation, partition, "offset") > (%(generation)s, %(partition)s, %(offset)s)
                order by generation, partition, "offset"
                limit %(rows)s
                {locking}
            ) as nearest
        ) as measured
        where bytes_before < %(max_bytes)s
        order by generation, partition, "offset"
        """
    ).format(
        columns=_COLUMNS,
        condition=selection.condition(),
        locking=SQL("for update skip locked" if claim else ""),
    )
    bounds = dict(zip(("generation", "partition", "offset"), after, strict=True))
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        parameters = selection.parameters() | bounds | {"rows": rows, "max_bytes": max_bytes}
        return cursor.execute(query, parameters).fetchall()


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """A reason's numbers of dead letters: not replayed, replayed, and of the former the acknowledged ones."""

    reason: str
    dead: int
    replayed: int
    acknowledged: int = 0


@dataclass(frozen=True, slots=True)
class DeadLetterHeadline:
    """A dead letter's coordinate and reason, without its bytes."""

    generation: int
    partition: int
    offset: int
    reason: str
    detail: str
    json_path: str | None
    topic: str | None = None  # and its partition, of a dataset of several topics


@dataclass(frozen=True, slots=True)
class DeadLetterOverview:
    """A dataset's dead letters: counts by reason, and the newest that were not replayed."""

    dataset: str
    reasons: list[ReasonCount]
    unpublished: int
    newest: list[DeadLetterHeadline]


def count_reasons(connection: Connection[Any], dataset: str, reason: str | None = None) -> list[ReasonCount]:
    """A dataset's dead letters by reason, the most frequent first."""
    selection = DeadLetterSelection(dataset=dataset, reason=reason)
    with connection.cursor(row_factory=class_row(ReasonCount)) as cursor:
        return cursor.execute(
            SQL(
                "select reason, count(*) filter (where replayed_by is null) as dead, count(replayed_by) as replayed, "
                "count(acknowledgement_id) filter (where replayed_by is null) as acknowledged "
                "from headrace.dead_letters where {} group by reason order by dead desc, reason"
            ).format(selection.condition()),
            selection.parameters(),
        ).fetchall()


def overview(connection: Connection[Any], dataset: str, reason: str | None, limit: int) -> DeadLetterOverview:
    """A dataset's dead letters, or those of one reason, and the newest `limit` of those that were not replayed."""
    unpublished = count(connection, DeadLetterSelection(dataset=dataset, reason=reason, unpublished=True))
    unreplayed = DeadLetterSelection(dataset=dataset, reason=reason, unreplayed=True)
    with connection.cursor(row_factory=class_row(DeadLetterHeadline)) as cursor:
        newest = cursor.execute(
            SQL(
                """
                select
                    generation, partition, "offset", reason, detail, json_path,
                    (
                        select format('%%s[%%s]', c.topic, c.topic_partition)
                        from headrace.checkpoints as c
                        where
                            c.dataset = dead_letters.dataset
                            and c.generation = dead_letters.generation
                            and c.partition = dead_letters.partition
                            and c.topic is not null
                    ) as topic
                from (select * from headrace.dead_letters where {}) as dead_letters
                inner join (select batch_id, seq from headrace.batches) as batches using (batch_id)
                order by seq desc, "offset" desc
                limit %(limit)s
                """
            ).format(unreplayed.condition()),
            unreplayed.parameters() | {"limit": limit},
        ).fetchall()
    return DeadLetterOverview(dataset, count_reasons(connection, dataset, reason), unpublished, newest)


def count(connection: Connection[Any], selection: DeadLetterSelection) -> int:
    """The number of selected dead letters."""
    row = connection.execute(
        SQL("select count(*) from headrace.dead_letters where {}").format(selection.condition()),
        selection.parameters(),
    ).fetchone()
    return int(row[0]) if row else 0


def find(connection: Connection[Any], dataset: str, coordinate: str) -> DeadLetter:
    """The dead letter at PARTITION:OFFSET in the newest generation that has one, or at GENERATION:PARTITION:OFFSET.

    Raises DatasetError if there is none.
    """
    found = _COORDINATE.fullmatch(coordinate)
    if found is None:
        raise DatasetError(f"{coordinate!r}: expected PARTITION:OFFSET or GENERATION:PARTITION:OFFSET, as in 0:1234")
    generation, partition, offset = found.groups()
    with connection.cursor(row_factory=class_row(DeadLetter)) as cursor:
        dead_letter = cursor.execute(
            SQL(
                "select {} from headrace.dead_letters where dataset = %(dataset)s and partition = %(partition)s "
                'and "offset" = %(offset)s and (%(generation)s::integer is null or generation = %(generation)s) '
                "order by generation desc limit 1"
            ).format(_COLUMNS),
            {"dataset": dataset, "generation": generation, "partition": int(partition), "offset": int(offset)},
        ).fetchone()
    if dead_letter is None:
        newest = Command("dead-letters", dataset)
        raise DatasetError(
            f"{dataset}[{partition}] {offset}: no dead letter there; `{newest}` lists the newest", command=newest
        )
    return dead_letter
