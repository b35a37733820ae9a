"""Staging tables: created from the contracts, and compared with them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from psycopg import Connection, errors
from psycopg.sql import SQL, Composable, Composed, Identifier

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError

SCHEMA = "staging"

# name, Postgres type and constraint of the columns that follow the contract's in every staging table
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
SCHEMA_ID_COLUMN = ("_schema_id", "integer", "")  # behind them, where values name schemas of a registry

# and behind these, where values are change events: what formats.base.Change has of them
CHANGE_COLUMNS = (("_position", "bigint[]", ""), ("_op", "text", ""))


def bookkeeping_columns(dataset: Dataset) -> tuple[tuple[str, str, str], ...]:
    """Name, Postgres type and constraint of the columns behind the contract's."""
    return (*BOOKKEEPING_COLUMNS, *_format_columns(dataset))


def _format_columns(dataset: Dataset) -> tuple[tuple[str, str, str], ...]:
    """The bookkeeping columns that the dataset's format needs."""
    schema_ids = (SCHEMA_ID_COLUMN,) if dataset.format.has_schema_ids else ()
    return schema_ids + (CHANGE_COLUMNS if dataset.compiled.changes is not None else ())


def table(dataset: Dataset) -> Identifier:
    """The dataset's staging table."""
    return Identifier(SCHEMA, dataset.name)


def columns(dataset: Dataset) -> list[tuple[str, str]]:
    """Names and types of a staging table's columns, in the order in which rows are copied."""
    contract = [(column.name, column.sql_type) for column in dataset.compiled.columns]
    return contract + [(name, sql_type) for name, sql_type, _ in bookkeeping_columns(dataset)]


def replaced_name(name: str) -> str:
    """The name of the table of a dataset's replaced rows.

    Names of datasets and fields begin with a letter of the alphabet. Names of objects made for a dataset begin with an
    underscore, so that no declaration can use them; dbt/packages/headrace_dbt has the same rule.
    """
    return f"_replaced_{name}"


def replaced_table(dataset: Dataset) -> Identifier:
    """The table of rows that a reload or load replaced; marts read it to correct the buckets of these rows."""
    return Identifier(SCHEMA, replaced_name(dataset.name))


def ensure_table(connection: Connection[Any], dataset: Dataset, *, recreate: bool = False) -> None:
    """Create the dataset's staging tables, or add the columns of new optional fields.

    Raises DatasetError, with the migration to write, for any other difference, and for a missing table whose rows are
    in the ledger. recreate: create such tables from scratch.
    """
    if recreate:
        try:
            with connection.transaction():
                ensure_table(connection, dataset)
        except DatasetError:
            with _as_owner(f"staging.{dataset.name}: found other columns"):
                connection.execute(SQL("drop table if exists {}").format(table(dataset)))
                _create(connection, dataset)
        return
    found = _found_columns(connection, dataset.name)
    if not found:
        _refuse_lost_table(connection, dataset)
        with _as_owner(f"staging.{dataset.name}: found no table"):
            _create(connection, dataset)
        return
    _refuse_former_fields(dataset, found)
    for column in dataset.compiled.columns:
        if column.name not in found and column.required:
            clause = f"add column {quoted(column.name)} {column.sql_type}"
            raise DatasetError(
                f"staging.{dataset.name}: has no column {column.name}, which the contract requires; nothing was "
                f"changed; give the field a default, or write a migration: {_migration(dataset, clause)}"
            )
    replaced = replaced_name(dataset.name)
    if not _found_columns(connection, replaced):
        _refuse_former_name(connection, dataset.name)
        with _as_owner(f"staging.{replaced}: found no table"):
            _create_replaced(connection, dataset)
    for target in (dataset.name, replaced):
        present = _found_columns(connection, target)
        added = [(column.name, column.sql_type) for column in dataset.compiled.columns]
        added += [column[:2] for column in _format_columns(dataset)]  # of a format that the dataset had not
        for name, sql_type in added:
            if name not in present:
                with _as_owner(f"staging.{target}: found no column {name}"):
                    connection.execute(
                        SQL("alter table {} add column if not exists {} {}").format(
                            Identifier(SCHEMA, target), Identifier(name), SQL(sql_type)
                        )
                    )
    check_table(connection, dataset)
    _check_types(dataset, replaced, _found_columns(connection, replaced))


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


def check_table(connection: Connection[Any], dataset: Dataset) -> None:
    """Raise DatasetError unless the staging table has the contract's columns and types, and the bookkeeping ones.

    Binary COPY would write the eight bytes of one type into a column of another without an error.
    """
    found = _found_columns(connection, dataset.name)
    for name, sql_type in columns(dataset):
        if name not in found:
            clause = f"add column {quoted(name)} {sql_type}"
            raise DatasetError(
                f"staging.{dataset.name}: found no column {name}, expected {_canonical(sql_type)}; nothing was "
                f"changed; write a migration: {_migration(dataset, clause)}"
            )
    _check_types(dataset, dataset.name, found)


