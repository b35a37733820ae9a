"""Every source keeps what source.py promises; Kafka's own oddities follow below, Redis's in test_redis_source.py."""

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.parquet
import pytest
from kafka import KafkaConsumer, TopicPartition
from pydantic import BaseModel

from headrace.dataset import Dataset, RedisStream
from headrace.exceptions import FileSourceError, SourceChanged, SourceUnavailable, TopicMissing
from headrace.ingest.batch import Batch
from headrace.ingest.drain import DrainOptions, DrainResult, drain
from headrace.ingest.plan import Plan
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.sources import file, kafka, redis
from headrace.sources.base import Chunk, Range, Source
from headrace.sources.file import FileSource
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_confluent import ConfluentSource
from headrace.sources.redis import RedisSource
from tests.support import streams, topics
from tests.support.sources import ranged, records

Filled = Callable[[list[bytes]], Source]  # a source whose partition 0 holds exactly these values


@pytest.fixture(params=["kafka", "confluent", "redis", "ndjson", "ndjson.gz", "csv", "csv.gz", "parquet"])
def filled(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filled]:
    """A function that fills a source of each kind; chunks are small, so that there are several."""
    opened: list[Source] = []

    def fill(values: list[bytes]) -> Source:
        source: Source
        if request.param in ("kafka", "confluent"):
            servers = request.getfixturevalue("bootstrap_servers")
            topic = request.getfixturevalue("topic")
            for n, codec in enumerate(topics.CODECS if values else ()):  # a few batches of each in one partition
                part = values[n * len(values) // len(topics.CODECS) : (n + 1) * len(values) // len(topics.CODECS)]
                topics.send(servers, topic, [(0, b"key", value) for value in part], codec=codec)
            made = KafkaSource if request.param == "kafka" else ConfluentSource
            source = made(topic, {"bootstrap_servers": servers}, max_poll_records=7, poll_bytes=CHUNK_BYTES)
        elif request.param == "redis":
            monkeypatch.setattr(redis, "CHUNK_ENTRIES", 7)
            monkeypatch.setattr(redis, "CHUNK_BYTES", CHUNK_BYTES)
            url, stream = request.getfixturevalue("redis_url"), request.getfixturevalue("stream")
            with streams.client(url) as client:
                client.xgroup_create(stream, "makes-an-empty-stream", mkstream=True)
            streams.add(url, stream, ({b"data": value} for value in values))
            source = RedisSource(stream, url)
        else:
            monkeypatch.setattr(file, "CHUNK_LINES", 7)
            monkeypatch.setattr(file, "CHUNK_BYTES", CHUNK_BYTES)
            path = tmp_path / f"records.{request.param}"
            _write(path, values)
            source = FileSource(path, {"n": "bigint"})
        opened.append(source)
        return source

    yield fill
    for source in opened:
        source.close()


VALUES = [b'{"n":%d}' % n for n in range(30)]
CHUNK_BYTES = 1_000_000


def _write(path: Path, values: list[bytes]) -> None:
    documents = [json.loads(value) for value in values]
    if path.suffix == ".parquet":
        numbers = pyarrow.array([document["n"] for document in documents], pyarrow.int64())
        texts = {"text": [document["text"] for document in documents]} if documents and "text" in documents[0] else {}
        pyarrow.parquet.write_table(pyarrow.table({"n": numbers, **texts}), path)
        return
    lines = values
    if ".csv" in path.suffixes and values:
        lines = [",".join(map(str, row)).encode() for row in (documents[0], *(d.values() for d in documents))]
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def first_record(source: Source) -> int:
    """The offset of partition 0's first record: the header of a .csv, line 1, is none."""
    is_csv = isinstance(source, FileSource) and ".csv" in source.path.suffixes
    return source.describe().partitions[0].log_start_offset + is_csv


def position_of(source: Source, offset: int) -> str | None:
    """Where an offset is, for sources with positions of their own: the key of the record before it."""
    start = source.describe().partitions[0]
    if start.start_position is None or offset == start.log_start_offset:
        return start.start_position
    reading = source.read({0: Range(start.log_start_offset, offset, start.start_position)})
    key = [record.key for chunk in reading for record in chunk.records][-1]
    return None if key is None else key.decode()


def read(source: Source, ranges: dict[int, tuple[int, int]]) -> list[Chunk]:
    """Read ranges, holding every chunk to the docstrings of Source."""
    bounds = {p: Range(start, end, position_of(source, start)) for p, (start, end) in ranges.items()}
    chunks = list(source.read(bounds))
    positions = {partition: start for partition, (start, _) in ranges.items()}
    for chunk in chunks:
        offsets = [record.offset for record in chunk.records]
        assert offsets == sorted(set(offsets))
        assert all(positions[chunk.partition] <= offset < chunk.next_offset for offset in offsets)
        assert positions[chunk.partition] < chunk.next_offset <= ranges[chunk.partition][1]
        if chunk.position is not None and chunk.records:
            assert chunk.position.encode() == chunk.records[-1].key
        positions[chunk.partition] = chunk.next_offset
    assert positions == {partition: max(bounds) for partition, bounds in ranges.items()}
    return chunks


def test_source_describes_itself_the_same_each_time(filled: Filled) -> None:
    source = filled(VALUES)
    state = source.describe()
    assert state == source.describe()
    assert state.topic_id == source.topic_id()
    found = state.partitions[0]
    assert found.end_offset - first_record(source) == len(VALUES)
    assert found.high_watermark == found.end_offset


def test_source_read_from_start_to_end_gives_every_record_once_in_order(filled: Filled) -> None:
    source = filled(VALUES)
    state = source.describe().partitions[0]
    chunks = read(source, {0: (state.log_start_offset, state.end_offset)})
    assert [record.value for record in records(chunks)] == VALUES
    assert [record.offset for record in records(chunks)] == list(range(first_record(source), state.end_offset))
    assert len(chunks) >= 4


def test_source_read_again_gives_the_same(filled: Filled) -> None:
    source = filled(VALUES)
    state = source.describe().partitions[0]
    bounds = {0: (state.log_start_offset, state.end_offset)}
    assert [r.value for r in records(read(source, bounds))] == [r.value for r in records(read(source, bounds))]


@pytest.mark.parametrize(("skip", "length"), [(0, 1), (0, 7), (5, 1), (6, 8), (13, 14), (29, 1), (3, 27)])
def test_source_read_in_the_middle_gives_exactly_the_range(filled: Filled, skip: int, length: int) -> None:
    source = filled(VALUES)
    start = first_record(source) + skip
    found = records(read(source, {0: (start, start + length)}))
    assert [record.value for record in found] == VALUES[skip : skip + length]


def test_source_read_of_nothing_gives_nothing(filled: Filled) -> None:
    source = filled(VALUES)
    assert list(source.read({})) == []
    assert list(source.read(ranged({0: (5, 5)}))) == []


def test_source_of_large_records_gives_them_in_chunks_bounded_in_bytes(filled: Filled) -> None:
    values = [b'{"n":%d,"text":"%s"}' % (n, Random(n).randbytes(150_000).hex().encode()) for n in range(30)]
    source = filled(values)
    state = source.describe().partitions[0]
    chunks = read(source, {0: (state.log_start_offset, state.end_offset)})
    assert [len(record.value or b"") for record in records(chunks)] == list(map(len, values))
    assert max(sum(len(record.value or b"") for record in chunk.records) for chunk in chunks) < CHUNK_BYTES + 300_100


@pytest.mark.parametrize("ends_by", ["max_seconds", "stop"])
def test_drain_that_is_out_of_time_ends_with_the_chunk_that_it_has(filled: Filled, ends_by: str) -> None:
    source = filled(VALUES)
    state = source.describe()
    partition = state.partitions[0]
    bounds = Range(partition.log_start_offset, partition.end_offset, partition.start_position, partition.end_position)
    planned = Plan("readings", 1, state.topic, state.topic_id, {0: bounds})
    limits = DrainOptions(batch_rows=1_000, batch_bytes=2**30, max_seconds=0 if ends_by == "max_seconds" else None,
                    stop=lambda: ends_by == "stop")  # fmt: skip
    dataset = Dataset(name="readings", contract=Number, source=RedisStream(stream="readings"))
    result = drain(dataset, source, planned, _Committer(), limits, DrainResult("readings"))  # type: ignore[arg-type]
    assert 1 <= result.records <= 7
    assert result.next_offsets[0] < partition.end_offset


class Number(BaseModel):
    n: int


class _Committer:
    """Commits nothing, in no time."""

    def commit(self, batch: Batch, kind: LedgerKind, run: RunContext) -> tuple[LedgerLine, int]:
        return batch.line(kind, run), 1


def test_source_left_while_it_is_read_can_be_read_again(filled: Filled) -> None:
    source = filled(VALUES)
    state = source.describe().partitions[0]
    reading = source.read(ranged({0: (state.log_start_offset, state.end_offset)}))
    first = next(reading)
    reading.close()
    rest = read(source, {0: (first.next_offset, state.end_offset)})
    assert [r.value for r in [*first.records, *records(rest)]] == VALUES


def test_source_without_records_has_an_empty_range(filled: Filled) -> None:
    source = filled([])
    if isinstance(source, FileSource) and source.path.suffix != ".parquet":  # not a byte: no file of a table at all
        with pytest.raises(FileSourceError, match="expected"):
            source.describe()
        return
    state = source.describe().partitions[0]
    assert state.log_start_offset == state.end_offset == state.high_watermark


def test_source_closed_twice_does_not_mind(filled: Filled) -> None:
    source = filled(VALUES)
    source.describe()
    source.close()
    source.close()


def test_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match="cannot be read"):
        FileSource(tmp_path / "absent.ndjson").describe()


