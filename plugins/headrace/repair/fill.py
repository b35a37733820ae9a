"""A field that the contract has named since: its values move from `_extra` into its column, as batches of the ledger.

`staging.ensure_table` adds the column when it first sees the new contract; rows that were staged before hold the value
in `_extra` until they are filled.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection
from headrace.dataset import Dataset, field_contract
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError
from headrace.ingest.batch import Barrier, no_barrier
from headrace.postgres import checkpoints, staging
from headrace.postgres.checkpoints import LedgerLine, RunContext
from headrace.postgres.connection import database
from headrace.postgres.lock_watchdog import drain_name, watch_locks
from headrace.postgres.rejects import find_rejected, may_be_a_records_fault

PAGE_ROWS = 5_000
VALUES = Identifier("pg_temp", "filled_values")

COORDINATE_COLUMNS = (
    ("_generation", "integer"),
    ("_partition", "integer"),
    ("_offset", "bigint"),
    ("_batch_id", "uuid"),
)


@dataclass(slots=True)
class FillResult:
    """What a fill did: rows whose column has its value now, and those whose value does not fit, by reason."""

    dataset: str
    name: str
    filled: int = 0
    batches: int = 0
    left: Counter[str] = field(default_factory=Counter)

    def summary(self) -> str:
        """What happened, in one line."""
        where = f"{self.dataset}.{self.name.lower()}"
        if not self.filled and not self.left:
            return f"{where}: nothing to fill: no row holds {self.name} in _extra"
        reasons = ", ".join(f"{reason} {number}" for reason, number in self.left.most_common())
        left = f"; {self.left.total()} values break the contract and stay in _extra: {reasons}" if self.left else ""
        return f"{where}: {self.filled} rows filled from _extra in {self.batches} batches{left}"


def fill(
    deployment: Deployment,
    dataset: Dataset,
    name: str,
    *,
    run: RunContext | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    barrier: Barrier = no_barrier,
) -> FillResult:
    """Fill a field's column from `_extra`, for every row whose column is null; all in one transaction.

    Each value is judged by the contract's field as if it came with a record; rules about several fields are not asked.
    The row as it was moves to staging._replaced_<dataset>, so that marts see what changed, and the ledger has a line of
    kind `reload` for every partition that gained a value. Values that do not fit stay in `_extra`. Twice is as once.

    Raises DatasetError for a field that the contract does not name.
    """
    column = _column(dataset, name)
    contract = field_contract(dataset, column)
    result = FillResult(dataset.name, name)
    began = time.monotonic()
    connect = deployment.connect(f"headrace fill {dataset.name}")
    with database(connect) as connection:
        with connection.transaction():
            checkpoints.register(connection, dataset.name)
            staging.ensure_table(connection, dataset)
        with connection.transaction():
            # read and judge first, which holds nobody up: drains wait for the moving alone
            _create_table(connection, column)
            total = _count(connection, dataset, column)
            for page in _pages(connection, dataset, column):
                _validate_page(connection, dataset, column, contract, page, result)
                on_progress(result.filled + result.left.total(), total)
            connection.execute(SQL("analyze {}").format(VALUES))
            barrier("read")
            # in the drain's name: what waits for a fill that is frozen here may end it as it may a drain
            with watch_locks(connection, connect, dataset.name, deployment.lock_timeouts, drain_name(dataset.name)):
                checkpoints.hold(connection, dataset.name)
                _move(connection, dataset, column, result, began, run or RunContext())
                barrier("before_commit")
    return result


def _column(dataset: Dataset, name: str) -> Column:
    for column in dataset.compiled.columns:
        if column.field == name:
            return column
    known = ", ".join(column.field for column in dataset.compiled.columns)
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
    """Place, batch and value, as JSON text, of every row that can be filled."""
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
    """Put the values of a page that fit into the temporary table, and count the others."""
    prefix = orjson.dumps({column.source_names[0]: None})[:-5]
    rows: list[list[Any]] = []
    for *coordinate, text in page:
        decoded = contract.decode(None, prefix + text.encode() + b"}")
        if isinstance(decoded, Rejection):
            if decoded.is_raised:
                raise DatasetError(
                    f"{dataset.name}.{column.name}: a validator of {column.field} failed without the record's other "
                    f"fields: {decoded.detail}; nothing was changed; `headrace reload` judges whole records"
                )
            result.left[decoded.reason] += 1
            continue
        value = decoded[0]
        rows.append([*coordinate, staging.json_text(value) if contract.json_columns else value])
    typed_columns = (*COORDINATE_COLUMNS, ("value", column.sql_type))
    try:
        with connection.transaction(), connection.cursor() as cursor:  # a savepoint
            staging.copy_rows(cursor, VALUES, typed_columns, rows)
    except Exception as error:
        if not may_be_a_records_fault(error):
            raise
        rejected = find_rejected(connection, VALUES, typed_columns, rows)
        if not rejected:
            raise
        result.left[Reason.REJECTED_BY_POSTGRES] += len(rejected)
        rows = [row for index, row in enumerate(rows) if index not in rejected]
        with connection.cursor() as cursor:
            staging.copy_rows(cursor, VALUES, typed_columns, rows)
    result.filled += len(rows)


def _move(
    connection: Connection[Any], dataset: Dataset, column: Column, result: FillResult, began: float, run: RunContext
) -> None:
    """Keep the rows as they were, write the values, and the ledger's lines."""
    table, replaced = staging.table(dataset), staging.replaced_table(dataset)
    connection.execute(SQL("lock table {} in row exclusive mode").format(table))
    staging.check_table(connection, dataset)
    same_row = SQL(
        "(staged._generation, staged._partition, staged._offset, staged._batch_id) "
        "= (filled._generation, filled._partition, filled._offset, filled._batch_id)"
    )
    # rows that a reload replaced since they were read have been judged by the contract of today
    result.filled -= connection.execute(
        SQL("delete from {} as filled where not exists (select from {} as staged where {})").format(
            VALUES, table, same_row
        )
    ).rowcount
    groups = connection.execute(
        SQL(
            "select _generation, _partition, min(_offset), max(_offset) + 1, count(*) from {} "
            "group by _generation, _partition order by _generation, _partition"
        ).format(VALUES)
    ).fetchall()
    shared = staging.shared_columns(connection, dataset)
    names = SQL(", ").join(Identifier(name) for name in shared)
    staged_names = SQL(", ").join(Identifier("staged", name) for name in shared)
    for generation, partition, start, end, rows in groups:
        line = LedgerLine(
            batch_id=checkpoints.new_batch_id(),
            dataset=dataset.name,
            generation=generation,
            partition=partition,
            start_offset=start,
            end_offset=end,
            kind="reload",
            elapsed_s=time.monotonic() - began,
            staged=rows,
            empty=end - start - rows,
            run=run,
        )
        parameters = {
            "generation": generation,
            "partition": partition,
            "batch_id": line.batch_id,
            "field": column.source_names[0],
        }
        here = SQL("filled._generation = %(generation)s and filled._partition = %(partition)s and {}").format(same_row)
        stored = connection.execute(
            SQL(
                "insert into {replaced} ({names}, _replaced_by) select {staged_names}, %(batch_id)s "
                "from {values} as filled, {table} as staged where {here}"
            ).format(replaced=replaced, names=names, staged_names=staged_names, values=VALUES, table=table, here=here),
            parameters,
        ).rowcount
        staging.check_stored(replaced, rows, stored)
        stored = connection.execute(
            SQL(
                "update {table} as staged set {column} = filled.value, "
                "_extra = nullif(staged._extra - %(field)s::text, '{{}}'::jsonb), _batch_id = %(batch_id)s "
                "from {values} as filled where {here}"
            ).format(table=table, column=Identifier(column.name), values=VALUES, here=here),
            parameters,
        ).rowcount
        staging.check_stored(table, rows, stored)
        checkpoints.append_line(connection, line)
        result.batches += 1
