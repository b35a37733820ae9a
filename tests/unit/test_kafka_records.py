"""Our unpacking of fetched records against kafka-python's own, on batches of every format that its builder writes."""

import itertools
import json
import re
import struct
from collections.abc import Iterable
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import kafka
import pytest
from kafka import IsolationLevel, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from headrace.exceptions import CodecMissing, SourceError
from headrace.postgres.dead_letters import headers_json, headers_of
from headrace.record import KafkaRecord
from headrace.sources.bounds import Bounds
from headrace.sources.kafka_batches import TolerantRecords, UnreadableBatch
from headrace.sources.kafka_records import KNOWN_VERSIONS, Meter, MeteredRecords, PollIsFull
from headrace.verify.readers import raw_names

TP = TopicPartition("topic", 0)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
NAMES = ("none", "gzip", "snappy", "lz4", "zstd")
BatchFields = tuple[int | None, bytes | None, bytes | None, list[tuple[str, bytes | None]]]  # time, key, value, headers


def test_installed_kafka_python_is_one_that_is_compared_here() -> None:
    assert kafka.__version__.startswith(KNOWN_VERSIONS), "compare, then name it in KNOWN_VERSIONS"


def _batch(
    records: Iterable[BatchFields], *, offset: int = 0, magic: int = 2, compression: int = NONE, producer: int = -1
) -> bytes:
    """A batch; producer: the id of one whose transaction it is of."""
    builder = MemoryRecordsBuilder(
        magic, compression, 2**30, transactional=producer >= 0, producer_id=producer,
        producer_epoch=min(producer, 0), base_sequence=min(producer, 0),
    )  # fmt: skip
    for time, key, value, headers in records:
        assert builder.append(time, key, value, headers)
    builder.close()
    data = bytes(builder.buffer())
    return struct.pack(">q", offset) + data[8:] if magic == 2 else data  # as the broker does


def _rewritten(batch: bytes, **changes: int) -> bytes:
    """A batch of format 2 with other numbers in its header, and the CRC of what it is then."""
    data = bytearray(batch)
    places = {"attributes": (">h", 21), "last_offset_delta": (">i", 23), "max_timestamp": (">q", 35)}
    for name, number in changes.items():
        form, at = places[name]
        struct.pack_into(form, data, at, number)
    struct.pack_into(">I", data, 17, calc_crc32c(memoryview(bytes(data))[21:]))
    return bytes(data)


def _marker(offset: int, producer: int, *, abort: bool) -> bytes:
    key = struct.pack(">hh", 0, 0 if abort else 1)
    plain = _batch([(0, key, b"\0" * 6, [])], offset=offset, producer=producer)
    return _rewritten(plain, attributes=0x30)


def _theirs(data: bytes, fetch_offset: int = 0, **options: Any) -> Any:
    return Fetcher.PartitionRecords(fetch_offset, TP, MemoryRecords(data), **options)


def _ours(data: bytes, fetch_offset: int = 0, meter: Meter | None = None, **options: Any) -> MeteredRecords:
    return MeteredRecords(meter or Meter(2**40), fetch_offset, TP, MemoryRecords(data), **options)


def _tolerant(data: bytes, fetch_offset: int = 0, bounds: Bounds | None = None, **options: Any) -> TolerantRecords:
    return TolerantRecords(bounds or Bounds(), fetch_offset, TP, MemoryRecords(data), **options)


def _read(records: Any, n: int = 7) -> tuple[list[KafkaRecord], list[int]]:
    """All records, and after each piece the offset that is fetched next."""
    found: list[KafkaRecord] = []
    next_offsets: list[int] = []
    while records:
        piece = records.take(n)
        assert len(piece) <= n
        found += [KafkaRecord(r.offset, r.timestamp, r.key, r.value, list(raw_names(r.headers))) for r in piece]
        next_offsets.append(records.next_fetch_offset)
    return found, next_offsets


def _random_fields(rng: Random, time: int) -> BatchFields:
    def some() -> bytes | None:
        # lengths whose varints have one, two and three bytes; the long ones are rare, because gzip is slow
        size = rng.choice((None, 0, 1, 63, 64, 190)) if rng.random() < 0.97 else rng.choice((8_191, 8_192, 20_000))
        return None if size is None else rng.randbytes(size)

    headers = [(rng.choice(("", "a", "é" * 40)), some()) for _ in range(rng.choice((0, 0, 0, 1, 3, 70)))]
    return time, some(), some(), headers


