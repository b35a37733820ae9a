"""The rows of .parquet files: exact numbers, times as text, and files that are none."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from headrace.exceptions import FileSourceError
from headrace.sources import file_lines, file_parquet_bounds
from headrace.sources.base import PartitionState, Range
from headrace.sources.file import FileSource


def write(path: Path, columns: dict[str, Any], **options: Any) -> FileSource:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return FileSource(path, dict.fromkeys(columns, "text"))


def read(found: FileSource, start: int = 1) -> list[tuple[int, bytes]]:
    end = found.describe().partitions[0].end_offset
    chunks = list(found.read({0: Range(start, end)}))
    assert not chunks or chunks[-1].next_offset == end
    return [(record.offset, record.value or b"") for chunk in chunks for record in chunk.records]


@pytest.mark.parametrize("start", [1, 2, 10, 11, 25, 99, 100])
def test_parquet_rows_have_their_numbers_wherever_they_are_begun(
    start: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_parquet_bounds, "BATCH_ROWS", 7)
    found = write(tmp_path / "t.parquet", {"N": list(range(1, 101))}, row_group_size=10)
    assert found.describe().partitions == {0: PartitionState(1, 101, 101)}
    assert read(found, start) == [(n, b'{"N":%d}' % n) for n in range(start, 101)]


def test_parquet_values_keep_their_digits_and_their_types(tmp_path: Path) -> None:
    berlin = pyarrow.timestamp("us", "Europe/Berlin")
    at = datetime(2019, 3, 1, 10, 0, 0, 123456)
    found = write(
        tmp_path / "t.parquet",
        {
            "INTEGER": pyarrow.array([2**63 - 1, None], pyarrow.int64()),  # pandas would make a float of it
            "SHORT": pyarrow.array([12.1, None], pyarrow.float32()),
            "LONG": pyarrow.array([0.1, 1e300], pyarrow.float64()),
            "MONEY": pyarrow.array([Decimal("12.50"), Decimal("-0.00")], pyarrow.decimal128(15, 2)),
            "TEXT": ["7", "ü\n\""],
            "CHOICE": pyarrow.array(["a", "a"]).dictionary_encode(),
            "FLAG": [True, None],
            "NAIVE": pyarrow.array([at, None], pyarrow.timestamp("us")),
            "ZONED": pyarrow.array([at.replace(tzinfo=UTC), None], berlin),
            "NANOS": pyarrow.array([1_551_434_400_123_456_789, None], pyarrow.timestamp("ns")),
            "DAY": [date(2019, 3, 1), None],
            "BYTES": [b"\xff", None],
            "LIST": [[1, None], None],
            "STRUCT": [{"a": Decimal("1.10"), "b": [{"c": at}]}, None],
        },
    )  # fmt: skip
    first, second = (value for _, value in read(found))
    assert first.decode("utf-8", "surrogateescape") == (
        '{"INTEGER":9223372036854775807,"SHORT":12.1,"LONG":0.1,"MONEY":12.50,"TEXT":"7","CHOICE":"a","FLAG":true,'
        '"NAIVE":"2019-03-01 10:00:00.123456","ZONED":"2019-03-01 10:00:00.123456Z",'
        '"NANOS":"2019-03-01 10:00:00.123456789","DAY":"2019-03-01","BYTES":"\udcff","LIST":[1,null],'
        '"STRUCT":{"a":1.10,"b":[{"c":"2019-03-01T10:00:00.123456"}]}}'
    )
    assert json.loads(second) == {"LONG": 1e300, "MONEY": 0, "TEXT": 'ü\n"', "CHOICE": "a"}


def test_parquet_values_that_are_no_json_or_no_time_are_left_to_the_contract(tmp_path: Path) -> None:
    found = write(
        tmp_path / "t.parquet",
        {
            "F": [float("nan"), float("-inf")],
            "T": pyarrow.array([2**62, 0], pyarrow.timestamp("ms")),
        },
    )
    values = [value for _, value in read(found)]
    assert values[0].startswith(b'{"F":NaN,"T":"')
    assert values[1] == b'{"F":NaN,"T":"1970-01-01 00:00:00.000"}'


def test_parquet_that_pandas_wrote_is_read(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"LOCATION": ["a", None, "c"], "USERID": [1, 2, 3]}, index=[7, 8, 9])
    frame.to_parquet(tmp_path / "t.parquet", index=False, compression="gzip")
    assert read(FileSource(tmp_path / "t.parquet", {"LOCATION": "text"})) == [
        (1, b'{"LOCATION":"a","USERID":1}'),
        (2, b'{"USERID":2}'),
        (3, b'{"LOCATION":"c","USERID":3}'),
    ]


FLOATS = [5.0, 98770148834.0, 2.0**53 - 1, -0.0, None, 12.5, 2.0**53, 1e16, -1e300]


@pytest.mark.parametrize("sql_type", ["bigint", "text"])
def test_parquet_ids_that_are_floats_are_whole_numbers_where_they_are_exact(sql_type: str, tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"ID": pyarrow.array(FLOATS, pyarrow.float64()), "X": FLOATS})
    found = FileSource(tmp_path / "t.parquet", {"ID": sql_type, "X": "double precision"})
    found.describe()
    (chunk,) = found.read({0: Range(1, 10)})
    read = [json.loads(line.value or b"", parse_int=str, parse_float=str).get("ID") for line in chunk.records]
    # written as whole numbers whatever their magnitude: not 9.8770148834e+10
    assert read == [
        "5",
        "98770148834",
        "9007199254740991",
        "0",
        None,
        "12.5",
        "9.007199254740992e+15",
        "1e+16",
        "-1e+300",
    ]
    rejections = [line.rejection for line in chunk.records]  # type: ignore[attr-defined]
    assert [rejection is not None for rejection in rejections] == [False] * 6 + [True] * 3
    assert (rejections[7].reason, rejections[7].json_path) == ("out_of_range", "$.ID")
    assert rejections[7].detail.startswith("ID: found the float 1e+16, expected a whole number below 9007199254740992")


def test_parquet_ids_that_are_short_floats_end_earlier(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"ID": pyarrow.array([16777215.0, 16777216.0], pyarrow.float32())})
    found = FileSource(tmp_path / "t.parquet", {"ID": "bigint"})
    found.describe()
    (chunk,) = found.read({0: Range(1, 3)})
    assert [line.rejection is None for line in chunk.records] == [True, False]  # type: ignore[attr-defined]
    assert chunk.records[0].value == b'{"ID":16777215}'


def test_parquet_without_a_required_column_is_one_error(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"USERID": [1]})
    found = FileSource(tmp_path / "t.parquet", {"LOCATION": "text", "USERID": "bigint"}, [["LOCATION"], ["USERID"]])
    with pytest.raises(FileSourceError, match=r"found columns 'USERID', expected .* missing: LOCATION \("):
        found.describe()


def test_parquet_without_rows_has_nothing_to_read(tmp_path: Path) -> None:
    found = write(tmp_path / "t.parquet", {"N": pyarrow.array([], pyarrow.int64())})
    assert found.describe().partitions == {0: PartitionState(1, 1, 1)}
    assert read(found) == []


def test_parquet_with_none_of_the_contracts_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"N": [1]})
    with pytest.raises(FileSourceError, match=r"found columns 'N', expected some of the contract's: LOCATION, USERID"):
        FileSource(tmp_path / "t.parquet", {"LOCATION": "text", "USERID": "bigint"}).describe()


def test_parquet_with_a_column_twice_is_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([pyarrow.array([1]), pyarrow.array([2])], names=["N", "N"])
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(FileSourceError, match="found column 'N' twice"):
        FileSource(tmp_path / "t.parquet").describe()


def test_parquet_that_is_damaged_or_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "t.parquet", {"N": list(range(10_000)), "T": [str(n) for n in range(10_000)]})
    content = (tmp_path / "t.parquet").read_bytes()
    for broken in (b"", b"N\n1\n", content[:-1], content[:100]):
        (tmp_path / "t.parquet").write_bytes(broken)
        with pytest.raises(FileSourceError, match=r"t.parquet: cannot be read as Parquet: .*; name a file"):
            FileSource(tmp_path / "t.parquet").describe()
    damaged = bytearray(content)
    damaged[200:4_000] = bytes(3_800)
    (tmp_path / "t.parquet").write_bytes(damaged)
    found = FileSource(tmp_path / "t.parquet")
    with pytest.raises(FileSourceError, match="cannot be read as Parquet"):
        read(found)


def test_parquet_that_unpacks_to_far_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_lines, "EXPANSION_FREE_BYTES", 100_000)
    bomb = write(tmp_path / "t.parquet", {"N": [7] * 3_000_000})
    with pytest.raises(FileSourceError, match=r"holds more than \d+ rows: its limit is \d+ bytes, 50 for each row"):
        bomb.describe()
