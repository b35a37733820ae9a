"""Batches that unpack to far more than they are: memory stays bounded, and every record keeps its coordinates."""

import itertools
import struct
from collections.abc import Callable
from typing import Any

import kafka.codec
import pytest
from kafka import TopicPartition
from kafka.record.memory_records import MemoryRecords

from headrace.sources.bounds import HEADERS_MAX, Bounds, OversizedRecord, is_kept
from headrace.sources.kafka_batches import TolerantRecords, UnreadableBatch
from headrace.sources.kafka_records import Meter, MeteredRecords
from headrace.sources.kafka_unpack import GZIP, LZ4, NONE, PIECE_BYTES, SNAPPY, ZSTD, pieces
from tests import bombs

NAMES = {NONE: "none", GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
KB, MB = 1024, 1024 * 1024
TP = TopicPartition("topic", 0)


def _ours(data: bytes, bounds: Bounds | None = None) -> Any:
    return MeteredRecords(Meter(2**40, bounds), 0, TP, MemoryRecords(data))


def _tolerant(data: bytes, bounds: Bounds | None = None) -> Any:
    return TolerantRecords(bounds or Bounds(), 0, TP, MemoryRecords(data))


BOTH = pytest.mark.parametrize("reader", [_ours, _tolerant])


def _all(records: Any) -> list[Any]:
    found: list[Any] = []
    while records:
        found += records.take(100)
    return found


@BOTH
def test_record_beyond_the_limit_has_coordinates_time_and_the_reason(reader: Callable[..., Any]) -> None:
    bounds = Bounds(record_bytes=1_000)
    for codec in NAMES:
        packed = bombs.packed(codec, iter([bombs.record(0, b"x" * 2_000) + bombs.record(1, b"x" * 900)]))
        large, small = _all(reader(bombs.batch(codec, packed, 2, offset=7), bounds))
        assert (large.offset, large.timestamp, large.key, large.value) == (7, 5, None, None)
        assert not is_kept(large.headers)
        assert large.headers.rejection.reason == "too_large"
        assert large.headers.rejection.detail == (
            "record has 2007 bytes, expected at most 1000: they are not kept; raise HEADRACE_RECORD_BYTES_MAX and "
            "reload it"
        )
        assert (small.offset, small.value) == (8, b"x" * 900)
    assert isinstance(_all(_ours(bombs.batch(codec, packed, 2), bounds))[0], OversizedRecord)


@BOTH
def test_records_beyond_what_a_batch_may_unpack_to_keep_their_coordinates(reader: Callable[..., Any]) -> None:
    bounds = Bounds(unpacked_bytes=MB)
    for codec in (GZIP, LZ4, ZSTD):
        packed = bombs.packed(codec, bombs.many(4_000, 5_000))
        found = _all(reader(bombs.batch(codec, packed, 4_000), bounds))
        assert [record.offset for record in found] == list(range(4_000))
        kept = [record.offset for record in found if is_kept(record.headers)]
        assert kept == list(range(len(kept)))
        assert abs(len(kept) - min(bounds.of_batch(len(packed)) / 5_009, 4_000)) < 10
    assert found[-1].headers.rejection.detail == (
        f"its batch of {len(packed)} bytes unpacks to more than {len(packed) * 200}, expected at most 200 times its "
        "size: the record's bytes are not kept; raise HEADRACE_UNPACKED_BYTES_MAX and reload it"
    )
    assert all(
        is_kept(record.headers)
        for record in _all(reader(bombs.batch(NONE, b"".join(bombs.many(2_000, 1_000)), 2_000), bounds))
    )


@BOTH
@pytest.mark.parametrize("size", [1, 9, PIECE_BYTES - 30, PIECE_BYTES - 8, PIECE_BYTES, PIECE_BYTES + 5])
def test_record_that_ends_anywhere_at_the_end_of_a_piece_is_whole(reader: Callable[..., Any], size: int) -> None:
    values = [b"a" * size, b"b" * 100, b"", b"c" * 3 * PIECE_BYTES, b"d"]
    packed = [bombs.record(offset, value) for offset, value in enumerate(values)]
    for codec in NAMES:
        data = bombs.batch(codec, bombs.packed(codec, iter(packed)), len(values))
        assert [record.value for record in _all(reader(data))] == values


def test_members_frames_and_streams_that_follow_each_other_are_read_on() -> None:
    data = b"".join(bombs.many(10, 100))
    for codec in (GZIP, SNAPPY, LZ4, ZSTD):
        whole = bombs.packed(codec, iter([data[:500]])) + bombs.packed(codec, iter([data[500:]]))
        assert b"".join(pieces(codec, whole)) == data
        assert [record.offset for record in _all(_ours(bombs.batch(codec, whole, 10)))] == list(range(10))
    for codec in (GZIP, LZ4):  # brokers do not look at what follows
        assert [
            r.offset for r in _all(_ours(bombs.batch(codec, bombs.packed(codec, iter([data])) + b"behind", 10)))
        ] == [*range(10)]
    unsized = kafka.codec.zstd.ZstdCompressor(write_content_size=False).compress(data)
    assert b"".join(pieces(ZSTD, unsized)) == data


FIRST = bombs.record(0, b"x")


def _lying(codec: int, behind: bytes, count: int = 2) -> bytes:
    """A record, something else, and a header that states so many records."""
    return bombs.batch(codec, bombs.packed(codec, iter([FIRST + behind])), count)


LIES = {
    "more records than there are": _lying(NONE, b"", 2**31 - 1),
    "as many, compressed": _lying(ZSTD, b"", 2**31 - 1),
    "fewer": _lying(GZIP, bombs.record(1, b"x") * 2),
    "a record of 2 GB": _lying(ZSTD, bombs.head(1, 2**31 - 20)),
    "a record of 2^62 bytes": _lying(LZ4, bombs.varint(2**62)),
    "a record of less than nothing": _lying(LZ4, bombs.varint(-5)),
    "2^31 headers": _lying(NONE, bombs.head(1, 5, headers=4) + b"value" + bombs.varint(2**31 - 1)),
    "a varint without an end": _lying(NONE, b"\xff" * 30),
    "a snappy block of 4 GB": bombs.batch(SNAPPY, b"\xff\xff\xff\xff\x0f" + b"\0" * 20, 1),
    "a block behind the end": bombs.batch(SNAPPY, bombs.packed(SNAPPY, iter([FIRST])) + struct.pack(">i", 9), 1),
}


@BOTH
@pytest.mark.parametrize("lie", LIES)
def test_batch_that_lies_is_refused_at_once_and_nothing_behind_it_is_passed_over(
    reader: Callable[..., Any], lie: str
) -> None:
    records = reader(LIES[lie])
    found: list[Any] = []
    with pytest.raises(UnreadableBatch):
        found.extend(itertools.chain.from_iterable(iter(lambda: records.take(1), None)))
    assert [record.offset for record in found] == ([0, 1] if lie == "fewer" else [0])[: len(found)]
    assert records.next_fetch_offset == len(found)


@BOTH
def test_record_of_too_many_headers_has_coordinates_alone(reader: Callable[..., Any]) -> None:
    def of(count: int) -> bytes:
        count_bytes, headers = bombs.varint(count), b"\0\x01" * count  # no name, no value
        body = (
            b"\0"
            + bombs.varint(0)
            + bombs.varint(1)
            + bombs.varint(-1)
            + bombs.varint(1)
            + b"x"
            + count_bytes
            + headers
        )
        return bombs.record(0, b"before") + bombs.varint(len(body)) + body + bombs.record(2, b"behind")

    for codec in (NONE, ZSTD):
        before, many, behind = _all(reader(bombs.batch(codec, bombs.packed(codec, iter([of(HEADERS_MAX)])), 3)))
        assert (before.value, len(many.headers), behind.value) == (b"before", HEADERS_MAX, b"behind")
        before, many, behind = _all(reader(bombs.batch(codec, bombs.packed(codec, iter([of(HEADERS_MAX + 1)])), 3)))
        assert (before.value, many.value, many.offset, behind.value) == (b"before", None, 1, b"behind")
        assert many.headers.rejection.detail.startswith("record has 100001 headers, expected at most 100000")


def test_headers_are_charged_to_the_poll() -> None:
    headers = bombs.varint(1_000) + b"\0\x01" * 1_000
    body = [
        b"\0" + bombs.varint(0) + bombs.varint(n) + bombs.varint(-1) + bombs.varint(-1) + headers for n in range(100)
    ]
    data = bombs.batch(NONE, b"".join(bombs.varint(len(each)) + each for each in body), 100)
    records = MeteredRecords(Meter(MB), 0, TP, MemoryRecords(data))
    assert len(records.take(100)) < 20


def test_compacted_batch_passes_over_large_records_as_over_others() -> None:
    parts = [bombs.record(3, b"kept"), bombs.head(10, 50 * MB), *bombs.zeros(50 * MB), b"\0", bombs.record(17, b"last")]
    data = bombs.batch(GZIP, bombs.packed(GZIP, iter(parts)), 3, offset=100, last_delta=40)
    records = _ours(data)
    found = _all(records)
    assert [(record.offset, is_kept(record.headers)) for record in found] == [(103, True), (110, False), (117, True)]
    assert records.next_fetch_offset == 141
