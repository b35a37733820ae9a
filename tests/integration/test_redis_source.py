"""Special cases of Redis streams: trimmed and deleted entries, recreated streams, fields of any bytes."""

import json
from collections.abc import Callable, Iterator

import pytest

from headrace.exceptions import (
    DatasetError,
    SettingError,
    SourceChanged,
    SourceRefused,
    SourceUnavailable,
    TopicMissing,
)
from headrace.sources import redis
from headrace.sources.base import Chunk, Range, SourceState
from headrace.sources.redis import RedisSource
from tests.support import streams
from tests.support.sources import records

SourceRun = Callable[..., object]


@pytest.fixture
def source(redis_url: str, stream: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisSource]:
    """The test's own stream, of ten entries 1-0 to 10-0, as a source that reads three at a time."""
    monkeypatch.setattr(redis, "CHUNK_ENTRIES", 3)
    fill(redis_url, stream, 1, 10)
    source = RedisSource(stream, redis_url)
    yield source
    source.close()


@pytest.fixture
def run(redis_url: str, source: RedisSource) -> Iterator[SourceRun]:
    """A function that runs a command on the stream."""
    with streams.client(redis_url) as client:
        yield lambda name, *arguments: client.execute_command(name, source.stream, *arguments)


def fill(url: str, stream: str, first: int, last: int) -> None:
    numbers = range(first, last + 1)
    streams.add(url, stream, ({b"n": b"%d" % n, b"text": b"x"} for n in numbers), (f"{n}-0" for n in numbers))


def seen(source: RedisSource, offset: int, position: str) -> SourceState:
    return source.seen_from(source.describe(), {0: offset}, {0: position})


def rest(source: RedisSource, offset: int, position: str) -> list[Chunk]:
    """Read from a checkpoint to the end as it is now."""
    state = source.describe().partitions[0]
    return list(source.read({0: Range(offset, state.end_offset, position, state.end_position)}))


def numbers(chunks: list[Chunk]) -> list[tuple[int, int]]:
    return [(record.offset, int(json.loads(record.value or b"")["n"])) for record in records(chunks)]


def test_redis_describes_what_is_there_and_what_was_trimmed(source: RedisSource, run: SourceRun) -> None:
    found = source.describe().partitions[0]
    assert (found.log_start_offset, found.end_offset, found.high_watermark) == (0, 10, 10)
    assert (found.start_position, found.end_position) == ("0-18446744073709551615", "10-0")
    run("XTRIM", "MAXLEN", 4)
    found = source.describe().partitions[0]
    assert (found.log_start_offset, found.end_offset) == (6, 10)
    assert (found.start_position, found.end_position) == ("6-18446744073709551615", "10-0")
    run("XTRIM", "MAXLEN", 0)
    found = source.describe().partitions[0]
    assert (found.log_start_offset, found.end_offset) == (10, 10)
    assert (found.start_position, found.end_position) == ("10-0", "10-0")


def test_redis_entry_keeps_its_id_as_key_and_time(source: RedisSource, run: SourceRun) -> None:
    run("XADD", "1700000000123-7", "n", "1")
    entry = records(rest(source, 10, "10-0"))[0]
    assert (entry.offset, entry.key, entry.timestamp) == (10, b"1700000000123-7", 1_700_000_000_123)


def test_redis_fields_become_json_as_they_are(source: RedisSource, run: SourceRun) -> None:
    cases = [
        ([b"n", b"-1.50e3", b"m", b"1"], b'{"n":"-1.50e3","m":"1"}'),  # text, as it came: the contract reads it
        ([b"n", b"01", b"n", b" 1"], b'{"n":"01","n":" 1"}'),  # a field that stands twice: the contract refuses it
        ([b"n", b"NaN"], b'{"n":"NaN"}'),
        ([b"a", b'\x00\x1f"\\\n\x7f'], b'{"a":"\\u0000\\u001f\\"\\\\\\u000a\x7f"}'),
        ([b"\xff\xfe", b"\xc3\x28"], b'{"\xff\xfe":"\xc3\x28"}'),
        (["é".encode(), "ü😀".encode()], '{"é":"ü😀"}'.encode()),
        ([b"", b""], b'{"":""}'),
        ([b"any", b' {"n": 1}'], b' {"n": 1}'),  # one field that is a JSON document is that document
        ([b"any", b"[1]"], b'{"any":"[1]"}'),
    ]
    for fields, _ in cases:
        run("XADD", "*", *fields)
    found = [record.value for record in records(rest(source, 10, "10-0"))]
    assert found == [value for _, value in cases]


def test_redis_entries_deleted_one_by_one_leave_a_gap_at_the_end(source: RedisSource, run: SourceRun) -> None:
    run("XDEL", "6-0", "7-0", "10-0")
    chunks = rest(source, 4, "4-0")
    assert numbers(chunks) == [(4, 5), (5, 8), (6, 9)]
    assert (chunks[-1].next_offset, chunks[-1].position) == (10, "10-0")
    fill_next = run("XADD", "11-0", "n", "11")
    assert fill_next == b"11-0"
    assert seen(source, 10, "10-0").partitions[0].log_start_offset <= 10
    assert numbers(rest(source, 10, "10-0")) == [(10, 11)]


