"""Answers that are larger than what is kept of them: what is kept, what is counted, and that the next one is read."""

import socket
import threading
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from headrace.sources.redis_answers import LIST_MAX, PART_BYTES, BoundedParser, Oversized, bytes_of, is_whole

MB = 1024 * 1024


@contextmanager
def _parser(answers: list[bytes], limit: int) -> Iterator[BoundedParser]:
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


def _text(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _list(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(parts)


def _entry(number: int, *fields: bytes) -> bytes:
    return _list(_text(b"1-%d" % number), _list(*map(_text, fields)))


def test_answer_within_the_limit_is_what_was_sent() -> None:
    response = _list(
        _entry(1, b"a", b"x" * 1_000), b":7\r\n", b"+OK\r\n", b"$-1\r\n", b"*-1\r\n", b"$0\r\n\r\n", b"*0\r\n"
    )
    with _parser([response * 2], 10_000) as parser:
        for _ in range(2):
            found = parser.read_response()
            assert found == [[b"1-1", [b"a", b"x" * 1_000]], 7, b"OK", None, None, b"", []]
            assert is_whole(found[0][1])
            assert bytes_of(found[0][1]) == 1_001 + 2 * PART_BYTES
        with pytest.raises(ConnectionError):
            parser.read_response()


def test_entries_are_kept_up_to_the_first_that_does_not_fit_and_ids_of_all() -> None:
    sizes = 4_000, 4_000, 4_000, 1_000
    entries = [_entry(n, b"a", b"x" * size) for n, size in enumerate(sizes)]
    with _parser([_list(*entries), _list(entries[2])], 10_000) as parser:
        found = parser.read_response()
        assert [entry[0] for entry in found] == [b"1-0", b"1-1", b"1-2", b"1-3"]
        assert [is_whole(entry[1]) for entry in found] == [True, True, False, False]
        assert [bytes_of(entry[1]) for entry in found] == [
            size + 1 + 2 * PART_BYTES for size in (4_000,) * 3 + (1_000,)
        ]
        assert is_whole(parser.read_response()[0][1])  # alone it fits


def test_entry_of_256_mb_takes_little_memory_and_the_next_answer_is_read() -> None:
    size = 256 * MB
    head = b"*1\r\n*2\r\n" + _text(b"1-1") + b"*2\r\n" + _text(b"a") + b"$%d\r\n" % size
    answers = [head, *[bytes(MB)] * 256, b"\r\n", _list(_entry(2, b"a", b"b"))]
    tracemalloc.start()
    try:
        with _parser(answers, 4 * MB) as parser:
            ((entry_id, fields),) = parser.read_response()
            assert (entry_id, fields) == (b"1-1", [b"a", Oversized(size + PART_BYTES)])
            assert parser.read_response() == [[b"1-2", [b"a", b"b"]]]
        assert tracemalloc.get_traced_memory()[1] < 12 * MB
    finally:
        tracemalloc.stop()


def test_entry_of_many_fields_takes_little_memory() -> None:
    count = 40_000
    response: list[Any] = [b"*2\r\n" + _text(b"1-1") + b"*%d\r\n" % count, *[_text(b"x") * 10_000] * (count // 10_000)]
    tracemalloc.start()
    try:
        with _parser([*response, b"+OK\r\n"], MB // 4) as parser:
            assert parser.read_response() == [b"1-1", Oversized(count * (PART_BYTES + 1))]
            assert parser.read_response() == b"OK"
        assert tracemalloc.get_traced_memory()[1] < 2 * MB
    finally:
        tracemalloc.stop()


def test_list_of_small_texts_is_kept_however_little_is_left() -> None:
    facts = _list(*[_text(b"fact-%d" % n) for n in range(LIST_MAX)])
    with _parser([_list(_list(_text(b"x" * 5_000)), facts)], 1_000) as parser:
        large, found = parser.read_response()
        assert large == [Oversized(5_000 + PART_BYTES)]
        assert len(found) == LIST_MAX