@pytest.mark.parametrize("compression", range(5), ids=NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_records_are_those_that_kafka_python_unpacks(seed: int, compression: int) -> None:
    rng = Random(seed)
    data, offset = b"", rng.choice((0, 2**40))
    for count in rng.sample((1, 3, 150) * 2, 6):
        step = rng.choice((0, 1, 50, 10_000, 2**33))  # times that lie 1, 2, 3 and 5 bytes apart, and backwards
        times = [1_700_000_000_000 + rng.randrange(-step, step + 1) for _ in range(count)]
        data += _batch((_random_fields(rng, time) for time in times), offset=offset, compression=compression)
        offset += len(times)
    start = offset - rng.randrange(150)
    for fetch_offset in (0, start):
        expected, ends = _read(_theirs(data, fetch_offset))
        found, our_ends = _read(_ours(data, fetch_offset))
        assert found == expected
        assert _read(_tolerant(data, fetch_offset)) == (expected, ends)
        assert our_ends[-1] == ends[-1] == offset
    assert all(type(part) in (bytes, type(None)) for record in found for part in (record.key, record.value))


def test_log_append_time_is_every_records_time() -> None:
    data = _rewritten(_batch([(5, b"k", b"v", [])] * 3), attributes=0x08, max_timestamp=77)
    assert [record.timestamp for record in _read(_ours(data))[0]] == [77] * 3
    assert _read(_ours(data))[0] == _read(_theirs(data))[0]


def test_offsets_that_compaction_took_are_passed_over() -> None:
    data = _rewritten(_batch([(5, b"k", b"v", [])] * 3), last_offset_delta=9) + _batch([(5, b"k", b"v", [])], offset=20)
    data += _rewritten(_batch([(5, b"k", b"v", [])], offset=30), last_offset_delta=12)
    assert _read(_ours(data), 100) == _read(_theirs(data), 100)
    assert _read(_ours(data), 100)[1] == [43]


@pytest.mark.parametrize("isolation", [IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED])
def test_aborted_records_and_markers_are_no_records(isolation: IsolationLevel) -> None:
    one: list[BatchFields] = [(1, b"k", b"of 1", [])] * 2
    other: list[BatchFields] = [(1, b"k", b"of 2", [])] * 2
    data = (
        _batch(one, producer=1) + _batch(other, offset=2, producer=2) + _batch(one, offset=4, producer=1)
        + _marker(6, 1, abort=True) + _batch(one, offset=7, producer=1) + _marker(9, 2, abort=False)
        + _marker(10, 1, abort=False) + _batch(other, offset=11, producer=2) + _marker(13, 2, abort=True)
    )  # fmt: skip
    aborted = [SimpleNamespace(producer_id=2, first_offset=11), SimpleNamespace(producer_id=1, first_offset=0)]
    options = {"isolation_level": isolation, "aborted_transactions": aborted}
    found, ends = _read(_ours(data, **options))
    assert (found, ends[-1]) == (_read(_theirs(data, **options))[0], 14)
    if isolation == IsolationLevel.READ_COMMITTED:
        assert [record.offset for record in found] == [2, 3, 7, 8]


@pytest.mark.parametrize("magic", [0, 1])
@pytest.mark.parametrize("compression", [NONE, GZIP])
def test_records_of_old_formats_are_unpacked_too(magic: int, compression: int) -> None:
    records: list[BatchFields] = [(1_700_000_000_000 + n, b"k" * n, None if n == 5 else b"v", []) for n in range(20)]
    data = _batch(records, magic=magic, compression=compression) + _batch([(1, b"new", b"v", [])], offset=20)
    for fetch_offset in (0, 13):
        assert _read(_ours(data, fetch_offset))[0] == _read(_theirs(data, fetch_offset))[0]


def _corrupted() -> dict[str, bytes]:
    good = _batch([(5, b"key", b"value", [("h", b"v")])] * 3)
    first = 61  # the header's bytes; then size, attributes, time, offset, key
    broken = {
        "crc": good[:-1] + b"?",
        "size": _rewritten(good[:first] + b"\x02" + good[first + 1 :]),
        "key_beyond_the_end": _rewritten(good[: first + 4] + b"\xfe\x7f" + good[first + 6 :]),
        "headers_negative": _rewritten(good.replace(b"value\x02", b"value\x01", 1)),
        "bytes_behind": b"",
    }
    longer = bytearray(good + b"\0")
    struct.pack_into(">i", longer, 8, len(longer) - 12)
    return broken | {"bytes_behind": _rewritten(bytes(longer))}


@pytest.mark.parametrize("name", _corrupted())
def test_corrupt_batch_is_refused_as_kafka_python_refuses_it(name: str) -> None:
    data = _batch([(5, b"k", b"good", [])]) + _corrupted()[name]
    before, _ = _taken_before_the_error(_theirs(data))
    for records in (_ours(data), _tolerant(data)):
        found, error = _taken_before_the_error(records)
        assert found == before
        assert isinstance(error, UnreadableBatch)
        assert (error.topic, error.partition, error.codec) == ("topic", 0, "none")


def _taken_before_the_error(records: Any) -> tuple[int, CorruptRecordError]:
    found = 0
    while records:
        try:
            found += len(records.take(2))
        except CorruptRecordError as error:
            return found, error
    raise AssertionError("no error")


@pytest.mark.parametrize("compression", range(5), ids=NAMES)
def test_header_names_of_any_bytes_are_kept(compression: int) -> None:
    class Raw(str):
        def encode(self, *_: object, **__: object) -> bytes:
            return b"\xff\xfe"

    names = ["", "a\0b", "é", Raw("x")]
    headers: list[tuple[str, bytes | None]] = [(name, value) for name in names for value in (b"1", b"", None)] * 20
    data = _batch(
        [(5, b"k", b"before", []), (5, b"k", None, headers), (5, b"k", b"behind", [])], compression=compression
    )
    expected = [(b"\xff\xfe" if isinstance(name, Raw) else name, value) for name, value in headers]
    for records in (_ours(data), _tolerant(data)):
        found, _ = _read(records)
        assert [(record.value, record.headers) for record in found] == [
            (b"before", []),
            (None, expected),
            (b"behind", []),
        ]
        assert headers_of(json.loads(headers_json(found[1].headers) or b"")) == expected


def test_empty_batch_of_any_codec_is_passed_over() -> None:
    record: list[BatchFields] = [(5, b"k", b"v", [])]
    data = _batch(record)
    for codec in range(5):  # as compaction leaves them: the header alone
        header = bytearray(_batch(record, offset=codec + 1)[:61])
        struct.pack_into(">i", header, 8, len(header) - 12)
        struct.pack_into(">i", header, 57, 0)
        data += _rewritten(bytes(header), attributes=codec)
    data += _batch(record, offset=6)
    for records in (_ours(data), _tolerant(data)):
        found, ends = _read(records)
        assert ([record.offset for record in found], ends[-1]) == ([0, 6], 7)


def _damaged(codec: int) -> bytes:
    """A batch whose CRC is right, and whose compressed records are cut off."""
    whole = bytearray(_batch([(5, b"k", Random(n).randbytes(300), [("h", b"x" * 200)]) for n in range(50)],
                             offset=1, compression=codec)[:-100])  # fmt: skip
    struct.pack_into(">i", whole, 8, len(whole) - 12)
    return _rewritten(bytes(whole))


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD], ids=NAMES[1:])
def test_damaged_batch_names_place_codec_and_remedy(codec: int) -> None:
    data = _batch([(5, b"k", b"good", [])]) + _damaged(codec) + _batch([(5, b"k", b"good", [])], offset=51)
    for records in (_ours(data), _tolerant(data)):
        assert [record.value for record in records.take(1)] == [b"good"]
        found: list[Any] = []
        with pytest.raises(UnreadableBatch) as caught:
            found += itertools.chain.from_iterable(iter(partial(records.take, 1), None))
        assert all(len(record.value) == 300 for record in found)  # none of them is cut short
        error = caught.value.as_ours()
        assert isinstance(error, SourceError)
        assert re.fullmatch(
            rf"topic\[0\]: the batch at offset \d+ \(codec {NAMES[codec]}\) cannot be read: .*delete its records below "
            r"51 \(kafka-delete-records.sh\) and run `headrace accept-loss` to continue after them",
            str(error),
        )


