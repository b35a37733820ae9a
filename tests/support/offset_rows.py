"""Rows of a server-side cursor in the order of their offsets, taken by offset."""

from contextlib import ExitStack
from typing import Any

from psycopg import Connection
from psycopg.sql import Composed


class OffsetRows:
    """Rows whose first column is the offset, looked at one ahead; memory holds a few of them."""

    def __init__(self, stack: ExitStack, connection: Connection[Any], query: Composed, rows_at_once: int = 50) -> None:
        cursor = stack.enter_context(connection.cursor(f"offset_rows_{id(self)}"))
        cursor.itersize = rows_at_once
        self._rows = iter(cursor.execute(query))
        self._next = next(self._rows, None)

    @property
    def is_exhausted(self) -> bool:
        """Whether every row was taken."""
        return self._next is None

    def take(self, offset: int) -> tuple[Any, ...] | None:
        """The row of an offset without the offset, or None when the next row is another's."""
        found = self._next
        if found is None or found[0] != offset:
            return None
        self._next = next(self._rows, None)
        return tuple(found[1:])
