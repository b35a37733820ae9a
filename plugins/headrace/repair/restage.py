"""Temporary tables of a reload, and the statements that replace staged rows and dead letters with their contents."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier

from headrace.dataset import Dataset
from headrace.ingest.batch import Batch
from headrace.postgres import dead_letters, staging
from headrace.postgres.checkpoints import Generation
from headrace.postgres.copy import check_stored, copy_in_savepoint, copy_rows
from headrace.postgres.staged_tables import StagedTable, child_tables, records_table
from headrace.repair.reload_request import RequestedRange

ROWS = Identifier("pg_temp", "reloaded_rows")
DEAD_LETTERS = Identifier("pg_temp", "reloaded_dead_letters")

MOVE_ROWS = SQL("""
with read_again as (
    select _offset as at from {rows} where _partition = %(partition)s
    union all
    select "offset" from {dead_letters} where partition = %(partition)s
),

gone as (
    delete from {table} as staged
    using read_again
    where
        staged._generation = %(generation)s
        and staged._partition = %(partition)s
        and staged._offset = read_again.at
    returning staged.*
),

kept as (
    insert into {replaced} ({moving}, _replaced_by)
    select {moving}, %(batch_id)s from gone
    returning 1
)

select
    (select count(*) from gone),
    (select count(*) from kept)
""")

# `stored` are the dead letters before the reload, `rejected` those of the records that were read again
SAME_COORDINATE = SQL("""
stored.dataset = %(dataset)s
and stored.generation = %(generation)s
and stored.partition = %(partition)s
and stored."offset" = rejected."offset"
""")
RESOLVE_DEAD_LETTERS = SQL("""
update headrace.dead_letters as stored
set replayed_by = %(batch_id)s
from {rows} as passed
where
    stored.dataset = %(dataset)s
    and stored.generation = %(generation)s
    and stored.partition = %(partition)s
    and stored."offset" = passed._offset
    and stored.replayed_by is null
    and passed._partition = %(partition)s
""")
REOPEN_DEAD_LETTERS = SQL("""
update headrace.dead_letters as stored
set replayed_by = null
from {dead_letters} as rejected
where rejected.partition = %(partition)s and {same_coordinate} and stored.replayed_by is not null
""")
# Adds the bytes of a record that was above a size limit before. Where either dead letter is masked, those of today
# replace the former ones.
IS_OWN = SQL("coalesce(stored.masked, rejected.masked) is null")
UPDATE_DEAD_LETTERS = SQL("""
update headrace.dead_letters as stored
set
    reason = rejected.reason,
    detail = rejected.detail,
    json_path = rejected.json_path,
    key = coalesce(case when {is_own} then stored.key end, rejected.key),
    value = coalesce(case when {is_own} then stored.value end, rejected.value),
    headers = coalesce(case when {is_own} then stored.headers end, rejected.headers),
    masked = rejected.masked
from {dead_letters} as rejected
where
    rejected.partition = %(partition)s
    and {same_coordinate}
    and (stored.reason, stored.detail, stored.json_path, stored.masked)
    is distinct from (rejected.reason, rejected.detail, rejected.json_path, rejected.masked)
""")


@dataclass(slots=True)
class Restaged:
    """The result of a reload for [start, end) of one partition.

    replaced: rows that moved to staging._replaced_<dataset>. kept: rows whose records compaction removed; they stay.
    dead: new dead letters. still_dead: dead letters that are still rejected. resolved: those that are now accepted.
    reopened: replayed dead letters that are rejected again.
    """

    requested: RequestedRange
    batch_id: UUID = field(default_factory=uuid4)
    staged: int = 0
    tombstones: int = 0
    ignored: int = 0
    elements: Counter[str] = field(default_factory=Counter)
    dead: int = 0
    still_dead: int = 0
    resolved: int = 0
    reopened: int = 0
    replaced: int = 0
    kept: int = 0
    bytes: int = 0
    first_record_at: datetime | None = None
    last_record_at: datetime | None = None

    @property
    def partition(self) -> int:
        """The partition of the topic."""
        return self.requested.partition

    @property
    def start(self) -> int:
        """The first offset that was read again."""
        return self.requested.start

    @property
    def end(self) -> int:
        """The first offset after the range."""
        return self.requested.end

    def add(self, batch: Batch) -> None:
        """Add the counts of a batch."""
        self.staged += len(batch.rows) - batch.tombstones
        self.tombstones += batch.tombstones
        self.ignored += batch.ignored
        self.elements.update(batch.element_counts or {})
        self.bytes += batch.bytes
        first, last = batch.first_record_at, batch.last_record_at
        if first is not None and (self.first_record_at is None or first < self.first_record_at):
            self.first_record_at = first
        if last is not None and (self.last_record_at is None or last > self.last_record_at):
            self.last_record_at = last

    def summary(self, dataset: str) -> str:
        """The result in one line."""
        did = [f"{self.staged} staged", f"{self.tombstones} tombstones", f"{self.replaced} rows replaced"]
        for number, what in (
            (self.dead, "new dead letters"),
            (self.reopened, "dead again"),
            (self.still_dead, "dead as before"),
            (self.resolved, "no longer dead"),
            (self.kept, "rows kept, whose records compaction removed"),
        ):
            did += [f"{number} {what}"] if number else []
        uncut = self.requested.full_end
        cut = f"; asked for up to {uncut}, cut to the checkpoint" if uncut > self.end else ""
        return f"{dataset}[{self.partition}]: [{self.start}, {self.end}) read again: {', '.join(did)}{cut}"


def create_tables(connection: Connection[Any], dataset: Dataset) -> None:
    """Create the temporary tables, which are dropped when the transaction ends."""
    # with the staging table's indexes: a row that they reject must fail here, not when the rows are moved
    tables = [(ROWS, staging.table(dataset)), (DEAD_LETTERS, dead_letters.TABLE)]
    children = [each.identifier for each in child_tables(dataset)]
    for target, like in (*tables, *zip(element_tables(dataset), children, strict=True)):
        connection.execute(SQL("create temporary table {} (like {} including all) on commit drop").format(target, like))


def element_tables(dataset: Dataset) -> list[Identifier]:
    """The temporary tables of the children's elements."""
    return [Identifier("pg_temp", f"reloaded_elements_{number}") for number, _ in enumerate(dataset.children)]