def _refuse_lost_table(connection: Connection[Any], dataset: Dataset) -> None:
    # an empty table would silently miss the rows below its checkpoint
    row = connection.execute(
        "select sum(staged + tombstones) from headrace.batches where dataset = %s", (dataset.name,)
    ).fetchone()
    if row and row[0]:
        reset = Command("reset", dataset.name)
        raise DatasetError(
            f"staging.{dataset.name}: found no table, expected the {row[0]} rows that the ledger says were staged; "
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


def _check_types(dataset: Dataset, target: str, found: Mapping[str, str]) -> None:
    for name, sql_type in columns(dataset):
        if found.get(name) != _canonical(sql_type):
            clause = f"alter column {quoted(name)} type {sql_type} using {quoted(name)}::{sql_type}"
            rebuild = Command("build", "--full-refresh")
            otherwise = (
                f"; where a text does not convert, `{Command('reset', dataset.name)}` deletes what was staged and the "
                "next run reads the source from its start"
            )
            raise DatasetError(
                f"staging.{target}.{name}: found {found.get(name, 'no column')}, expected {_canonical(sql_type)}; "
                f"nothing was changed; restore the field, or write a migration: {_migration(dataset, clause)}; then "
                f"rebuild the marts: `{rebuild}`{otherwise if found.get(name) == 'text' else ''}",
                command=rebuild,
            )


def _refuse_former_fields(dataset: Dataset, found: Mapping[str, str]) -> None:
    """Refuse columns that the contract no longer names: marts would read null instead of their values.

    A column whose name begins with an underscore is no field: a migration may keep a former field under such a name.
    """
    names = {column.name for column in dataset.compiled.columns}
    for former in found:
        if former in names or former.startswith("_"):
            continue
        renamed = [
            column.name
            for column in dataset.compiled.columns
            if column.name not in found and _canonical(column.sql_type) == found[former]
        ]
        clauses = [f"rename column {quoted(former)} to {quoted(f'_former_{former}')}"]
        if len(renamed) == 1:
            clauses.append(f"rename column {quoted(former)} to {quoted(renamed[0])}")
        migrations = ", or, as the field of another name, ".join(_migration(dataset, clause) for clause in clauses)
        raise DatasetError(
            f"staging.{dataset.name}.{former}: found a column that the contract does not name, expected its field; "
            "nothing was changed; restore the field (it may be optional), or write a migration that keeps what was "
            f"staged under another name: {migrations}"
        )


def _migration(dataset: Dataset, clause: str) -> str:
    tables = (dataset.name, replaced_name(dataset.name))
    return "; ".join(f"alter table {SCHEMA}.{quoted(name)} {clause}" for name in tables)


def quoted(name: str) -> str:
    """A name as quoted SQL for messages: unquoted, a column named user would be the role's name."""
    return Identifier(name).as_string()


def shared_columns(connection: Connection[Any], dataset: Dataset) -> list[str]:
    """The columns that the staging table and the table of replaced rows share: a replacement moves these."""
    replaced = _found_columns(connection, replaced_name(dataset.name))
    return [name for name in _found_columns(connection, dataset.name) if name in replaced]


def _found_columns(connection: Connection[Any], name: str) -> dict[str, str]:
    """Names and types of a table's columns; empty if there is no such table."""
    return dict(
        connection.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            (f"{SCHEMA}.{name}",),
        ).fetchall()
    )


def _create(connection: Connection[Any], dataset: Dataset) -> None:
    name = dataset.name
    primary_key = SQL("constraint {} primary key (_generation, _partition, _offset)").format(
        Identifier(f"_pkey_{name}")
    )
    connection.execute(_create_table(name, [*_definitions(dataset), primary_key]))
    if dataset.key_columns:
        _create_index(connection, f"_key_{name}", name, *dataset.key_columns)
    # of an earlier staging table that was dropped
    connection.execute(SQL("drop table if exists {}").format(replaced_table(dataset)))
    _create_replaced(connection, dataset)


def _create_replaced(connection: Connection[Any], dataset: Dataset) -> None:
    name = replaced_name(dataset.name)
    connection.execute(_create_table(name, [*_definitions(dataset), SQL("_replaced_by uuid not null")]))
    # it has no key, because a row may be replaced more than once; a publication for all tables would refuse updates and
    # deletes
    connection.execute(SQL("alter table {} replica identity full").format(Identifier(SCHEMA, name)))
    # a batch's staged rows are found by their range in the primary key: an index of _batch_id would cost a drain a
    # tenth of its time
    _create_index(connection, f"_rby_{dataset.name}", name, "_replaced_by")
    _create_index(connection, f"_rbatch_{dataset.name}", name, "_batch_id")
    if dataset.key_columns:
        _create_index(connection, f"_rkey_{dataset.name}", name, *dataset.key_columns)


def _create_index(connection: Connection[Any], name: str, table_name: str, *columns: str) -> None:
    # Postgres's default name, jobs_userid_idx, may be the name of a dataset
    connection.execute(
        SQL("create index {} on {} ({})").format(
            Identifier(name), Identifier(SCHEMA, table_name), SQL(", ").join(map(Identifier, columns))
        )
    )


def _definitions(dataset: Dataset) -> list[Composable]:
    contract: list[Composable] = [
        SQL("{} {}").format(Identifier(column.name), SQL(column.sql_type)) for column in dataset.compiled.columns
    ]
    bookkeeping: list[Composable] = [
        SQL("{} {} {}").format(Identifier(name), SQL(sql_type), SQL(constraint))
        for name, sql_type, constraint in bookkeeping_columns(dataset)
    ]
    return [*contract, *bookkeeping]


def _create_table(name: str, definitions: Sequence[Composable]) -> Composed:
    return SQL("create table {} ({})").format(Identifier(SCHEMA, name), SQL(", ").join(definitions))


def _canonical(sql_type: str) -> str:
    """A type by Postgres's own name."""
    element, is_array = sql_type.removesuffix("[]"), sql_type.endswith("[]")
    named = {"timestamptz": "timestamp with time zone", "time": "time without time zone"}.get(element, element)
    return f"{named}[]" if is_array else named
