"""Staging tables: created from the contracts, and compared with them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, errors
from psycopg.sql import SQL, Composable, Composed, Identifier

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError
from headrace.postgres.copy import CopyTarget
from headrace.postgres.staged_tables import BOOKKEEPING_COLUMNS as BOOKKEEPING_COLUMNS
from headrace.postgres.staged_tables import SCHEMA as SCHEMA
from headrace.postgres.staged_tables import Definition, StagedTable, all_tables, child_tables, records_table
from headrace.postgres.staged_tables import replaced_name as replaced_name


def bookkeeping_columns(dataset: Dataset) -> tuple[Definition, ...]:
    """Name, Postgres type and constraint of the columns behind the contract's."""
    return records_table(dataset).bookkeeping


def table(dataset: Dataset) -> Identifier:
    """The dataset's staging table."""
    return Identifier(SCHEMA, dataset.name)


def columns(dataset: Dataset) -> list[tuple[str, str]]:
    """Names and types of a staging table's columns, in the order in which rows are copied."""
    return records_table(dataset).columns


def replaced_table(dataset: Dataset) -> Identifier:
    """The table of rows that a reload or load replaced; marts read it to correct the buckets of these rows."""
    return Identifier(SCHEMA, replaced_name(dataset.name))


def copy_target(connection: Connection[Any], dataset: Dataset, all_rejected: str | None = None) -> CopyTarget:
    """The dataset's staging table, with those of its children, as the target of a COPY."""
    return CopyTarget(
        connection,
        table(dataset),
        columns(dataset),
        all_rejected,
        [(each.identifier, each.columns) for each in child_tables(dataset)],
    )


def ensure_table(connection: Connection[Any], dataset: Dataset, *, recreate: bool = False) -> None:
    """Create the dataset's staging tables, or add the columns of new optional fields.

    Raises DatasetError, with the migration to write, for any other difference, and for a missing table whose rows are
    in the ledger. recreate: create such tables from scratch.
    """
    for each in all_tables(dataset):
        if not recreate:
            _ensure(connection, dataset, each)
            continue
        try:
            with connection.transaction():
                _ensure(connection, dataset, each)
        except DatasetError:
            with _as_owner(f"staging.{each.name}: found other columns"):
                connection.execute(SQL("drop table if exists {}").format(each.identifier))
                _create(connection, each)


def _ensure(connection: Connection[Any], dataset: Dataset, each: StagedTable) -> None:
    found = _found_columns(connection, each.name)
    if not found:
        _refuse_lost_table(connection, dataset, each)
        with _as_owner(f"staging.{each.name}: found no table"):
            _create(connection, each)
        return
    if ("_index" in found) != (each.child is not None):
        raise DatasetError(
            f"staging.{each.name}: found the table of {'elements' if each.child is None else 'a dataset'}, expected "
            f"that of {'a dataset' if each.child is None else 'elements'}; nothing was changed; give the child another "
            "name"
        )
    _refuse_former_fields(each, found)
    for column in each.contract:
        if column.name not in found and column.required:
            clause = f"add column {quoted(column.name)} {column.sql_type}"
            raise DatasetError(
                f"staging.{each.name}: has no column {column.name}, which the contract requires; nothing was "
                f"changed; give the field a default, or write a migration: {_migration(each, clause)}"
            )
    replaced = replaced_name(each.name)
    if not _found_columns(connection, replaced):
        _refuse_former_name(connection, each.name)
        with _as_owner(f"staging.{replaced}: found no table"):
            _create_replaced(connection, each)
    for target in (each.name, replaced):
        present = _found_columns(connection, target)
        added = [(column.name, column.sql_type) for column in each.contract]
        added += [(name, sql_type) for name, sql_type, _ in each.later]
        for name, sql_type in added:
            if name not in present:
                with _as_owner(f"staging.{target}: found no column {name}"):
                    connection.execute(
                        SQL("alter table {} add column if not exists {} {}").format(
                            Identifier(SCHEMA, target), Identifier(name), SQL(sql_type)
                        )
                    )
    _check(connection, each)
    _check_types(each, replaced, _found_columns(connection, replaced))


