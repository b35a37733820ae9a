"""Answers of a Redis server, byte by byte, and a parser that reads them from a socket."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from headrace.sources.redis_answers import BoundedParser


@contextmanager
def parser_of(answers: list[bytes], limit: int) -> Iterator[BoundedParser]:
    """A parser of what a server sends, which then closes the connection."""
    ours, theirs = socket.socketpair()
    ours.settimeout(10)

    def send() -> None:
        with theirs:
            for part in answers:
                theirs.sendall(part)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    parser = type("Parser", (BoundedParser,), {"answer_bytes": limit})(64 * 1024)
    parser.on_connect(SimpleNamespace(_sock=ours, socket_timeout=10, encoder=None))
    try:
        yield parser
    finally:
        ours.close()
        thread.join()


def text(value: bytes) -> bytes:
    """A text."""
    return b"$%d\r\n%s\r\n" % (len(value), value)


def list_of(*parts: bytes) -> bytes:
    """A list of answers."""
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def entry(number: int, *fields: bytes) -> bytes:
    """An entry of a stream."""
    return list_of(text(b"1-%d" % number), list_of(*map(text, fields)))
