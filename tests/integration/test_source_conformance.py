"""Every source keeps what sources/base.py promises.

What is Kafka's own is in test_kafka_source.py, what is Redis's in test_redis_source.py.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import BaseModel

from headrace.dataset import Dataset, RedisStream
from headrace.exceptions import FileSourceError
from headrace.ingest.batch import Batch
from headrace.ingest.drain import DrainOptions, DrainResult, drain
from headrace.ingest.plan import Plan
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.sources import file, redis
from headrace.sources.base import Range, Source
from headrace.sources.file import FileSource
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_confluent import ConfluentSource
from headrace.sources.redis import RedisSource
from tests.support import streams, topics
from tests.support.sources import ranged, read_ranges, records

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
    chunks = read_ranges(source, {0: (state.log_start_offset, state.end_offset)})
    assert [record.value for record in records(chunks)] == VALUES
    assert [record.offset for record in records(chunks)] == list(range(first_record(source), state.end_offset))
    assert len(chunks) >= 4


def test_source_read_again_gives_the_same(filled: Filled) -> None:
    source = filled(VALUES)
    state = source.describe().partitions[0]
    bounds = {0: (state.log_start_offset, state.end_offset)}
    assert [r.value for r in records(read_ranges(source, bounds))] == [
        r.value for r in records(read_ranges(source, bounds))
    ]


@pytest.mark.parametrize(("skip", "length"), [(0, 1), (0, 7), (5, 1), (6, 8), (13, 14), (29, 1), (3, 27)])
def test_source_read_in_the_middle_gives_exactly_the_range(filled: Filled, skip: int, length: int) -> None:
    source = filled(VALUES)
    start = first_record(source) + skip
    found = records(read_ranges(source, {0: (start, start + length)}))
    assert [record.value for record in found] == VALUES[skip : skip + length]


def test_source_read_of_nothing_gives_nothing(filled: Filled) -> None:
    source = filled(VALUES)
    assert list(source.read({})) == []
    assert list(source.read(ranged({0: (5, 5)}))) == []


def test_source_of_large_records_gives_them_in_chunks_bounded_in_bytes(filled: Filled) -> None:
    values = [b'{"n":%d,"text":"%s"}' % (n, Random(n).randbytes(150_000).hex().encode()) for n in range(30)]
    source = filled(values)
    state = source.describe().partitions[0]
    chunks = read_ranges(source, {0: (state.log_start_offset, state.end_offset)})
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
    rest = read_ranges(source, {0: (first.next_offset, state.end_offset)})
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
