"""Rows that a contract let pass and that Postgres does not store: found by bisecting, on the server itself."""

import struct
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.sql import Identifier

from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection, storable
from headrace.postgres.staging import copy_rows

# What may be one value's fault (Postgres, appendix A): data exceptions, and rows that no page or index holds. An
# integrity constraint (class 23) is no type: somebody added it, and it is not for a loader to pass over.
RECORDS_FAULTS = ("22", "54000", "54001")
# what psycopg raises for a value that it cannot write as its column's type
CLIENTS_FAULTS = (ValueError, OverflowError, struct.error)


def may_be_a_records_fault(error: BaseException) -> bool:
    """Whether a COPY may have failed because of what it copied, and not because of where to."""
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
    """Which rows, by index, the server refuses to COPY into a table, and its words.

    Tries the whole, then halves of what failed, each rolled back to a savepoint: one bad row among n costs about
    2 log2(n) tries that copy 2n rows between them. Call it inside a transaction; raises whatever is no record's fault.
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
    # the server's own message; its context would name a line of the COPY, which means nothing later
    message = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    return " ".join((message or f"{type(error).__name__}: {error}").split())
