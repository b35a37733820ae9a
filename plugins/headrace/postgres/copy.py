"""COPY into a table, and the rows that the server rejects, found by bisection."""

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg import Connection, Cursor
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection, storable
from headrace.exceptions import DatabaseError

T = TypeVar("T")

LINES_AT_ONCE = 1_000  # about 200 KiB of typical records; larger pieces are no faster

# Errors that one value can cause (Postgres, appendix A): data exceptions, and rows too large for a page or an index.
# Not class 23: only an operator adds integrity constraints, so a row that breaks one stops the load.
RECORDS_FAULTS = ("22", "54000", "54001")
# psycopg's errors for a value that it cannot write as its column's type
CLIENTS_FAULTS = (ValueError, OverflowError, struct.error)


class CopyRows(Protocol):
    """Rows that are copied together, and their handling of rows that Postgres rejects."""

    @property
    def rows(self) -> Sequence[Any]:
        """All rows, each a sequence of values; before `decode_by_contract`, some may be lines of COPY text."""

    def copy(self, cursor: Cursor[Any], target: "CopyTarget") -> None:
        """COPY all rows into a table."""

    def copy_elements(self, cursor: Cursor[Any], target: "CopyTarget") -> None:
        """COPY the elements of the rows into the tables of the children."""

    def rejected_elements(self, target: "CopyTarget") -> Mapping[int, Rejection]:
        """Rows, by index, of whose elements the server refuses one."""

    def decode_by_contract(self) -> bool:
        """Turn lines of COPY text into rows of values; return whether there were any."""

    def reject(self, rejections: Mapping[int, Rejection]) -> None:
        """Remove rows, by index, from `rows`, and keep their rejections."""


@dataclass(frozen=True, slots=True)
class CopyTarget:
    """The target of a COPY: an open connection, a table, and its columns with types, in the rows' order.

    children: tables and columns for the elements of the rows, in the order of the children.
    all_rejected: what an error names if the table rejects all of several rows; None: that is no error.
    """

    connection: Connection[Any]
    table: Identifier
    columns: Sequence[tuple[str, str]]
    all_rejected: str | None = None
    children: Sequence[tuple[Identifier, Sequence[tuple[str, str]]]] = ()


def copy_accepted(
    target: CopyTarget,
    rows: CopyRows,
    copy: Callable[[], T],
    bisect_inside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> T:
    """Call `copy`; if a record may be why it failed, reject the rows that Postgres does not store and call it again.

    copy: COPYs the rows and undoes everything if it fails: a transaction, or a savepoint as in `copy_in_savepoint`.
    bisect_inside: the transaction for the bisection, if the caller has none open.

    Returns the result of `copy`. Raises its error if neither a row nor the COPY text caused it; DatabaseError if the
    target names `all_rejected` and none of several rows is stored: then the table is the cause, not a record.
    """
    try:
        return copy()
    except Exception as error:
        if not may_be_a_records_fault(error):
            raise
        had_lines = rows.decode_by_contract()
        with bisect_inside():
            rejections = find_rejected(target.connection, target.table, target.columns, rows.rows)
            rejections = {**rows.rejected_elements(target), **rejections}
        if not rejections and not had_lines:
            raise
        if target.all_rejected and len(rejections) == len(rows.rows) > 1:
            raise DatabaseError(
                f"{target.all_rejected}: postgres stored none of {len(rows.rows)} rows: {rejections[0].detail}; "
                "expected some to be stored: the table or the server is at fault; nothing was changed; repair it and "
                "run the same command again"
            ) from error
    rows.reject(rejections)
    return copy()


def copy_in_savepoint(target: CopyTarget, rows: CopyRows) -> None:
    """Call `copy_accepted` in the open transaction: a COPY that fails is rolled back to a savepoint."""

    def copy() -> None:
        with target.connection.transaction(), target.connection.cursor() as cursor:
            rows.copy(cursor, target)
            rows.copy_elements(cursor, target)

    copy_accepted(target, rows, copy)


def copy_rows(
    cursor: Cursor[Any], target: Identifier, typed_columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]
) -> None:
    """COPY rows, in the order of typed_columns, into a table, in binary format.

    Raises DatabaseError if the table stored fewer rows than were sent.
    """
    sent = 0
    statement = SQL("copy {} ({}) from stdin (format binary)").format(
        target, SQL(", ").join(Identifier(name) for name, _ in typed_columns)
    )
    with cursor.copy(statement) as copy:
        copy.set_types([re.sub(r"\(.*\)", "", sql_type) for _, sql_type in typed_columns])
        write_row = copy.write_row
        for row in rows:
            write_row(row)
            sent += 1
    check_stored(target, sent, cursor.rowcount)


