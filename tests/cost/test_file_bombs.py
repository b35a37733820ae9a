"""Files that hold, or claim, far more than they are: refused in one line, in little time and memory."""

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pyarrow
import pyarrow.parquet
import pytest

from headrace.exceptions import FileSourceError
from headrace.sources import file_lines
from headrace.sources.base import Range
from headrace.sources.file import FileSource
from headrace.sources.file_parquet_pages import NoPage, column_pages
from headrace.verify.readers import FileReader

KB, MB = 1024, 1024 * 1024
REMEDY = "; if the file is right, raise HEADRACE_UNPACKED_BYTES_MAX, or load it uncompressed"
# describes and reads a file, and says the error, the rows and what memory it took at most
CHILD = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (6 * 2**30, 6 * 2**30))  # the machine survives what does not keep to its bounds
from pathlib import Path
import headrace.sources.file_parquet
from headrace.exceptions import FileSourceError
from headrace.sources.file import FileSource
from headrace.sources.base import Range
def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before, rows, error = peak_kb(), 0, None
try:
    source = FileSource(Path(sys.argv[1]), {"T": "text"})
    end = source.describe().partitions[0].end_offset
    for chunk in source.read({0: Range(1, end)}):
        rows += len(chunk.records)
        del chunk
except (FileSourceError, MemoryError) as raised:
    error = str(raised) or "MemoryError"