@contextmanager
def _as_owner(found: str) -> Iterator[None]:
    """Turn a missing privilege into the command that the owner of the schema must run."""
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise DatasetError(
            f"{found}, which the contract needs and this role may not make; nothing was changed; run `headrace init` "
            "as the owner of the schema staging, then the same command again",
            command=Command("init"),
        ) from error


def lock_tables(connection: Connection[Any], dataset: Dataset) -> None:
    """Keep the definitions of the staging tables until the transaction ends."""
    names = SQL(", ").join(each.identifier for each in all_tables(dataset))
    connection.execute(SQL("lock table {} in row exclusive mode").format(names))


def check_table(connection: Connection[Any], dataset: Dataset) -> None:
    """Raise DatasetError unless the staging tables have the contract's columns and types, and the bookkeeping ones.

    Binary COPY would write the eight bytes of one type into a column of another without an error.
    """
    for each in all_tables(dataset):
        _check(connection, each)


def _check(connection: Connection[Any], each: StagedTable) -> None:
    found = _found_columns(connection, each.name)
    for name, sql_type in each.columns:
        if name not in found:
            clause = f"add column {quoted(name)} {sql_type}"
            raise DatasetError(
                f"staging.{each.name}: found no column {name}, expected {_canonical(sql_type)}; nothing was "
                f"changed; write a migration: {_migration(each, clause)}"
            )
    _check_types(each, each.name, found)


def _refuse_lost_table(connection: Connection[Any], dataset: Dataset, each: StagedTable) -> None:
    # an empty table would silently miss the rows below its checkpoint
    row = connection.execute(
        "select case when %(child)s::text is null then sum(staged + tombstones) "
        "else sum((elements ->> %(child)s::text)::bigint) end from headrace.batches where dataset = %(dataset)s",
        {"dataset": dataset.name, "child": each.child},
    ).fetchone()
    if row and row[0]:
        reset = Command("reset", dataset.name)
        raise DatasetError(
            f"staging.{each.name}: found no table, expected the {row[0]} rows that the ledger says were staged; "
            f"nothing was changed; restore it from a backup, or `{reset}` deletes their ledger lines "
            "and the next run reads the source from its start",
            command=reset,
        )


def _refuse_former_name(connection: Connection[Any], name: str) -> None:
    # up to 0.1 its name was <dataset>_replaced; no dataset's own table has this column
    if "_replaced_by" in _found_columns(connection, f"{name}_replaced"):
        raise DatasetError(
            f"staging.{replaced_name(name)}: found no table, expected staging.{name}_replaced under this name; nothing "
            "was changed; run `headrace init` as the owner of the schema staging, then the same command again",
            command=Command("init"),
        )


def _check_types(each: StagedTable, target: str, found: Mapping[str, str]) -> None:
    for name, sql_type in each.columns:
        if found.get(name) != _canonical(sql_type):
            clause = f"alter column {quoted(name)} type {sql_type} using {quoted(name)}::{sql_type}"
            rebuild = Command("build", "--full-refresh")
            otherwise = (
                f"; where a text does not convert, `{Command('reset', each.dataset)}` deletes what was staged and the "
                "next run reads the source from its start"
            )
            raise DatasetError(
                f"staging.{target}.{name}: found {found.get(name, 'no column')}, expected {_canonical(sql_type)}; "
                f"nothing was changed; restore the field, or write a migration: {_migration(each, clause)}; then "
                f"rebuild the marts: `{rebuild}`{otherwise if found.get(name) == 'text' else ''}",
                command=rebuild,
            )


def _refuse_former_fields(each: StagedTable, found: Mapping[str, str]) -> None:
    """Refuse columns that the contract no longer names: marts would read null instead of their values.

    A column whose name begins with an underscore is no field: a migration may keep a former field under such a name.
    """
    names = {column.name for column in each.contract}
    for former in found:
        if former in names or former.startswith("_"):
            continue
        renamed = [
            column.name
            for column in each.contract
            if column.name not in found and _canonical(column.sql_type) == found[former]
        ]
        clauses = [f"rename column {quoted(former)} to {quoted(f'_former_{former}')}"]
        if len(renamed) == 1:
            clauses.append(f"rename column {quoted(former)} to {quoted(renamed[0])}")
        migrations = ", or, as the field of another name, ".join(_migration(each, clause) for clause in clauses)
        raise DatasetError(
            f"staging.{each.name}.{former}: found a column that the contract does not name, expected its field; "
            "nothing was changed; restore the field (it may be optional), or write a migration that keeps what was "
            f"staged under another name: {migrations}"
        )


