"""Copies of staging tables in a scratch schema, with batches of their own: models build from them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from psycopg import Connection
from psycopg.sql import SQL, Composed, Identifier, Literal

from headrace.command import Command
from headrace.exceptions import DatabaseError

STAGING = "staging"
COORDINATE = ("_generation", "_partition", "_offset")

Row = dict[str, str | None]  # column -> its text, as Postgres writes and reads it


@dataclass(slots=True)
class TableCopy:
    """A copied table: its columns with their types, its key ([]: none) and its rows at their coordinates.

    replaces: a second record of a key does not change the key's row (wins: first, or no key), so a reload does.
    """

    schema: str
    name: str
    key: Sequence[str]
    replaces: bool
    types: dict[str, str]
    rows: dict[tuple[str, ...], Row] = field(default_factory=dict)
    seq: int = 0
    next_offset: int = 0

    @property
    def columns(self) -> list[str]:
        """The contract's columns."""
        return [name for name in self.types if not name.startswith("_")]

    def stage(self, connection: Connection[Any], row: Row | None, place: tuple[str, ...] | None = None) -> None:
        """Commit a batch of one row: a new record, or a reload of the one at a place, which may be gone (None)."""
        batch = str(uuid4())
        if place is None:
            newest = max(self.rows, key=lambda at: int(at[0]), default=("1", "0", "0"))
            place = (newest[0], newest[1], str(self.next_offset))
            self.next_offset += 1
        with connection.transaction():
            if self.rows.pop(place, None) is not None:
                connection.execute(self._move_aside(place, batch))
            if row is not None:
                self.rows[place] = row | dict(zip(COORDINATE, place, strict=True)) | {"_batch_id": batch}
                connection.execute(self._insert(self.rows[place]))
            self.seq += 1
            connection.execute(
                SQL("insert into {} values ({}, {}, {}, {}, {}, {}, {})").format(
                    Identifier(self.schema, "_batches"),
                    *(Literal(value) for value in (batch, self.name, self.seq, int(place[0]), int(place[1]))),
                    *(Literal(int(place[2]) + after) for after in (0, 1)),
                )
            )

    def _insert(self, row: Row) -> Composed:
        names = list(self.types)
        values = [SQL("{}::{}").format(Literal(row.get(name)), _type(kind)) for name, kind in self.types.items()]
        return SQL("insert into {} ({}) values ({})").format(
            Identifier(self.schema, self.name), SQL(", ").join(map(Identifier, names)), SQL(", ").join(values)
        )

    def _move_aside(self, place: tuple[str, ...], batch: str) -> Composed:
        at = [
            SQL("{} = {}").format(Identifier(name), Literal(int(number)))
            for name, number in zip(COORDINATE, place, strict=True)
        ]
        names = SQL(", ").join(map(Identifier, self.types))
        return SQL(
            "with gone as (delete from {} where {} returning {}) "
            "insert into {} ({}, _replaced_by) select *, {}::uuid from gone"
        ).format(
            Identifier(self.schema, self.name),
            SQL(" and ").join(at),
            names,
            Identifier(self.schema, f"_replaced_{self.name}"),
            names,
            Literal(batch),
        )


def prepare(connection: Connection[Any], schema: str) -> None:
    """Make the schema of copies, with their batches and datasets as far as builds read them."""
    connection.execute(
        SQL(
            "create schema {}; "
            "create table {} (batch_id uuid, dataset text, seq bigint, generation integer, partition integer, "
            "start_offset bigint, end_offset bigint); "
            "create table {} (dataset text primary key, built uuid not null default gen_random_uuid())"
        ).format(Identifier(schema), Identifier(schema, "_batches"), Identifier(schema, "_datasets"))
    )


def copied(connection: Connection[Any], schema: str, name: str, meta: dict[str, Any], rows_max: int) -> TableCopy:
    """Copy a dataset's table with at most so many of its newest rows, in the order of its primary key.

    Raises DatabaseError where the dataset has no table.
    """
    found = connection.execute("select to_regclass(format('%%I.%%I', %s::text, %s::text))", (STAGING, name))
    if found.fetchone() == (None,):
        raise DatabaseError(
            f"check: found no table {STAGING}.{name}, expected one to copy; run `headrace init`",
            command=Command("init"),
        )
    key = meta.get("key") or []
    key = [key] if isinstance(key, str) else key
    for table in (name, f"_replaced_{name}"):
        connection.execute(
            SQL("create table {} (like {} including defaults including indexes)").format(
                Identifier(schema, table), Identifier(STAGING, table)
            )
        )
    connection.execute(
        SQL(
            "insert into {} select * from {} order by _generation desc, _partition desc, _offset desc limit {}; "
            "insert into {} values ({})"
        ).format(
            Identifier(schema, name),
            Identifier(STAGING, name),
            Literal(rows_max),
            Identifier(schema, "_datasets"),
            Literal(name),
        )
    )
    wins_first = meta.get("wins", "newest") == "first"
    copy = TableCopy(schema, name, [_unquoted(column) for column in key], wins_first or not key, {})
    copy.types = dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = format('%%I.%%I', %s::text, %s::text)::regclass and attnum > 0 and not attisdropped "
            "order by attnum",
            (schema, name),
        ).fetchall()
    )
    _read(connection, copy)
    return copy


def copy_elements(connection: Connection[Any], schema: str, name: str, parent: str) -> None:
    """Copy the elements of a child that belong to the copied rows of its dataset; they do not change.

    New records have none: what models show of elements goes with the versions that they belong to.
    """
    connection.execute(
        SQL(
            "create table {copy} (like {table} including defaults including indexes); "
            "insert into {copy} select elements.* from {table} as elements "
            "inner join {parent} as records using (_generation, _partition, _offset)"
        ).format(copy=Identifier(schema, name), table=Identifier(STAGING, name), parent=Identifier(schema, parent))
    )


def _read(connection: Connection[Any], copy: TableCopy) -> None:
    texts = SQL(", ").join(SQL("{}::text").format(Identifier(name)) for name in copy.types)
    for row in connection.execute(SQL("select {} from {}").format(texts, Identifier(copy.schema, copy.name))):
        image: Row = dict(zip(copy.types, row, strict=True))
        copy.rows[tuple(str(image[name]) for name in COORDINATE)] = image
    copy.next_offset = 1 + max((int(place[2]) for place in copy.rows), default=-1)


def _type(kind: str) -> SQL:
    """A type as format_type gives it, quoted where needed."""
    return SQL(kind)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