@pytest.mark.parametrize("codec", [SNAPPY, LZ4, ZSTD], ids=NAMES[2:])
def test_codec_without_its_library_names_what_to_install(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _batch([(5, b"k", b"v" * 1_000, [])], offset=7, compression=codec)
    monkeypatch.setattr(kafka.codec, {SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}[codec], None)
    for records in (_ours(data), _tolerant(data)):
        with pytest.raises(UnreadableBatch) as caught:
            records.take(1)
        error = caught.value.as_ours()
        assert isinstance(error, CodecMissing)
        assert str(error) == (
            f"topic[0]: the batch at offset 7 (codec {NAMES[codec]}) cannot be read: Libraries for {NAMES[codec]} "
            "compression codec not found; expected gzip, snappy, lz4 or zstd with its library; nothing of it was "
            f"stored; install kafka-python[{NAMES[codec]}] where drains run, then drain again"
        )


def test_codec_that_is_unknown_is_named_by_its_number() -> None:
    for records in (_ours(_rewritten(_batch([(5, b"k", b"v", [])]), attributes=6)),):
        with pytest.raises(UnreadableBatch) as caught:
            records.take(1)
        assert "codec number 6" in str(caught.value.as_ours())


def test_error_is_raised_behind_the_records_before_it_and_for_ever() -> None:
    records = _ours(_batch([(5, b"k", b"good", [])]) + _corrupted()["crc"])
    assert [record.value for record in records.take(10)] == [b"good"]
    for _ in range(3):
        with pytest.raises(CorruptRecordError, match="failed crc check"):
            records.take(10)


@pytest.mark.parametrize("compression", [NONE, GZIP])
@pytest.mark.parametrize("magic", [1, 2])
def test_meter_ends_a_poll_and_the_next_goes_on(magic: int, compression: int) -> None:
    data = _batch([(5, b"k", b"x" * 1_000, [])] * 20, magic=magic, compression=compression)
    meter = Meter(3_500)
    records = _ours(data, 0, meter)
    polls = []
    while records:
        meter.start()
        polls.append([record.offset for record in records.take(100)])
        if records:
            with pytest.raises(PollIsFull):
                records.take(100)
            assert meter.is_full
    assert [offset for poll in polls for offset in poll] == list(range(20))
    assert max(map(len, polls)) == 4


def test_meter_below_one_record_lets_one_pass() -> None:
    meter = Meter(1)
    records = _ours(_batch([(5, b"k", b"x" * 1_000, [])] * 3), 0, meter)
    assert len(records.take(100)) == 1
