"""How long a connection to Postgres waits for a server, or a network, that does not answer.

Three cases have one limit each: nothing answers while connecting (connect_timeout); the other machine is gone
(keepalives, tcp_user_timeout); the connection is alive and the server, or a proxy, is frozen. Nothing in libpq ends the
last one, and a statement_timeout does not either, because a frozen server does not measure it: `answered_within` does.
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
# A session's first statement may wait for a free connection of a pooler, which pgbouncer gives up itself after 120 s.
FIRST_ANSWER_S = 130.0

# libpq's own values are two minutes to connect and two hours until a silent connection is probed. A server that does
# not read for tcp_user_timeout counts as gone too, so that it must be longer than a stalled disk.
PARAMETERS = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # ms
}


def with_limits(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A connection's parameters, with the limits of this module for those that it does not set."""
    return {**PARAMETERS, **{name: value for name, value in parameters.items() if value is not None}}


@contextmanager
def answered_within(seconds: float) -> Iterator[None]:
    """Give up on a server that is frozen: connections that are opened in here are closed after that many seconds.

    Raises DatabaseUnavailable then. Nests; the shortest limit wins. It does not limit what precedes a connection: the
    look-up of a host's name, and connect_timeout for each address.
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
    """Make the limits that apply here apply to a connection that was just opened."""
    limit = _limit.get()
    while limit is not None:
        limit.watch(connection.fileno())
        limit = limit.outer


class _Limit:
    """Shuts down sockets when the time is over: a read from one of them then ends."""

    def __init__(self, seconds: float, outer: "_Limit | None") -> None:
        self.outer = outer
        self.is_over = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._shut)
        self._timer.daemon = True
        self._timer.start()

    def watch(self, fileno: int) -> None:
        watched = socket.socket(fileno=dup(fileno))  # libpq may close its own, and the number be another file's
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
                with suppress(OSError):  # it is not connected any more
                    each.shutdown(socket.SHUT_RDWR)


_limit: ContextVar[_Limit | None] = ContextVar("headrace_answered_within", default=None)
