"""What large answers of a Redis server take of memory: no more than what is kept of them."""

import tracemalloc
from typing import Any

from headrace.sources.redis_answers import PART_BYTES, Oversized
from tests.support.redis_answers import entry, list_of, parser_of, text

MB = 1024 * 1024


def test_entry_of_256_mb_takes_little_memory_and_the_next_answer_is_read() -> None:
    size = 256 * MB
    head = b"*1\r\n*2\r\n" + text(b"1-1") + b"*2\r\n" + text(b"a") + b"$%d\r\n" % size
    answers = [head, *[bytes(MB)] * 256, b"\r\n", list_of(entry(2, b"a", b"b"))]
    tracemalloc.start()
    try:
        with parser_of(answers, 4 * MB) as parser:
            ((entry_id, fields),) = parser.read_response()
            assert (entry_id, fields) == (b"1-1", [b"a", Oversized(size + PART_BYTES)])
            assert parser.read_response() == [[b"1-2", [b"a", b"b"]]]
        assert tracemalloc.get_traced_memory()[1] < 12 * MB
    finally:
        tracemalloc.stop()


def test_entry_of_many_fields_takes_little_memory() -> None:
    count = 40_000
    response: list[Any] = [b"*2\r\n" + text(b"1-1") + b"*%d\r\n" % count, *[text(b"x") * 10_000] * (count // 10_000)]
    tracemalloc.start()
    try:
        with parser_of([*response, b"+OK\r\n"], MB // 4) as parser:
            assert parser.read_response() == [b"1-1", Oversized(count * (PART_BYTES + 1))]
            assert parser.read_response() == b"OK"
        assert tracemalloc.get_traced_memory()[1] < 2 * MB
    finally:
        tracemalloc.stop()
