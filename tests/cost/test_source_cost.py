"""What batches, entries and files cost is linear in their bytes, by both of their readers."""

import gzip
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import lz4.frame
import pyarrow
import pyarrow.parquet
import pytest
import snappy
import zstandard
from kafka import TopicPartition
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import calc_crc32c, encode_varint

from headrace.exceptions import FileSourceError
from headrace.publish.publishers import _fields
from headrace.sources.bounds import HEADERS_MAX, Bounds
from headrace.sources.file_csv import CsvRows, raw_rows
from headrace.sources.file_lines import numbered_lines
from headrace.sources.file_parquet import ParquetRows
from headrace.sources.kafka_batches import TolerantRecords, UnreadableBatch
from headrace.sources.kafka_records import Meter, MeteredRecords
from headrace.sources.redis import RedisSource
from headrace.verify.readers import StreamReader
from tests.cost.costs import assert_linear
from tests.cost.payloads import DOCUMENTS, numbered, runs

# topics: what batches unpack to, by both of their readers


def varint(number: int) -> bytes:
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def record(
    number: int, headers: Sequence[tuple[bytes, bytes]] = (), count: int | None = None, value: bytes = b""
) -> bytes:
    """A record of a batch (https://kafka.apache.org/documentation/#record); count: of headers, as it states it."""
    body = (
        b"\0\0" + varint(number) + b"\1" + varint(len(value)) + value + varint(len(headers) if count is None else count)
    )
    body += b"".join(varint(len(name)) + name + varint(len(value)) + value for name, value in headers)
    return varint(len(body)) + body


def batch(codec: int, records: bytes, count: int) -> bytes:
    """A batch that states so many records; the bytes of them are as they are given."""
    header = struct.pack(">hiqqqhii", codec, count - 1, 0, 0, -1, -1, -1, count)
    crc = calc_crc32c(memoryview(header + records))
    return struct.pack(">qiibI", 0, len(header) + len(records) + 9, 0, 2, crc) + header + records


def tiny_records(size: int) -> tuple[bytes, int]:
    count = size // 9
    return b"".join(map(record, range(count))), count