def copy_lines(
    cursor: Cursor[Any], target: Identifier, typed_columns: Sequence[tuple[str, str]], lines: Sequence[str]
) -> None:
    """COPY lines of COPY text, with values in the order of typed_columns, into a table.

    Raises DatabaseError if the table stored fewer rows than were sent.
    """
    statement = SQL("copy {} ({}) from stdin").format(
        target, SQL(", ").join(Identifier(name) for name, _ in typed_columns)
    )
    with cursor.copy(statement) as copy:
        left = iter(lines)
        while text := "".join(islice(left, LINES_AT_ONCE)):
            copy.write(text)
    check_stored(target, len(lines), cursor.rowcount)


def check_stored(target: Identifier, sent: int, stored: int) -> None:
    """Raise DatabaseError if a COPY or an insert stored fewer rows than were sent.

    Neither fails if a trigger returns null (Postgres, overview of trigger behavior): the rows are just not there.
    """
    if stored != sent:
        name = target.as_string().replace('"', "")
        raise DatabaseError(
            f"{name}: sent {sent} rows, found {stored} stored, expected all: a trigger or rule on the table leaves "
            f"rows out; nothing was changed; remove or disable it (psql: \\d {name}), then run the same command again"
        )


def json_text(text: bytes | None) -> Jsonb | None:
    """JSON text as a value for a jsonb column, without parsing it."""
    return None if text is None else Jsonb(text, dumps=_unchanged)


def _unchanged(text: bytes) -> bytes:
    return text


def may_be_a_records_fault(error: BaseException) -> bool:
    """Whether a value may have caused a COPY's error, and not the table or the server."""
    if isinstance(error, psycopg.Error):
        if error.sqlstate is None:  # psycopg's own
            return isinstance(error, psycopg.DataError)
        return error.sqlstate.startswith(RECORDS_FAULTS)
    return isinstance(error, CLIENTS_FAULTS)


def find_rejected(
    connection: Connection[Any],
    target: Identifier,
    typed_columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[Any]],
) -> dict[int, Rejection]:
    """Find the rows, by index, that the server refuses to COPY into a table, with its messages.

    Tries all rows, then halves of those that failed, each rolled back to a savepoint: one bad row among n costs about
    2 log2(n) tries, which together copy 2n rows. Call it inside a transaction. Raises an error that no record can
    have caused.
    """
    rejected: dict[int, Rejection] = {}
    waiting = [(0, len(rows))]
    while waiting:
        start, end = waiting.pop()
        error = _try(connection, target, typed_columns, rows[start:end]) if end > start else None
        if error is None:
            continue
        if end - start == 1:
            rejected[start] = Rejection(Reason.REJECTED_BY_POSTGRES, storable(_one_line(error)))
        else:
            middle = (start + end) // 2
            waiting += [(middle, end), (start, middle)]
    return rejected


def _try(
    connection: Connection[Any],
    target: Identifier,
    typed_columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[Any]],
) -> Exception | None:
    try:
        with connection.transaction(force_rollback=True), connection.cursor() as cursor:
            copy_rows(cursor, target, typed_columns, rows)
    except Exception as error:
        if not may_be_a_records_fault(error):
            raise
        return error
    return None


def _one_line(error: Exception) -> str:
    # only the message: its context names a line of the COPY, which means nothing afterwards
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((message or f"{type(error).__name__}: {error}").split())