# Kafka


@pytest.fixture
def source(made: type[KafkaSource], bootstrap_servers: str, topic: str) -> Iterator[KafkaSource]:
    """The test's own topic as a source that polls three records at a time."""
    source = made(topic, {"bootstrap_servers": bootstrap_servers}, max_poll_records=3)
    yield source
    source.close()


def test_kafka_reads_partitions_together_each_in_order(source: KafkaSource, bootstrap_servers: str) -> None:
    sent = topics.send(bootstrap_servers, source.topic, [(n % 3, b"k", b"%d" % n) for n in range(30)])
    ends = {p: state.end_offset for p, state in source.describe().partitions.items()}
    assert ends == {0: 10, 1: 10, 2: 10}
    chunks = read(source, {0: (2, 10), 1: (0, 4), 2: (9, 10)})
    read_back = sorted((p, record.offset) for p in range(3) for record in records(chunks, p))
    assert read_back == sorted(
        (p, o) for p, o in sent if (p, o) >= (0, 2) and not (p == 1 and o >= 4) and not (p == 2 and o < 9)
    )


def test_kafka_keeps_keys_values_headers_and_times_as_they_are(source: KafkaSource, bootstrap_servers: str) -> None:
    headers = [("a", b"\x00\xff"), ("a", b"2"), ("", b"")]
    with topics.producer(bootstrap_servers) as client:
        client.send(source.topic, partition=0, key=None, value=b"", timestamp_ms=0)
        client.send(source.topic, partition=0, key=b"", value=None, timestamp_ms=1_551_434_400_123, headers=headers)
        client.flush()
    first, second = records(read(source, {0: (0, 2)}))
    assert (first.key, first.value, first.timestamp, list(first.headers)) == (None, b"", 0, [])
    assert (second.key, second.value, second.timestamp) == (b"", None, 1_551_434_400_123)
    assert list(second.headers) == headers


