"""The fill: move a field's values from `_extra` into its column, after the field was added to the contract.

`staging.ensure_tables` adds the column when it first sees the new contract; rows that were staged before have the value
in `_extra` until they are filled.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import Connection, Cursor
from psycopg.sql import SQL, Composable, Identifier

from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError
from headrace.ingest.field_contract import field_contract
from headrace.postgres import ledger, staging
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.connection import database
from headrace.postgres.copy import CopyTarget, check_stored, copy_in_savepoint, copy_rows, json_text
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.lock_watchdog import drain_name, watch_locks
from headrace.postgres.staged_tables import all_tables
from headrace.repair.options import DEFAULT_OPTIONS, RepairOptions

PAGE_ROWS = 5_000
VALUES = Identifier("pg_temp", "filled_values")

COORDINATE_COLUMNS = (
    ("_generation", "integer"),
    ("_partition", "integer"),
    ("_offset", "bigint"),
    ("_batch_id", "uuid"),
)

SAME_ROW = SQL("""
(staged._generation, staged._partition, staged._offset, staged._batch_id)
= (filled._generation, filled._partition, filled._offset, filled._batch_id)
""")
KEEP_ROWS = SQL("""
insert into {replaced} ({names}, _replaced_by)
select {staged_names}, %(batch_id)s
from {values} as filled, {table} as staged
where filled._generation = %(generation)s and filled._partition = %(partition)s and {same_row}
""")
FILL_ROWS = SQL("""
update {table} as staged
set
    {column} = filled.value,
    _extra = nullif(staged._extra - %(field)s::text, '{{}}'::jsonb),
    _batch_id = %(batch_id)s