def test_redis_more_deleted_than_were_read_is_no_loss_while_older_entries_are_there(
    source: RedisSource, run: SourceRun
) -> None:
    run("XDEL", "4-0", "5-0", "6-0", "7-0")
    assert source.describe().partitions[0].log_start_offset == 4
    assert seen(source, 2, "2-0").partitions[0].log_start_offset == 2
    chunks = rest(source, 2, "2-0")
    assert numbers(chunks) == [(2, 3), (3, 8), (4, 9), (5, 10)]
    assert chunks[-1].next_offset == 10


def test_redis_range_that_is_cut_short_of_deleted_entries_is_read_on_without_loss(
    source: RedisSource, run: SourceRun
) -> None:
    run("XDEL", "4-0", "5-0", "6-0", "7-0", "8-0", "9-0", "10-0")
    chunks = list(source.read({0: Range(2, 6, "2-0", "10-0")}))
    assert numbers(chunks) == [(2, 3)]
    assert (chunks[-1].next_offset, chunks[-1].position) == (6, "10-0")
    run("XADD", "11-0", "n", "11")
    assert seen(source, 6, "10-0")
    chunks = rest(source, 6, "10-0")
    assert numbers(chunks) == [(6, 11)]
    assert (chunks[-1].next_offset, chunks[-1].position) == (11, "11-0")


def test_redis_entries_added_while_it_is_read_are_for_the_next_run(source: RedisSource, run: SourceRun) -> None:
    reading = source.read({0: Range(0, 10, "0-0", "10-0")})
    chunks = [next(reading)]
    run("XDEL", "8-0")
    run("XADD", "11-0", "n", "11")
    chunks += list(reading)
    assert [n for _, n in numbers(chunks)] == [1, 2, 3, 4, 5, 6, 7, 9, 10]
    assert (chunks[-1].next_offset, chunks[-1].position) == (10, "10-0")


def test_redis_trimmed_past_the_checkpoint_shows_in_the_log_start(source: RedisSource, run: SourceRun) -> None:
    run("XTRIM", "MAXLEN", 4)
    assert seen(source, 6, "6-0").partitions[0].log_start_offset == 6  # to the checkpoint and no further
    assert seen(source, 4, "4-0").partitions[0].log_start_offset == 6
    run("XTRIM", "MAXLEN", 0)
    assert seen(source, 4, "4-0").partitions[0].log_start_offset == 10
    assert seen(source, 10, "10-0").partitions[0].log_start_offset == 10


@pytest.mark.parametrize("left", [0, 2])
def test_redis_trimmed_while_it_is_read_is_refused(left: int, source: RedisSource, run: SourceRun) -> None:
    reading = source.read({0: Range(0, 10, "0-0", "10-0")})
    assert numbers([next(reading)]) == [(0, 1), (1, 2), (2, 3)]
    run("XTRIM", "MAXLEN", left)
    with pytest.raises(SourceChanged, match=rf"\[3, {10 - left}\) was trimmed or deleted before it was read"):
        next(reading)


@pytest.mark.parametrize(
    ("first", "last", "trimmed", "why"),
    [
        (1, 4, 0, "its last id is 4-0, expected 10-0"),
        (5, 10, 0, "6 entries were ever added to it, 10 were read"),
        (11, 14, 0, "4 entries were ever added to it, 10 were read"),
        (11, 20, 0, "its entry 10 is 20-0, expected 10-0"),
        (11, 20, 10, "its entry 10 is 20-0, expected 10-0"),
        (11, 40, 0, "its first entry is 11-0, after 10-0, yet only 0 of the 10"),
        (11, 40, 9, "its first entry is 20-0, after 10-0, yet only 9 of the 10"),
    ],
)
def test_redis_stream_recreated_is_refused(
    first: int, last: int, trimmed: int, why: str, source: RedisSource, run: SourceRun, redis_url: str
) -> None:
    run("DEL")
    fill(redis_url, source.stream, first, last)
    run("XTRIM", "MAXLEN", last - first + 1 - trimmed)
    with pytest.raises(SourceChanged, match=f"{source.stream}: {why}.*: the stream was deleted and created again"):
        seen(source, 10, "10-0")


def test_redis_stream_recreated_whose_ids_lie_around_the_checkpoint_is_refused(
    source: RedisSource, run: SourceRun
) -> None:
    run("DEL")
    for number in range(1, 40):
        run("XADD", f"{number}-5", "n", "1")
    with pytest.raises(SourceChanged, match="it holds older entries than 10-0, not that one"):
        seen(source, 10, "10-0")