def _migration(each: StagedTable, clause: str) -> str:
    tables = (each.name, replaced_name(each.name))
    return "; ".join(f"alter table {SCHEMA}.{quoted(name)} {clause}" for name in tables)


def quoted(name: str) -> str:
    """A name as quoted SQL for messages: unquoted, a column named user would be the role's name."""
    return Identifier(name).as_string()


def shared_columns(connection: Connection[Any], name: str) -> list[str]:
    """The columns that a staging table and the table of its replaced rows share: a replacement moves these."""
    replaced = _found_columns(connection, replaced_name(name))
    return [column for column in _found_columns(connection, name) if column in replaced]


def _found_columns(connection: Connection[Any], name: str) -> dict[str, str]:
    """Names and types of a table's columns; empty if there is no such table."""
    return dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            (f"{SCHEMA}.{name}",),
        ).fetchall()
    )


def _create(connection: Connection[Any], each: StagedTable) -> None:
    name = each.name
    primary_key = SQL("constraint {} primary key ({})").format(
        Identifier(f"_pkey_{name}"), SQL(", ").join(map(Identifier, each.primary_key))
    )
    connection.execute(_create_table(name, [*_definitions(each), primary_key]))
    if each.key:
        _create_index(connection, f"_key_{name}", name, *each.key)
    # of an earlier staging table that was dropped
    connection.execute(SQL("drop table if exists {}").format(each.replaced))
    _create_replaced(connection, each)


def _create_replaced(connection: Connection[Any], each: StagedTable) -> None:
    name = replaced_name(each.name)
    connection.execute(_create_table(name, [*_definitions(each), SQL("_replaced_by uuid not null")]))
    # it has no key, because a row may be replaced more than once; a publication for all tables would refuse updates and
    # deletes
    connection.execute(SQL("alter table {} replica identity full").format(Identifier(SCHEMA, name)))
    # a batch's staged rows are found by their range in the primary key: an index of _batch_id would cost a drain a
    # tenth of its time
    _create_index(connection, f"_rby_{each.name}", name, "_replaced_by")
    if each.child is None:
        _create_index(connection, f"_rbatch_{each.name}", name, "_batch_id")
    if each.key:
        _create_index(connection, f"_rkey_{each.name}", name, *each.key)


def _create_index(connection: Connection[Any], name: str, table_name: str, *columns: str) -> None:
    # Postgres's default name, jobs_userid_idx, may be the name of a dataset
    connection.execute(
        SQL("create index {} on {} ({})").format(
            Identifier(name), Identifier(SCHEMA, table_name), SQL(", ").join(map(Identifier, columns))
        )
    )


def _definitions(each: StagedTable) -> list[Composable]:
    contract: list[Composable] = [
        SQL("{} {}").format(Identifier(column.name), SQL(column.sql_type)) for column in each.contract
    ]
    bookkeeping: list[Composable] = [
        SQL("{} {} {}").format(Identifier(name), SQL(sql_type), SQL(constraint))
        for name, sql_type, constraint in each.bookkeeping
    ]
    return [*contract, *bookkeeping]


def _create_table(name: str, definitions: Sequence[Composable]) -> Composed:
    return SQL("create table {} ({})").format(Identifier(SCHEMA, name), SQL(", ").join(definitions))


def _canonical(sql_type: str) -> str:
    """A type by Postgres's own name."""
    element, is_array = sql_type.removesuffix("[]"), sql_type.endswith("[]")
    named = {"timestamptz": "timestamp with time zone", "time": "time without time zone"}.get(element, element)
    return f"{named}[]" if is_array else named