from {values} as filled
where filled._generation = %(generation)s and filled._partition = %(partition)s and {same_row}
""")


@dataclass(slots=True)
class FillResult:
    """The result of a fill: the number of filled rows, and of values that the contract rejects, by reason."""

    dataset: str
    name: str
    filled: int = 0
    batches: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """The result in one line."""
        where = f"{self.dataset}.{self.name.lower()}"
        if not self.filled and not self.left:
            return f"{where}: nothing to fill: no row holds {self.name} in _extra"
        reasons = ", ".join(f"{reason} {number}" for reason, number in self.left.most_common())
        left = f"; {self.left.total()} values break the contract and stay in _extra: {reasons}" if self.left else ""
        return f"{where}: {self.filled} rows filled from _extra in {self.batches} batches{left}"

    def document(self) -> dict[str, Any]:
        """The result as JSON types. left: values that break the contract and stay in _extra, by reason."""
        return {
            "dataset": self.dataset,
            "field": self.name,
            "filled": self.filled,
            "batches": self.batches,
            "left": dict(self.left.most_common()),
        }


@dataclass(slots=True)
class _Values:
    """Coordinates and values of a page; values that Postgres rejects stay in `_extra` and are counted."""

    columns: Sequence[tuple[str, str]]
    rows: list[list[Any]]
    result: FillResult

    def copy(self, cursor: Cursor[Any], target: CopyTarget) -> None:
        """COPY them into a table."""
        copy_rows(cursor, target.table, self.columns, self.rows)

    def copy_elements(self, cursor: Cursor[Any], target: CopyTarget) -> None:
        """Do nothing: values have no elements."""

    def rejected_elements(self, _target: CopyTarget) -> Mapping[int, Rejection]:
        """Return none: values have no elements."""
        return {}

    def decode_by_contract(self) -> bool:
        """Return False: they are values already."""
        return False

    def reject(self, rejections: Mapping[int, Rejection]) -> None:
        """Drop them from the page, and count them."""
        self.result.left[Reason.REJECTED_BY_POSTGRES] += len(rejections)
        self.rows = [row for index, row in enumerate(self.rows) if index not in rejections]


def fill(
    deployment: Deployment,
    dataset: Dataset,
    name: str,
    *,
    options: RepairOptions = DEFAULT_OPTIONS,
) -> FillResult:
    """Fill a field's column from `_extra`, for every row whose column is null; all in one transaction.

    Each value is validated by the contract's field as if it came in a record, but without validators of several fields.
    The former row moves to staging._replaced_<dataset>, so that marts see the change, and each partition with a filled
    row gets a ledger line of kind `fill`. Values that do not convert stay in `_extra`. Idempotent.

    Raises DatasetError for a field that the contract does not name.
    """
    column = _column(dataset, name)
    contract = field_contract(dataset, column)
    result = FillResult(dataset.name, name)
    began = time.monotonic()
    connect = deployment.connect(f"headrace fill {dataset.name}")
    with database(connect) as connection:
        with connection.transaction():
            stored = Checkpoints(connection, dataset.name, dataset.masking_key_id)
            stored.register()
            stored.check_masking_key()
            staging.ensure_tables(connection, all_tables(dataset))
        with connection.transaction():
            # read and validate first, without locks that a drain needs: drains wait only while rows are moved
            _create_table(connection, column)
            total = _count(connection, dataset, column)
            for page in _pages(connection, dataset, column):
                _validate_page(connection, dataset, column, contract, page, result)
                options.on_progress(result.filled + result.left.total(), total)
            connection.execute(SQL("analyze {}").format(VALUES))
            options.barrier("read")
            # under the drain's name, so that a drain that waits for a frozen fill may end it, like a frozen drain
            with watch_locks(connection, connect, dataset.name, deployment.lock_timeouts, drain_name(dataset.name)):
                Checkpoints(connection, dataset.name).hold()
                _move(connection, dataset, column, result, began, options.run)
                options.barrier("before_commit")
    return result


def _column(dataset: Dataset, name: str) -> Column:
    for column in dataset.compiled.columns:
        if column.field == name and (column.place is not None or column.inner):
            raise DatasetError(
                f"{dataset.name}: {name} is at a place of its own, expected a field that _extra holds under its name; "
                "nothing was changed; `headrace reload` reads whole records"
            )
        if column.field == name:
            return column
    known = ", ".join(dict.fromkeys(column.field for column in dataset.compiled.columns))
    raise DatasetError(f"{dataset.name}: the contract names no field {name!r}, expected one of {known}")


def _create_table(connection: Connection[Any], column: Column) -> None:
    connection.execute(
        SQL(
            "create temporary table {} (_generation integer, _partition integer, _offset bigint, _batch_id uuid, "
            "value {}, primary key (_generation, _partition, _offset)) on commit drop"
        ).format(VALUES, SQL(column.sql_type))
    )


def _count(connection: Connection[Any], dataset: Dataset, column: Column) -> int:
    query = SQL("select count(*) from {} where {} is null and _extra ? %s")
    row = connection.execute(
        query.format(staging.table(dataset), Identifier(column.name)), (column.source_names[0],)
    ).fetchone()
    return int(row[0]) if row else 0


def _pages(connection: Connection[Any], dataset: Dataset, column: Column) -> Iterator[list[tuple[Any, ...]]]:
    """The coordinate and value, as JSON text, of every row that can be filled."""
    query = SQL(
        "select _generation, _partition, _offset, _batch_id, (_extra -> %(field)s)::text from {} "
        "where {} is null and _extra ? %(field)s"
    ).format(staging.table(dataset), Identifier(column.name))
    with connection.cursor("to_fill") as cursor:
        cursor.execute(query, {"field": column.source_names[0]})
        while page := cursor.fetchmany(PAGE_ROWS):
            yield page


def _validate_page(
    connection: Connection[Any],
    dataset: Dataset,
    column: Column,
    contract: Contract,
    page: Sequence[tuple[Any, ...]],
    result: FillResult,
) -> None:
    """COPY the values that the contract accepts into the temporary table, and count the others."""
    prefix = orjson.dumps({column.source_names[0]: None})[:-5]
    rows: list[list[Any]] = []
    for *coordinate, text in page:
        decoded = contract.decode(None, prefix + text.encode() + b"}")
        if isinstance(decoded, Rejection):
            if decoded.is_raised:
                raise DatasetError(
                    f"{dataset.name}.{column.name}: a validator of {column.field} failed without the record's other "
                    f"fields: {decoded.detail}; nothing was changed; `headrace reload` validates whole records"
                )
            result.left[decoded.reason] += 1
            continue
        value = decoded[0]
        rows.append([*coordinate, json_text(value) if contract.json_columns else value])
    typed_columns = (*COORDINATE_COLUMNS, ("value", column.sql_type))
    values = _Values(typed_columns, rows, result)
    copy_in_savepoint(CopyTarget(connection, VALUES, typed_columns), values)
    result.filled += len(values.rows)


def _move(
    connection: Connection[Any], dataset: Dataset, column: Column, result: FillResult, began: float, run: RunContext
) -> None:
    """Move the former rows, write the values, and write the ledger lines."""
    table = staging.table(dataset)
    connection.execute(SQL("lock table {} in row exclusive mode").format(table))
    staging.check_table(connection, dataset)
    # rows that a reload replaced meanwhile were decoded by today's contract
    result.filled -= connection.execute(
        SQL("delete from {} as filled where not exists (select from {} as staged where {})").format(
            VALUES, table, SAME_ROW
        )
    ).rowcount
    groups = connection.execute(
        SQL(
            "select _generation, _partition, min(_offset), max(_offset) + 1, count(*) from {} "
            "group by _generation, _partition order by _generation, _partition"
        ).format(VALUES)
    ).fetchall()
    names = staging.shared_columns(connection, dataset.name)
    for generation, partition, start, end, rows in groups:
        line = LedgerLine(
            batch_id=ledger.new_batch_id(),
            dataset=dataset.name,
            generation=generation,
            partition=partition,
            start_offset=start,
            end_offset=end,
            kind=LedgerKind.FILL,
            elapsed_s=time.monotonic() - began,
            staged=rows,
            empty=end - start - rows,
            run=run,
        )
        _move_partition(connection, dataset, column, names, line)
        ledger.append_line(connection, line)
        result.batches += 1


def _kept(column: Column, name: str) -> Composable:
    """A column of a row that is kept; a masked field's value does not stay in its _extra."""
    if name == "_extra" and column.masked is not None:
        return SQL("nullif(staged._extra - %(field)s::text, '{}'::jsonb)")
    return Identifier("staged", name)


def _move_partition(
    connection: Connection[Any], dataset: Dataset, column: Column, names: Sequence[str], line: LedgerLine
) -> None:
    """Copy the rows of a partition to the table of replaced rows, then write the values into them."""
    table, replaced = staging.table(dataset), staging.replaced_table(dataset)
    parameters = {
        "generation": line.generation,
        "partition": line.partition,
        "batch_id": line.batch_id,
        "field": column.source_names[0],
    }
    stored = connection.execute(
        KEEP_ROWS.format(
            replaced=replaced,
            names=SQL(", ").join(Identifier(name) for name in names),
            staged_names=SQL(", ").join(_kept(column, name) for name in names),
            values=VALUES,
            table=table,
            same_row=SAME_ROW,
        ),
        parameters,
    ).rowcount
    check_stored(replaced, line.staged, stored)
    stored = connection.execute(
        FILL_ROWS.format(table=table, column=Identifier(column.name), values=VALUES, same_row=SAME_ROW), parameters
    ).rowcount
    check_stored(table, line.staged, stored)
