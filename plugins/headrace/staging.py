"""Staging tables: made from the contracts, filled by COPY."""

from collections.abc import Iterable, Sequence
from typing import Any

from psycopg import Connection, Cursor
from psycopg.sql import SQL, Composable, Composed, Identifier
from psycopg.types.json import Jsonb

from headrace.dataset import Dataset
from headrace.exceptions import DatasetError

SCHEMA = "staging"

# name, type as Postgres names it, constraint; what every staging table has behind its contract's columns
BOOKKEEPING_COLUMNS = (
    ("_generation", "integer", "not null"),
    ("_partition", "integer", "not null"),
    ("_offset", "bigint", "not null"),
    ("_timestamp", "timestamptz", ""),
    ("_key", "bytea", ""),
    ("_headers", "jsonb", ""),
    ("_deleted", "boolean", "not null default false"),
    ("_extra", "jsonb", ""),
    ("_batch_id", "uuid", "not null"),
)


def table(dataset: Dataset) -> Identifier:
    """The dataset's staging table."""
    return Identifier(SCHEMA, dataset.name)


def columns(dataset: Dataset) -> list[tuple[str, str]]:
    """Names and types of a staging table's columns, in the order in which rows are copied."""
    contract = [(column.name, column.sql_type) for column in dataset.compiled.columns]
    return contract + [(name, sql_type) for name, sql_type, _ in BOOKKEEPING_COLUMNS]


def ensure_table(connection: Connection[Any], dataset: Dataset) -> None:
    """Create the dataset's staging table, or bring it up to its contract.

    A new optional field adds a column. Raises DatasetError for any other difference: that takes a migration.
    """
    found = _found_columns(connection, dataset)
    if not found:
        _create(connection, dataset)
        return
    for column in dataset.compiled.columns:
        if column.name not in found:
            if column.required:
                raise DatasetError(
                    f"staging.{dataset.name}: has no column {column.name}, which the contract requires; give the field "
                    f"a default, or write a migration: alter table staging.{dataset.name} add column "
                    f"{column.name} {column.sql_type}"
                )
            for target in (dataset.name, f"{dataset.name}_replaced"):
                connection.execute(
                    SQL("alter table {} add column if not exists {} {}").format(
                        Identifier(SCHEMA, target), Identifier(column.name), SQL(column.sql_type)
                    )
                )
    check_table(connection, dataset)


def check_table(connection: Connection[Any], dataset: Dataset) -> None:
    """Raise DatasetError unless the staging table has the contract's columns and types, and the bookkeeping ones.

    Binary COPY would write eight bytes of one type as another one's without a word.
    """
    found = _found_columns(connection, dataset)
    for name, sql_type in columns(dataset):
        expected = _canonical(sql_type)
        if found.get(name) == expected:
            continue
        where = f"staging.{dataset.name}"
        if name not in found:
            raise DatasetError(
                f"{where}: found no column {name}, expected {expected}; nothing was changed; write a migration: "
                f"alter table {where} add column {name} {sql_type}"
            )
        raise DatasetError(
            f"{where}.{name}: found {found[name]}, expected {expected}; nothing was changed; write a migration: "
            f"alter table {where} alter column {name} type {sql_type}"
        )


def _found_columns(connection: Connection[Any], dataset: Dataset) -> dict[str, str]:
    """Names and types of the staging table's columns as they are; empty without a table."""
    return dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped",
            (f"{SCHEMA}.{dataset.name}",),
        ).fetchall()
    )


def copy_rows(
    cursor: Cursor[Any], target: Identifier, typed_columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows, in the order of typed_columns, into a table; binary, so that nothing has to be escaped."""
    statement = SQL("copy {} ({}) from stdin (format binary)").format(
        target, SQL(", ").join(Identifier(name) for name, _ in typed_columns)
    )
    with cursor.copy(statement) as copy:
        copy.set_types([sql_type.partition("(")[0] for _, sql_type in typed_columns])
        write_row = copy.write_row
        for row in rows:
            write_row(row)


def json_text(text: bytes | None) -> Jsonb | None:
    """Hand JSON text to psycopg as it is."""
    return None if text is None else Jsonb(text, dumps=_as_it_is)


def _as_it_is(text: bytes) -> bytes:
    return text


def _create(connection: Connection[Any], dataset: Dataset) -> None:
    contract: list[Composable] = [
        SQL("{} {}").format(Identifier(column.name), SQL(column.sql_type)) for column in dataset.compiled.columns
    ]
    bookkeeping: list[Composable] = [
        SQL("{} {} {}").format(Identifier(name), SQL(sql_type), SQL(constraint))
        for name, sql_type, constraint in BOOKKEEPING_COLUMNS
    ]
    primary_key = SQL("primary key (_generation, _partition, _offset)")
    connection.execute(_create_table(dataset.name, [*contract, *bookkeeping, primary_key]))
    # rows that a reload replaced: kept, because marts correct the buckets in which they used to be
    replaced = f"{dataset.name}_replaced"
    connection.execute(_create_table(replaced, [*contract, *bookkeeping, SQL("_replaced_by uuid not null")]))
    indexed = [(dataset.name, "_batch_id"), (replaced, "_replaced_by"), (replaced, "_batch_id")]
    if dataset.key_column:
        indexed += [(dataset.name, dataset.key_column), (replaced, dataset.key_column)]
    for target, column in indexed:
        connection.execute(SQL("create index on {} ({})").format(Identifier(SCHEMA, target), Identifier(column)))


def _create_table(name: str, definitions: Sequence[Composable]) -> Composed:
    return SQL("create table {} ({})").format(Identifier(SCHEMA, name), SQL(", ").join(definitions))


def _canonical(sql_type: str) -> str:
    return {"timestamptz": "timestamp with time zone"}.get(sql_type, sql_type)
