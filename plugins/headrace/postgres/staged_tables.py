"""The staging tables of a dataset: one of its records, and one of the elements of each array that it explodes."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.sql import Identifier

from headrace.contracts.columns import Column
from headrace.dataset import Dataset

SCHEMA = "staging"

# name, Postgres type and constraint of a column
Definition = tuple[str, str, str]

COORDINATES: tuple[Definition, ...] = (
    ("_generation", "integer", "not null"),
    ("_partition", "integer", "not null"),
    ("_offset", "bigint", "not null"),
)
# the columns that follow the contract's in every staging table
BOOKKEEPING_COLUMNS: tuple[Definition, ...] = (
    *COORDINATES,
    ("_timestamp", "timestamptz", ""),
    ("_key", "bytea", ""),
    ("_headers", "jsonb", ""),
    ("_deleted", "boolean", "not null default false"),
    ("_extra", "jsonb", ""),
    ("_batch_id", "uuid", "not null"),
)
SCHEMA_ID_COLUMN = ("_schema_id", "integer", "")  # behind them, where values name schemas of a registry
# and behind these, where values are change events: what formats.base.Change has of them
CHANGE_COLUMNS: tuple[Definition, ...] = (("_position", "bigint[]", ""), ("_op", "text", ""))
ELEMENT_COLUMNS: tuple[Definition, ...] = (*COORDINATES, ("_index", "integer", "not null"), ("_extra", "jsonb", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedTable:
    """A staging table as the declaration wants it.

    child: the name of the child whose elements it has; None for the dataset's records. contract: the contract's
    columns. bookkeeping: the columns behind them. later: those of the latter that a table may get later. key: the
    columns that are indexed.
    """

    name: str
    dataset: str
    child: str | None = None
    contract: Sequence[Column]
    bookkeeping: tuple[Definition, ...]
    later: tuple[Definition, ...] = ()
    primary_key: tuple[str, ...] = ("_generation", "_partition", "_offset")
    key: tuple[str, ...] = ()

    @property
    def identifier(self) -> Identifier:
        """The table."""
        return Identifier(SCHEMA, self.name)

    @property
    def replaced(self) -> Identifier:
        """The table of its rows that a reload or load replaced."""
        return Identifier(SCHEMA, replaced_name(self.name))

    @property
    def columns(self) -> list[tuple[str, str]]:
        """Names and types of its columns, in the order in which rows are copied."""
        contract = [(column.name, column.sql_type) for column in self.contract]
        return contract + [(name, sql_type) for name, sql_type, _ in self.bookkeeping]


def replaced_name(name: str) -> str:
    """The name of the table of a table's replaced rows.

    Names of datasets and fields begin with a letter of the alphabet. Names of objects made for a dataset begin with an
    underscore, so that no declaration can use them; dbt/packages/headrace_dbt has the same rule.
    """
    return f"_replaced_{name}"


def count_column(child: str) -> str:
    """The column of a record's row with the number of its elements; null for a tombstone."""
    return f"_count_{child}"


def later_columns(dataset: Dataset) -> tuple[Definition, ...]:
    """Bookkeeping columns that only some datasets have: of a format with schemas, of change events, of children."""
    schema_ids = (SCHEMA_ID_COLUMN,) if dataset.format.has_schema_ids else ()
    changes = CHANGE_COLUMNS if dataset.compiled.changes is not None else ()
    counts = tuple((count_column(child.name), "integer", "") for child in dataset.children)
    return (*schema_ids, *changes, *counts)


def records_table(dataset: Dataset) -> StagedTable:
    """The table of a dataset's records."""
    return StagedTable(
        name=dataset.name,
        dataset=dataset.name,
        contract=dataset.compiled.columns,
        bookkeeping=(*BOOKKEEPING_COLUMNS, *later_columns(dataset)),
        later=later_columns(dataset),
        key=dataset.key_columns,
    )


def child_tables(dataset: Dataset) -> list[StagedTable]:
    """The tables of a dataset's children, in the order of their declaration."""
    children = dataset.compiled.children
    return [
        StagedTable(
            name=dataset.child_table_name(child.name),
            dataset=dataset.name,
            child=child.name,
            contract=child.contract.columns,
            bookkeeping=ELEMENT_COLUMNS,
            primary_key=("_generation", "_partition", "_offset", "_index"),
        )
        for child in (children.each if children is not None else ())
    ]


def all_tables(dataset: Dataset) -> list[StagedTable]:
    """The table of records, then those of its children."""
    return [records_table(dataset), *child_tables(dataset)]