def test_kafka_passes_over_aborted_records_and_markers(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send_in_transaction(bootstrap_servers, source.topic, [(0, b"k", b"no")] * 5, commit=False)
    topics.send_in_transaction(bootstrap_servers, source.topic, [(0, b"k", b"yes")] * 5, commit=True)
    topics.wait_for_end(bootstrap_servers, source.topic, [12, 0, 0])
    chunks = read(source, {0: (0, 12)})
    assert [(r.offset, r.value) for r in records(chunks)] == [(offset, b"yes") for offset in range(6, 11)]


def test_kafka_range_of_nothing_but_aborted_records_and_markers_ends(
    source: KafkaSource, bootstrap_servers: str
) -> None:
    topics.send_in_transaction(bootstrap_servers, source.topic, [(0, b"k", b"no")] * 5, commit=False)
    topics.wait_for_end(bootstrap_servers, source.topic, [6, 0, 0])
    for bounds in ((0, 6), (2, 6), (5, 6), (0, 3)):
        assert records(read(source, {0: bounds})) == []


def test_kafka_open_transaction_ends_at_the_last_stable_offset(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"before")] * 2)
    with topics.producer(bootstrap_servers, transactional_id=f"{source.topic}-open") as client:
        client.init_transactions()
        client.begin_transaction()
        client.send(source.topic, partition=0, key=b"k", value=b"open")
        client.flush()
        topics.send(bootstrap_servers, source.topic, [(0, b"k", b"behind")] * 3)
        state = source.describe().partitions[0]
        assert (state.log_start_offset, state.end_offset, state.high_watermark) == (0, 2, 6)
        assert [r.value for r in records(read(source, {0: (0, 2)}))] == [b"before"] * 2
        client.commit_transaction()
    topics.wait_for_end(bootstrap_servers, source.topic, [7, 0, 0])
    values = [r.value for r in records(read(source, {0: (2, 7)}))]
    assert values == [b"open", b"behind", b"behind", b"behind"]


@pytest.fixture(scope="module")
def compacted(bootstrap_servers: str) -> tuple[str, int]:
    """A topic of two keys that the broker's cleaner has been at, and its end. The cleaner comes round every 15 s."""
    name, end = "compacted", 40
    topics.create(
        bootstrap_servers, name, 1, cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001",
        max_compaction_lag_ms="100", min_compaction_lag_ms="0", delete_retention_ms="0",
    )  # fmt: skip
    topics.send(bootstrap_servers, name, [(0, b"%d" % (n % 2), b"%d" % n) for n in range(end)])
    source = KafkaSource(name, {"bootstrap_servers": bootstrap_servers})
    try:
        deadline = time.monotonic() + 60
        while len(records(read(source, {0: (0, end)}))) > 20:
            if time.monotonic() > deadline:
                pytest.skip("the broker's cleaner did not come round in time")
            time.sleep(0.5)  # only closed segments are compacted, so go on writing
            topics.send(bootstrap_servers, name, [(0, b"%d" % (end % 2), b"%d" % end)])
            end += 1
    finally:
        source.close()
    return name, end