def test_redis_checkpoint_whose_entry_was_deleted_is_no_other_stream(source: RedisSource, run: SourceRun) -> None:
    run("XADD", "11-0", "n", "11")
    run("XDEL", "10-0")
    assert numbers(rest(source, 10, "10-0")) == [(10, 11)]
    assert seen(source, 10, "10-0")


def test_redis_stream_recreated_and_trimmed_behind_the_very_same_entry_escapes(
    source: RedisSource, run: SourceRun, redis_url: str
) -> None:
    """The known hole, written down: nothing that a server tells distinguishes it from the old one, trimmed there."""
    run("DEL")
    fill(redis_url, source.stream, 11, 40)
    run("XTRIM", "MAXLEN", 20)
    assert seen(source, 10, "10-0").partitions[0].log_start_offset == 10


@pytest.mark.parametrize(("first", "last"), [(1, 4), (11, 14), (11, 40)])
def test_redis_stream_recreated_while_it_is_read_is_refused(
    first: int, last: int, source: RedisSource, run: SourceRun, redis_url: str
) -> None:
    reading = source.read({0: Range(0, 10, "0-0", "10-0")})
    next(reading)
    run("DEL")
    fill(redis_url, source.stream, first, last)
    with pytest.raises(SourceChanged, match=r"while it was read; at risk: \[3, 10\)"):
        next(reading)


def test_redis_stream_that_was_emptied_and_set_back_is_refused(source: RedisSource, run: SourceRun) -> None:
    run("XTRIM", "MAXLEN", 0)
    run("XSETID", "7-0", "ENTRIESADDED", 10, "MAXDELETEDID", "0-0")
    with pytest.raises(SourceChanged, match="its last id is 7-0, expected 10-0"):
        seen(source, 10, "10-0")
    run("XADD", "8-0", "n", "8")  # would never be read
    run("XADD", "12-0", "n", "12")
    with pytest.raises(SourceChanged, match="it holds older entries than 10-0, not that one"):
        seen(source, 10, "10-0")


def test_redis_stream_that_is_absent_is_refused(source: RedisSource, run: SourceRun) -> None:
    run("DEL")
    for ask in (source.describe, lambda: rest(source, 0, "0-0"), lambda: list(source.read({0: Range(0, 9, "0-0")}))):
        with pytest.raises(TopicMissing, match=f"^{source.stream}: no such stream at 127.0.0.1:[0-9]+; add an entry"):
            ask()
    with pytest.raises(TopicMissing):
        source.mirror("group", {0: 10}, {0: "10-0"})


def test_redis_key_that_is_no_stream_is_refused(source: RedisSource, run: SourceRun) -> None:
    run("DEL")
    run("SET", "text")
    for ask in (source.describe, lambda: list(source.read({0: Range(0, 9, "0-0")}))):
        with pytest.raises(DatasetError, match=f"^{source.stream}: the key at 127.0.0.1:.* is no stream, expected one"):
            ask()


def test_redis_server_that_is_gone_is_one_clear_line(closed_port: int) -> None:
    source = RedisSource("readings", f"redis://user:canary-5up3r@127.0.0.1:{closed_port}/0")
    for ask in (source.describe, lambda: list(source.read({0: Range(0, 9, "0-0")}))):
        with pytest.raises(SourceUnavailable) as caught:
            ask()
        assert str(caught.value).startswith(f"redis: 127.0.0.1:{closed_port} did not answer: ")
        assert str(caught.value).endswith("start it (`headrace up`) or correct HEADRACE_REDIS_URL")
        assert "\n" not in str(caught.value)
        assert "canary" not in str(caught.value)


def test_redis_url_that_is_none_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^redis: .*; correct HEADRACE_REDIS_URL$"):
        RedisSource("readings", "127.0.0.1:6379")


def test_redis_group_is_made_and_moved(source: RedisSource, redis_url: str) -> None:
    with streams.client(redis_url) as client:
        for offset in (4, 10):
            source.mirror("lag-tools", {0: offset}, {0: f"{offset}-0"})
            found = client.xinfo_groups(source.stream)
            assert [(g["entries-read"], g["lag"], g["last-delivered-id"]) for g in found] == [
                (offset, 10 - offset, b"%d-0" % offset)
            ]


def test_redis_user_who_is_not_let_in_is_one_clear_line(source: RedisSource, redis_url: str) -> None:
    mistaken = RedisSource(source.stream, redis_url.replace("redis://", "redis://nobody:canary-pass@"))
    with pytest.raises(SourceRefused, match=r"^redis: 127.0.0.1:\d+ refuses this user.*HEADRACE_REDIS_URL") as e:
        mistaken.describe()
    assert "\n" not in str(e.value)
    assert "canary-pass" not in str(e.value)
    with streams.client(redis_url) as client:
        client.acl_setuser("short", enabled=True, passwords=["+canary-pass"], keys=["other"], categories=["+@all"])
        short = RedisSource(source.stream, redis_url.replace("redis://", "redis://short:canary-pass@"))
        with pytest.raises(SourceRefused, match=r"(?i)no permissions to access a key"):
            short.describe()
        client.acl_deluser("short")