print(json.dumps([error, rows, (peak_kb() - before) // 1024]))
"""


def _in_child(path: Path) -> tuple[str | None, int, int]:
    done = subprocess.run([sys.executable, "-c", CHILD, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    error, rows, megabytes = json.loads(done.stdout)
    return error, rows, megabytes


def _gzipped(path: Path, parts: Iterator[bytes]) -> Path:
    with gzip.open(path, "wb") as file:
        for part in parts:
            file.write(part)
    return path


@pytest.mark.security("L2")
@pytest.mark.parametrize(
    ("name", "head", "line"),
    [
        ("x.ndjson.gz", b"", b"\n"),
        ("x.ndjson.gz", b"", b"{}\n"),
        ("x.csv.gz", b"T\n", b",\n"),
    ],
)
def test_packed_file_of_empty_lines_is_refused_soon(name: str, head: bytes, line: bytes, tmp_path: Path) -> None:
    path = _gzipped(tmp_path / name, iter([head, *[line * (MB // len(line))] * 100]))
    began = time.process_time()
    with pytest.raises(FileSourceError) as caught:
        FileSource(path, {"T": "text"}).describe()
    limit = max(path.stat().st_size * 200, 64 * MB)
    assert str(caught.value) == (
        f"{path}: holds more than {limit // 50} rows: its limit is {limit} bytes, 50 for each row{REMEDY}"
    )
    assert time.process_time() - began < 10


def test_setting_lets_a_file_pass_that_is_right(tmp_path: Path) -> None:
    path = _gzipped(tmp_path / "x.ndjson.gz", iter([b'{"T":"x"}\n' * 2_000]))
    with pytest.raises(FileSourceError, match="holds more than"):
        FileSource(path, {}, unpacked_bytes=10_000).describe()
    with pytest.raises(FileSourceError, match=r"unpacks to more than \d+ bytes, 200 times its size, expected records"):
        FileSource(_gzipped(tmp_path / "y.ndjson.gz", iter([b"x" * 100_000])), {}, unpacked_bytes=10_000).describe()
    assert FileSource(path, {}, unpacked_bytes=100_000).describe().partitions[0].end_offset == 2_001


def test_verifys_own_reader_keeps_to_the_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    newlines = _gzipped(tmp_path / "x.ndjson.gz", iter([b"\n" * 2 * MB]))
    with pytest.raises(FileSourceError, match="holds more than"):
        list(FileReader(newlines).visible_records(0, 1, 2**62))
    monkeypatch.setattr(file_lines, "LINE_BYTES_MAX", 1_000)
    line = _gzipped(tmp_path / "y.ndjson.gz", iter([b"x" * MB]))
    with pytest.raises(FileSourceError, match="line 1 is longer than 1000 bytes"):
        list(FileReader(line).visible_records(0, 1, 2))


def test_csv_header_of_too_many_columns_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"," * 60 * MB + b"\n")
    began = time.process_time()
    with pytest.raises(
        FileSourceError, match=r"found a header of 62914561 columns, expected at most 10000; nothing was"
    ):
        FileSource(path, {"T": "text"}).describe()
    assert time.process_time() - began < 5


def test_csv_of_many_columns_and_short_rows_is_read_in_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b",".join([b"T", *(b"c%d" % n for n in range(3_000))]) + b"\n" + b"x\n" * 20_000)
    error, rows, megabytes = _in_child(path)
    assert (error, rows) == (None, 20_000)
    assert megabytes < 200


def _dictionary_column(rows: int, value: str) -> Any:
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array(numpy.zeros(rows, "int32")), [value]).cast(
        pyarrow.dictionary("int32", "string")
    )


@pytest.mark.security("L2")
def test_parquet_dictionary_of_a_large_value_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"T": _dictionary_column(1_000_000, "x" * 60_000)}), path)
    assert path.stat().st_size < 100_000
    error, rows, megabytes = _in_child(path)
    assert error == f"{path}: unpacks to more than {64 * MB} bytes, 200 times its size, expected records{REMEDY}"
    assert rows == 0
    assert megabytes < 150


def test_parquet_of_rows_without_a_byte_is_refused_by_their_number(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    nulls = pyarrow.table({"T": pyarrow.nulls(1_000_000, "string")})
    with pyarrow.parquet.ParquetWriter(path, nulls.schema) as writer:
        for _ in range(100):
            writer.write_table(nulls)
    with pytest.raises(
        FileSourceError, match=rf"x.parquet: holds more than \d+ rows: its limit is \d+ bytes, 50 for each row{REMEDY}"
    ):
        FileSource(path, {"T": "text"}).describe()


def test_parquet_list_of_too_many_elements_in_a_row_is_refused(tmp_path: Path) -> None:
    for name, element in (("n", numpy.zeros(10_000_000, "int8")), ("t", _dictionary_column(2_000_000, "x"))):
        lists = pyarrow.ListArray.from_arrays([0, len(element)], pyarrow.array(element) if name == "n" else element)
        path = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"T": lists}), path)
        with pytest.raises(FileSourceError, match="holds more than"):
            FileSource(path, {"T": "jsonb"}).describe()


def test_parquet_list_of_a_large_value_in_a_row_is_refused(tmp_path: Path) -> None:
    lists = pyarrow.ListArray.from_arrays([0, 500_000], _dictionary_column(500_000, "x" * 10_000))
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"T": lists}), path)
    with pytest.raises(FileSourceError, match="unpacks to more than"):
        FileSource(path, {"T": "jsonb"}).describe()


def test_parquet_values_that_repeat_their_beginning_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"T": [f"{'x' * 500_000}{n}" for n in range(200)]})
    pyarrow.parquet.write_table(
        table, path, use_dictionary=False, column_encoding={"T": "DELTA_BYTE_ARRAY"}, write_statistics=False
    )
    assert path.stat().st_size < 2 * MB
    monkeypatch.setattr(file_lines, "EXPANSION_MAX", 10)
    with pytest.raises(FileSourceError, match="unpacks to more than"):
        FileSource(path, {"T": "text"}).describe()


def test_parquet_row_that_is_too_large_is_a_dead_letter_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"T": ["first", "x" * 70 * MB, "last"]})
    pyarrow.parquet.write_table(table, path, write_statistics=False)
    source = FileSource(path, {"T": "text"}, unpacked_bytes=200 * MB)
    assert source.describe().partitions[0].end_offset == 4
    first, large, last = (record for chunk in source.read({0: Range(1, 4)}) for record in chunk.records)
    assert (first.value, large.value, last.value) == (b'{"T":"first"}', None, b'{"T":"last"}')
    assert large.rejection.reason == "too_large"  # type: ignore[attr-defined]


def _as_small(content: bytes, number: int) -> bytes:
    """A file that states 1 where it stated a number, in as many bytes."""
    encoded, rest = bytearray(), number << 1
    while rest >= 0x80:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    assert content.count(encoded, footer)
    small = bytes([0x82] + [0x80] * (len(encoded) - 2) + [0])
    return content[:footer] + content[footer:].replace(bytes(encoded), small)


def test_parquet_footer_that_lies_about_its_pages_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    table = pyarrow.table({"T": ["x" * 150 * MB]})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)
    stated = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).total_byte_size
    path.write_bytes(_as_small(path.read_bytes(), stated))
    del table
    assert pyarrow.parquet.ParquetFile(path).metadata.row_group(0).total_byte_size == 1
    error, rows, megabytes = _in_child(path)
    assert error == f"{path}: unpacks to more than {64 * MB} bytes, 200 times its size, expected records{REMEDY}"
    assert (rows, megabytes < 100) == (0, True)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_are_those_that_the_footer_sums_up(version: str, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    columns = {"N": list(range(50_000)), "T": [f"v{n % 999}" for n in range(50_000)], "L": [["a", "b"]] * 50_000}
    pyarrow.parquet.write_table(
        pyarrow.table(columns), path, data_page_version=version, row_group_size=20_000, use_dictionary=["T"],
        data_page_size=10_000,
    )  # fmt: skip
    metadata = pyarrow.parquet.ParquetFile(path).metadata
    for group in range(metadata.num_row_groups):
        for index in range(metadata.num_columns):
            column = metadata.row_group(group).column(index)
            pages = list(column_pages(path, column))
            assert sum(page.values for page in pages if not page.is_dictionary) == column.num_values
            assert sum(page.unpacked_bytes for page in pages) <= column.total_uncompressed_size
            assert [page.is_dictionary for page in pages] == [index == 1] + [False] * (len(pages) - 1)


@pytest.mark.parametrize(
    "damage", [b"\xff" * 40, b"\0" * 40, b"\x1c" * 40, b"\x19\xfb\xff\xff\xff\xff\x0f" + b"\0" * 33]
)
def test_damaged_page_header_is_refused_in_one_line(damage: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"T": ["x" * 100] * 100}), path)
    column = pyarrow.parquet.ParquetFile(path).metadata.row_group(0).column(0)
    content = bytearray(path.read_bytes())
    content[4 : 4 + len(damage)] = damage
    path.write_bytes(content)
    with pytest.raises(NoPage):
        list(column_pages(path, column))
    with pytest.raises(FileSourceError, match=r"cannot be read as Parquet: .*; name a file that is complete"):
        FileSource(path, {"T": "text"}).describe()