def test_kafka_compacted_topic_leaves_holes_and_ends(
    made: type[KafkaSource], bootstrap_servers: str, compacted: tuple[str, int]
) -> None:
    name, end = compacted
    source = made(name, {"bootstrap_servers": bootstrap_servers}, max_poll_records=3)
    try:
        kept = records(read(source, {0: (0, end)}))  # once: the cleaner may come round again
        offsets = [record.offset for record in kept]
        assert [int(record.value or b"") for record in kept] == offsets
        hole = next(offset for offset in range(end) if offset not in offsets)
        assert records(read(source, {0: (hole, hole + 1)})) == []
    finally:
        source.close()


def test_kafka_record_larger_than_a_fetch_is_delivered(
    made: type[KafkaSource], bootstrap_servers: str, topic: str
) -> None:
    large = f"{topic}-large"
    topics.create(bootstrap_servers, large, 1, max_message_bytes="20000000")
    topics.send(bootstrap_servers, large, [(0, b"k", b"small"), (0, b"k", b"x" * 10_000_000), (0, b"k", b"small")])
    source = made(large, {"bootstrap_servers": bootstrap_servers}, max_partition_fetch_bytes=1_000)
    try:
        assert [len(r.value or b"") for r in records(read(source, {0: (0, 3)}))] == [5, 10_000_000, 5]
    finally:
        source.close()


def test_kafka_offset_that_is_no_longer_served_is_refused(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"%d" % n) for n in range(10)])
    topics.delete_records(bootstrap_servers, source.topic, {0: 4})
    assert source.describe().partitions[0].log_start_offset == 4
    with pytest.raises(SourceChanged, match="no longer serves an offset"):
        list(source.read(ranged({0: (2, 10)})))
    assert [r.offset for r in records(read(source, {0: (4, 10)}))] == list(range(4, 10))


def test_kafka_range_beyond_the_end_is_refused(source: KafkaSource) -> None:
    with pytest.raises(SourceChanged, match="no longer serves an offset"):
        list(source.read(ranged({0: (5, 10)})))


def test_kafka_deleted_topic_is_an_error_not_a_hang(
    source: KafkaSource, bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "SILENT_POLLS_MAX", 60)
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"v")] * 10)
    reading = source.read(ranged({0: (0, 1_000)}))  # pinned while the topic still was longer, so to speak
    assert 1 <= len(next(reading).records) <= 3
    topics.delete(bootstrap_servers, source.topic)
    with pytest.raises((SourceUnavailable, TopicMissing, SourceChanged)):
        list(reading)
    for ask in (source.describe, source.topic_id):
        with pytest.raises(TopicMissing, match=f"{source.topic}: no such topic at 127.0.0.1"):
            ask()


def test_kafka_topic_recreated_has_another_identity(source: KafkaSource, bootstrap_servers: str) -> None:
    before = source.topic_id()
    topics.delete(bootstrap_servers, source.topic)
    topics.create(bootstrap_servers, source.topic, 3)
    assert source.topic_id() != before


def test_kafka_reading_leaves_no_consumer_group_behind(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"v")] * 5)
    read(source, {0: (0, 5)})
    with topics.admin(bootstrap_servers) as client:
        assert not [group for group in client.list_groups() if source.topic in json.dumps(group, default=str)]


def test_kafka_source_agrees_with_another_consumer(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send_in_transaction(
        bootstrap_servers, source.topic, [(n % 3, b"k", b"a%d" % n) for n in range(20)], commit=True
    )
    topics.send_in_transaction(
        bootstrap_servers, source.topic, [(n % 3, b"k", b"b%d" % n) for n in range(20)], commit=False
    )
    topics.send(bootstrap_servers, source.topic, [(n % 3, b"k", b"c%d" % n) for n in range(21)])
    ends = {p: state.end_offset for p, state in source.describe().partitions.items()}
    ours = {(p, r.offset): r.value for p in ends for r in records(read(source, {p: (0, ends[p])}), p)}
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    consumer.assign([TopicPartition(source.topic, p) for p in ends])
    theirs: dict[tuple[int, int], bytes] = {}
    while any(consumer.position(TopicPartition(source.topic, p)) < end for p, end in ends.items()):
        for polled in consumer.poll(timeout_ms=500).values():
            theirs |= {(record.partition, record.offset): record.value for record in polled}
    consumer.close()
    assert ours == theirs
    assert len(ours) == 41