def records(size: int) -> tuple[bytes, int]:
    return b"".join(record(i, value=b"v" * 89) for i in range(size // 100)), size // 100


def many_headers(size: int) -> tuple[bytes, int]:
    return record(0, [(b"", b"")] * min(size // 2, HEADERS_MAX)), 1


def in_pieces(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Each byte packed by itself."""
    each = [pack(bytes([byte])) for byte in range(256)]
    return lambda records: b"".join(each[byte] for byte in records[: len(records) // 20])


def xerial(records: bytes) -> bytes:
    """Blocks of one byte, as xerial's format has them behind their sizes."""
    blocks = [snappy.compress(bytes([byte])) for byte in range(256)]
    framed = [struct.pack(">i", len(block)) + block for block in blocks]
    return b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1) + b"".join(framed[byte] for byte in records[: len(records) // 8])


def frame(byte: bytes) -> bytes:
    return bytes(lz4.frame.compress(byte, store_size=False))


CODECS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (0, bytes),
    "gzip": (1, partial(gzip.compress, mtime=0)),
    "gzip in members": (1, in_pieces(partial(gzip.compress, mtime=0))),
    "snappy": (2, snappy.compress),
    "snappy in blocks": (2, xerial),
    "lz4": (3, lz4.frame.compress),
    "lz4 in frames": (3, in_pieces(frame)),
    "zstd": (4, zstandard.compress),
    "zstd in frames": (4, in_pieces(zstandard.compress)),
}


def read_batches(data: bytes) -> None:
    for records in (
        MeteredRecords(Meter(2**40), 0, TopicPartition("topic", 0), MemoryRecords(data)),
        TolerantRecords(Bounds(), 0, TopicPartition("topic", 0), MemoryRecords(data)),
    ):
        with suppress(UnreadableBatch):
            while records:
                records.take(1_000)


@pytest.mark.security("P3")
@pytest.mark.parametrize("name", CODECS)
def test_cost_of_a_batch_is_linear(name: str) -> None:
    codec, pack = CODECS[name]

    def packed(fill: Callable[[int], tuple[bytes, int]], size: int) -> bytes:
        records, count = fill(size)
        return batch(codec, pack(records), count)

    assert_linear(partial(packed, records), read_batches)
    if name == "none":
        assert_linear(partial(packed, tiny_records), read_batches, byte_cost_max=150)  # two readers, 9 bytes a record
        assert_linear(partial(packed, many_headers), read_batches)


@pytest.mark.parametrize(
    "make",
    [
        lambda size: batch(0, b"\xff" * size, 1),
        lambda size: batch(0, bytes(size), 2**31 - 1),
        lambda size: batch(0, record(0, count=2**30) + bytes(size), 1),
        lambda size: batch(0, b"", 0) * (size // 61),
        lambda size: batch(0, record(0), 1) * (size // 68),
        lambda size: batch(
            0, b"".join(record(i, [(b"\xff", b"")], value=b"v" * 86) for i in range(size // 100)), size // 100
        ),
    ],
    ids=["no number", "records of nothing", "headers of nothing", "empty", "of one record", "names that are not UTF-8"],
)
def test_cost_of_a_batch_that_lies_is_linear(make: Callable[[int], bytes]) -> None:
    assert_linear(make, read_batches, byte_cost_max=150)


# streams: entries that become documents, and their second reader


@pytest.mark.parametrize("name", ["controls", "fields"])
def test_cost_of_an_entry_of_a_stream_is_linear(name: str) -> None:
    source, reader = RedisSource.__new__(RedisSource), StreamReader.__new__(StreamReader)

    def fields(size: int) -> list[bytes]:
        if name == "fields":
            return [b"%d" % i for i in range(size // 6)] * 2
        return [b"n", b"\1" * size]

    assert_linear(fields, lambda fields: source._record(0, b"1-1", fields))
    assert_linear(fields, reader._value)


def test_cost_of_sending_a_line_to_a_stream_is_linear() -> None:
    for name in ("names", "one name", "long name", "nested", "never closed"):
        assert_linear(lambda size, name=name: DOCUMENTS[name](size).encode(), _fields)  # type: ignore[misc]


# files


@pytest.mark.parametrize("name", ["lines.ndjson", "lines.ndjson.gz", "lines.csv"])
def test_cost_of_a_files_lines_is_linear(name: str, tmp_path: Path) -> None:
    for unit in (b"\n", b'"\r', b"a"):

        def file(size: int, unit: bytes = unit) -> Path:
            path = tmp_path / name
            piece = gzip.compress(unit, mtime=0) if path.suffix == ".gz" else unit  # many members
            path.write_bytes(piece * (size // len(piece)))
            return path

        assert_linear(file, lambda path: sum(1 for _ in numbered_lines(path, may_end_in_cr=path.suffix == ".csv")))


ROWS = {
    "opens in every line": b'a","\n', "quotes": b'"\n', "of quotes": b'"', "of commas": b",", "of fields": b'"",',
    "of open fields": b'","', "of crs": b"\r",
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_cost_of_finding_a_csv_files_rows_is_linear(name: str) -> None:
    unit = ROWS[name]

    def lines(size: int) -> list[tuple[int, bytes]]:
        repeated = unit * (size // len(unit))
        return list(enumerate(repeated.splitlines(keepends=True) if b"\n" in unit else [b'"' + repeated, repeated], 1))

    assert_linear(lines, lambda lines: list(raw_rows(iter(lines))))


HEADER = numbered(",n{}", "a")
TABLES: dict[str, Callable[[int], str]] = {
    "rows": runs("1,{}, \n" * 4, "a,b,c\n"),
    "one wide, many short": lambda size: (
        HEADER(min(size // 3, 40_000)) + runs(",1", "\n1")(min(size // 3, 10_000)) + runs("\n1", behind="\n")(size // 8)
    ),
    "columns": numbered(",n{}", "a", "\n"),
    "columns twice": lambda size: HEADER(min(size, 40_000)) + ",a\n",
}


@pytest.mark.security("P4")
@pytest.mark.parametrize("name", TABLES)
def test_cost_of_a_csv_file_is_linear(name: str, tmp_path: Path) -> None:
    def file(size: int) -> CsvRows:
        path = tmp_path / "table.csv"
        path.write_text(TABLES[name](size))
        return CsvRows(path, {"a": "bigint", "b": "jsonb"}, [["a"]])

    def read(rows: CsvRows) -> None:
        try:
            assert sum(1 for _ in rows.records(1)) or name == "columns"
        except FileSourceError:
            assert name.startswith("columns")

    # a byte may be a column, or a row, and each is 2 to 20 us of pandas
    assert_linear(file, read, byte_cost_max=500)


def test_cost_of_a_parquet_files_columns_is_linear(tmp_path: Path) -> None:
    def file(size: int) -> ParquetRows:
        path = tmp_path / "table.parquet"
        names = [f"n{i}" for i in range(size // 500)]
        pyarrow.parquet.write_table(pyarrow.table([[1]] * len(names), names=names), path)
        return ParquetRows(path, {"n0": "bigint"}, [["n0"]])

    assert_linear(file, lambda rows: rows.end())
