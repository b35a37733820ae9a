"""Limits on waiting for a Postgres server, or a network, that does not answer.

Three cases have one limit each: nothing answers while connecting (connect_timeout); the other machine is gone
(keepalives, tcp_user_timeout); the connection is alive and the server, or a proxy, is frozen (`answered_within`).
Neither libpq nor statement_timeout ends the last case: a frozen server does not measure time.
"""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from os import dup
from typing import Any

import psycopg
from psycopg import Connection

from headrace.exceptions import DatabaseUnavailable

CONNECT_TIMEOUT_S = 8
# A session's first statement may wait for a pooler's free connection; pgbouncer ends that wait after 120 s.
FIRST_ANSWER_S = 130.0

# libpq's defaults are two minutes to connect and two hours until a silent connection is probed. tcp_user_timeout also
# ends the connection of a server that does not read, so it must be longer than a stall of its disk.
PARAMETERS = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # ms
}


def with_limits(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A connection's parameters, with this module's limits for those that they do not set."""
    return {**PARAMETERS, **{name: value for name, value in parameters.items() if value is not None}}


@contextmanager
def answered_within(seconds: float) -> Iterator[None]:
    """Close the connections that are opened inside after that many seconds, because the server may be frozen.

    Raises DatabaseUnavailable then. Nests; the shortest limit applies. It does not limit the steps before a connection:
    the look-up of a host's name, and connect_timeout for each address.
    """
    limit = _Limit(seconds, _limit.get())
    token = _limit.set(limit)
    try:
        yield
    except (psycopg.OperationalError, DatabaseUnavailable) as error:
        if not limit.is_over:
            raise
        raise DatabaseUnavailable(
            f"postgres: found no answer within {seconds:g} s, expected a server that answers; see whether it hangs, or "
            "the network drops its packets, then run the same command again"
        ) from (error if isinstance(error, psycopg.Error) else error.__cause__)
    finally:
        _limit.reset(token)
        limit.end()


def watch(connection: Connection[Any]) -> None:
    """Apply the current limits to a connection that was just opened."""
    limit = _limit.get()
    while limit is not None:
        limit.watch(connection.fileno())
        limit = limit.outer


class _Limit:
    """Shuts down sockets when the time is over: reads from them then end."""

    def __init__(self, seconds: float, outer: "_Limit | None") -> None:
        self.outer = outer
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, fileno: int) -> None:
        watched = socket.socket(fileno=dup(fileno))  # libpq may close its own, and another file may get the number
        with self._lock:
            self._sockets.append(watched)
        if self.is_over:
            self._shut()

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            for each in self._sockets:
                each.close()
            self._sockets.clear()

    def _shut(self) -> None:
        with self._lock:
            self.is_over = True
            for each in self._sockets:
                with suppress(OSError):  # no longer connected
                    each.shutdown(socket.SHUT_RDWR)


_limit: ContextVar[_Limit | None] = ContextVar("headrace_answered_within", default=None)