def buffer_batch(connection: Connection[Any], batch: Batch) -> None:
    """COPY a batch into the temporary tables; rows that Postgres does not store become dead letters."""
    target = staging.copy_target(connection, batch.dataset, f"{batch.dataset.name}[{batch.partition}]")
    columns = [typed_columns for _, typed_columns in target.children]
    children = list(zip(element_tables(batch.dataset), columns, strict=True))
    copy_in_savepoint(replace(target, table=ROWS, children=children), batch)
    with connection.cursor() as cursor:
        copy_rows(cursor, DEAD_LETTERS, dead_letters.COLUMNS, batch.dead)


def replace_rows(connection: Connection[Any], dataset: Dataset, generation: Generation, each: Restaged) -> None:
    """Move the staged rows of the records that were read again, and insert the new ones."""
    parameters = {
        "generation": generation.generation,
        "partition": each.partition,
        "start": each.start,
        "end": each.end,
        "batch_id": each.batch_id,
    }
    each.replaced = _move(connection, records_table(dataset), parameters)
    children = child_tables(dataset)
    for child in children:
        _move(connection, child, parameters)
    each.kept = _count(
        connection,
        SQL(
            "select count(*) from {} where _generation = %(generation)s and _partition = %(partition)s "
            "and _offset >= %(start)s and _offset < %(end)s"
        ).format(staging.table(dataset)),
        parameters,
    )
    _insert(connection, records_table(dataset), ROWS, parameters, each.staged + each.tombstones)
    for child, source in zip(children, element_tables(dataset), strict=True):
        _insert(connection, child, source, parameters, each.elements[child.child or ""])


def _move(connection: Connection[Any], table: StagedTable, parameters: Mapping[str, Any]) -> int:
    """Move the rows of the records that were read again to the table of replaced rows; return their number."""
    moved = connection.execute(
        MOVE_ROWS.format(
            table=table.identifier,
            replaced=table.replaced,
            rows=ROWS,
            dead_letters=DEAD_LETTERS,
            moving=_listed_columns(staging.shared_columns(connection, table.name)),
        ),
        parameters,
    ).fetchone()
    assert moved is not None
    check_stored(table.replaced, *moved)
    return int(moved[0])


def _insert(
    connection: Connection[Any], table: StagedTable, source: Identifier, parameters: Mapping[str, Any], expected: int
) -> None:
    """Insert a partition's rows of a temporary table."""
    stored = connection.execute(
        SQL("insert into {table} ({names}) select {names} from {source} where _partition = %(partition)s").format(
            table=table.identifier,
            names=_listed_columns([name for name, _ in table.columns]),
            source=source,
        ),
        parameters,
    ).rowcount
    check_stored(table.identifier, expected, stored)


def replace_dead_letters(connection: Connection[Any], dataset: Dataset, generation: Generation, each: Restaged) -> None:
    """Insert, update, resolve and reopen the range's dead letters according to today's decoding."""
    parameters = {
        "dataset": dataset.name,
        "generation": generation.generation,
        "partition": each.partition,
        "batch_id": each.batch_id,
    }
    each.resolved = connection.execute(
        RESOLVE_DEAD_LETTERS.format(rows=ROWS),
        parameters,
    ).rowcount
    rejected = _count(
        connection, SQL("select count(*) from {} where partition = %(partition)s").format(DEAD_LETTERS), parameters
    )
    are_new = SQL(
        "from {dead_letters} as rejected where rejected.partition = %(partition)s "
        "and not exists (select from headrace.dead_letters as stored where {same_coordinate})"
    ).format(dead_letters=DEAD_LETTERS, same_coordinate=SAME_COORDINATE)
    each.dead = _count(connection, SQL("select count(*) {}").format(are_new), parameters)
    stored = connection.execute(
        SQL("insert into {table} ({names}) select {names} {are_new}").format(
            table=dead_letters.TABLE,
            names=_listed_columns([name for name, _ in dead_letters.COLUMNS]),
            are_new=are_new,
        ),
        parameters,
    ).rowcount
    check_stored(dead_letters.TABLE, each.dead, stored)
    each.reopened = connection.execute(
        REOPEN_DEAD_LETTERS.format(dead_letters=DEAD_LETTERS, same_coordinate=SAME_COORDINATE),
        parameters,
    ).rowcount
    each.still_dead = rejected - each.dead - each.reopened
    connection.execute(
        UPDATE_DEAD_LETTERS.format(dead_letters=DEAD_LETTERS, same_coordinate=SAME_COORDINATE, is_own=IS_OWN),
        parameters,
    )


def _listed_columns(names: list[str]) -> Composed:
    return SQL(", ").join(Identifier(name) for name in names)


def _count(connection: Connection[Any], query: Composed, parameters: Mapping[str, Any]) -> int:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return int(row[0])
