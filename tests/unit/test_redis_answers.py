"""Answers that are larger than what is kept of them: what is kept, what is counted, and that the next one is read."""

import pytest
from redis.exceptions import ConnectionError

from headrace.sources.redis_answers import LIST_MAX, PART_BYTES, Oversized, bytes_of, is_whole
from tests.support.redis_answers import entry, list_of, parser_of, text


def test_answer_within_the_limit_is_what_was_sent() -> None:
    response = list_of(
        entry(1, b"a", b"x" * 1_000), b":7\r\n", b"+OK\r\n", b"$-1\r\n", b"*-1\r\n", b"$0\r\n\r\n", b"*0\r\n"
    )
    with parser_of([response * 2], 10_000) as parser:
        for _ in range(2):
            found = parser.read_response()
            assert found == [[b"1-1", [b"a", b"x" * 1_000]], 7, b"OK", None, None, b"", []]
            assert is_whole(found[0][1])
            assert bytes_of(found[0][1]) == 1_001 + 2 * PART_BYTES
        with pytest.raises(ConnectionError):
            parser.read_response()


def test_entries_are_kept_up_to_the_first_that_does_not_fit_and_ids_of_all() -> None:
    sizes = 4_000, 4_000, 4_000, 1_000
    entries = [entry(n, b"a", b"x" * size) for n, size in enumerate(sizes)]
    with parser_of([list_of(*entries), list_of(entries[2])], 10_000) as parser:
        found = parser.read_response()
        assert [each[0] for each in found] == [b"1-0", b"1-1", b"1-2", b"1-3"]
        assert [is_whole(each[1]) for each in found] == [True, True, False, False]
        assert [bytes_of(each[1]) for each in found] == [size + 1 + 2 * PART_BYTES for size in (4_000,) * 3 + (1_000,)]
        assert is_whole(parser.read_response()[0][1])  # alone it fits


def test_list_of_small_texts_is_kept_however_little_is_left() -> None:
    facts = list_of(*[text(b"fact-%d" % n) for n in range(LIST_MAX)])
    with parser_of([list_of(list_of(text(b"x" * 5_000)), facts)], 1_000) as parser:
        large, found = parser.read_response()
        assert large == [Oversized(5_000 + PART_BYTES)]
        assert len(found) == LIST_MAX
