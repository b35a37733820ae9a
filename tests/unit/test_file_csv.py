"""The rows of .csv files: fields, line numbers, and lines that are no rows."""

import csv
import gzip
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from headrace.exceptions import FileSourceError
from headrace.sources import file_csv, file_lines
from headrace.sources.base import PartitionState, Range
from headrace.sources.file import FileSource
from headrace.sources.file_csv import raw_rows

TYPES = {
    "NAME": "text",
    "COUNT": "bigint",
    "PRICE": "numeric(15,2)",
    "RATIO": "double precision",
    "AT": "timestamptz",
    "IS_NEW": "boolean",
    "DETAILS": "jsonb",
}


def source(
    path: Path, content: bytes | str, types: dict[str, str] | None = None, required: Sequence[Sequence[str]] = ()
) -> FileSource:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return FileSource(path, TYPES if types is None else types, required)


def read(found: FileSource, start: int = 1) -> list[tuple[int, bytes | None]]:
    """Offsets and values of what are rows."""
    return [(offset, value) for offset, value, problem in read_all(found, start) if problem is None]


def read_all(found: FileSource, start: int = 1) -> list[tuple[int, bytes | None, str | None]]:
    end = found.describe().partitions[0].end_offset
    chunks = list(found.read({0: Range(start, end)}))
    assert not chunks or chunks[-1].next_offset == end
    return [
        (line.offset, line.value, line.rejection.detail if line.rejection else None)  # type: ignore[attr-defined]
        for chunk in chunks
        for line in chunk.records
    ]


@pytest.fixture(params=["t.csv", "t.csv.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def test_csv_rows_become_documents_under_their_line_numbers(path: Path) -> None:
    found = source(path, "NAME,COUNT,OTHER\na,1,x\n\n  \nb,2,\r\nNA,3,null")
    assert found.describe().partitions == {0: PartitionState(1, 7, 7)}
    assert read(found) == [
        (2, b'{"NAME":"a","COUNT":1,"OTHER":"x"}'),
        (5, b'{"NAME":"b","COUNT":2}'),
        (6, b'{"NAME":"NA","COUNT":3,"OTHER":"null"}'),
    ]
    assert [offset for offset, _ in read(found, 3)] == [5, 6]


def test_csv_digits_stay_as_they_are_written_and_other_text_stays_text(tmp_path: Path) -> None:
    names = list(TYPES)
    rows = [
        ["12", "007", "12.50", "1e-3", "1551434400000", "true", '{"a": [1.10]}'],
        ["x", "1_000", "1,5", "NaN", "2019-03-01 10:00:00", "TRUE", '{"a":1},"NAME":"injected"'],
        ["", "12345678901234567890123", ".5", "-0.0", "2019-03-01", "1", "[1"],
        ["é\n\"q\"", " 1", "+1", "0x10", "1551434400", "false", "[]"],
    ]  # fmt: skip
    text = io.StringIO()
    csv.writer(text).writerows([names, *rows])
    values = [value for _, value in read(source(tmp_path / "t.csv", text.getvalue()))]
    assert values[0] == (
        b'{"NAME":"12","COUNT":"007","PRICE":12.50,"RATIO":1e-3,"AT":1551434400000,"IS_NEW":true,'
        b'"DETAILS":{"a": [1.10]}}'
    )
    documents = [json.loads(value or b"") for value in values]
    assert documents[1] == dict(zip(names, rows[1], strict=True))
    assert documents[2] == {
        "COUNT": 12345678901234567890123, "PRICE": ".5", "RATIO": -0.0, "AT": "2019-03-01", "IS_NEW": "1",
        "DETAILS": "[1",
    }  # fmt: skip
    assert documents[3] == {
        "NAME": 'é\n"q"', "COUNT": " 1", "PRICE": "+1", "RATIO": "0x10", "AT": 1551434400, "IS_NEW": False,
        "DETAILS": [],
    }  # fmt: skip


def test_csv_row_over_several_lines_has_the_number_of_its_first(tmp_path: Path) -> None:
    found = source(tmp_path / "t.csv", 'NAME,OTHER\n"a\n\n,b",1\nc,"d\r\n"\ne,2\n')
    assert [(n, json.loads(v or b"")) for n, v in read(found)] == [
        (2, {"NAME": "a\n\n,b", "OTHER": "1"}),
        (5, {"NAME": "c", "OTHER": "d\r\n"}),
        (7, {"NAME": "e", "OTHER": "2"}),
    ]
    for start in range(1, 9):
        assert [n for n, _ in read(found, start)] == [n for n in (2, 5, 7) if n >= start]


def test_csv_lines_that_are_no_rows_are_told_with_their_bytes_and_keep_other_rows(tmp_path: Path) -> None:
    found = source(
        tmp_path / "t.csv",
        b'NAME,OTHER\na,1\nb,2,3\n"c,4\nd,5\n"e"f,6\ng"h,7\ni\n"j\0",8\nk\xff,9\n"l,m",n,o\n"p"",10\nq,11\n',
    )
    assert read_all(found) == [
        (2, b'{"NAME":"a","OTHER":"1"}', None),
        (3, b"b,2,3", "line 3: 3 fields, expected at most 2"),
        (4, b'"c,4', "line 4: a quote that is not closed"),
        (5, b'{"NAME":"d","OTHER":"5"}', None),
        (6, b'"e"f,6', "line 6: text after a closing quote"),
        (7, b'{"NAME":"g\\"h","OTHER":"7"}', None),
        (8, b'{"NAME":"i"}', None),
        (9, b'"j\0",8', "line 9: a NUL, which Postgres does not store"),
        (10, b'{"NAME":"k\xff","OTHER":"9"}', None),
        (11, b'"l,m",n,o', "line 11: 3 fields, expected at most 2"),
        (12, b'"p"",10', "line 12: a quote that is not closed"),
        (13, b'{"NAME":"q","OTHER":"11"}', None),
    ]


@pytest.mark.parametrize("limit", [("ROW_LINES_MAX", 5), ("ROW_BYTES_MAX", 30)])
def test_csv_quote_that_is_never_closed_costs_its_line_alone(
    limit: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_csv, *limit)
    found = source(tmp_path / "t.csv", 'NAME,OTHER\n"a,1\n' + "".join(f"b{n},2\n" for n in range(50)))
    problems = [(offset, problem) for offset, _, problem in read_all(found) if problem]
    assert problems == [(2, "line 2: a quote that is not closed")]
    assert [offset for offset, _ in read(found)] == list(range(3, 53))


def test_csv_in_chunks_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "NAME,COUNT\n" + "".join(f'"n{n}",{n}\n' if n % 7 else f"n{n},{n},\n" for n in range(100))
    whole = read_all(source(tmp_path / "t.csv", content))
    monkeypatch.setattr(file_csv, "CHUNK_ROWS", 9)
    assert read_all(source(tmp_path / "t.csv", content)) == whole
    monkeypatch.setattr(file_csv, "CHUNK_BYTES", 20)
    assert read_all(source(tmp_path / "t.csv", content)) == whole
    assert len(whole) == 100


@pytest.mark.parametrize(
    ("content", "end", "expected"),
    [
        (b"NAME,COUNT", 2, []),
        (b"\xef\xbb\xbfNAME\n\xef\xbb\xbfx\n", 3, [(2, '{"NAME":"\ufeffx"}'.encode())]),
        (b'\xef\xbb\xbf"NAME"\r\n1\r\n', 3, [(2, b'{"NAME":"1"}')]),
        (b'\n"NA""ME\n",NAME\n1,2\n', 5, [(4, b'{"NA\\"ME\\n":"1","NAME":"2"}')]),
        (b'NAME,COUNT\n,\n"",""\n', 4, [(2, b"{}"), (3, b"{}")]),
        (b"NAME\n\"\"\n", 3, [(2, b"{}")]),
        (b'\xef\xbb\xbf"NAME"\n"x"\n', 3, [(2, b'{"NAME":"x"}')]),
    ],
)  # fmt: skip
def test_csv_of_little_is_read(content: bytes, end: int, expected: list[Any], tmp_path: Path) -> None:
    found = source(tmp_path / "t.csv", content)
    assert found.describe().partitions == {0: PartitionState(1, end, end)}
    assert read_all(found) == [(*row, None) for row in expected]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"NAME;COUNT\na;1\n", r"found columns 'NAME;COUNT', expected some of the contract's: NAME, COUNT, .* commas"),
        (b"NAME,COUNT,NAME\n", r"found column 'NAME' twice in the header, expected one of each"),
        (b'"NAME,COUNT\na,1\n', r"found line 1: a quote that is not closed, expected a header"),
        (b"NAME,\xff\n", r"found a header that is not UTF-8: .* expected UTF-8"),
    ],
)
def test_csv_whose_header_cannot_be_used_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(FileSourceError, match=message):
        source(tmp_path / "t.csv", content).describe()


def test_csv_header_is_read_without_the_blanks_around_its_names(path: Path) -> None:
    assert read(source(path, 'NAME , "COUNT",\tOTHER\na,1, x\n', required=[["NAME"], ["COUNT", "NUMBER"]])) == [
        (2, b'{"NAME":"a","COUNT":1,"OTHER":" x"}')
    ]
    with pytest.raises(FileSourceError, match="found column 'NAME' twice in the header"):
        source(path, "NAME, NAME\n").describe()


@pytest.mark.parametrize(
    ("content", "end", "expected"),
    [
        (b"NAME,COUNT\ra,1\rb,2\r", 4, [(2, b'{"NAME":"a","COUNT":1}'), (3, b'{"NAME":"b","COUNT":2}')]),
        (b"NAME,COUNT\ra,1", 3, [(2, b'{"NAME":"a","COUNT":1}')]),
        (b'NAME,COUNT\r\r"a\rb",1\rc,2\r', 6, [(3, b'{"NAME":"a\\rb","COUNT":1}'), (5, b'{"NAME":"c","COUNT":2}')]),
        (b"NAME,COUNT\ra,1\nb,2\r\nc,3", 5, [(n + 1, b'{"NAME":"%c","COUNT":%d}' % (96 + n, n)) for n in (1, 2, 3)]),
        (b'"NA\rME",NAME\n1,2\n', 3, [(2, b'{"NA\\rME":"1","NAME":"2"}')]),  # inside quotes it ends no line
    ],
)
def test_csv_whose_lines_end_in_cr_alone_has_rows(
    content: bytes, end: int, expected: list[tuple[int, bytes]], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in (1, 2, 3, 1024):  # a line end may be cut in two
        monkeypatch.setattr(file_lines, "READ_BYTES", size)
        found = source(path, content)
        assert found.describe().partitions == {0: PartitionState(1, end, end)}
        assert read(found) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"COUNT\n1\n",
            r"found columns 'COUNT', expected all that the contract requires: NAME, COUNT or NUMBER; missing: NAME",
        ),
        (b"COUNT\r1\r2\r", r"found columns 'COUNT', expected .* missing: NAME \(as the contract writes them"),
        (b"name,COUNT\na,1\n", r"found columns 'name', 'COUNT', expected .* missing: NAME \("),
        (b"a,1\nb,2\n", r"found columns 'a', '1', expected .* missing: NAME, COUNT or NUMBER \("),
    ],
)
def test_csv_without_a_required_column_is_one_error(content: bytes, message: str, path: Path) -> None:
    found = source(path, content, required=[["NAME"], ["COUNT", "NUMBER"]])
    with pytest.raises(FileSourceError, match=message):
        found.describe()


def test_csv_rows_are_split_as_pythons_own_reader_splits_them(tmp_path: Path) -> None:
    rng = random.Random(7)
    compared = 0
    for _ in range(600):
        lines = [
            "".join(rng.choice(["a", "b", ",", ",", '"', '""', "é", " ", "\r"]) for _ in range(rng.randint(1, 8)))
            for _ in range(rng.randint(1, 6))
        ]
        content = "".join(line + "\n" for line in lines).encode()
        rows = list(raw_rows(enumerate(io.BytesIO(content), start=2)))
        good = [row for row in rows if row.problem is None]
        fields = file_csv._split([row.text for row in good], 20)
        for row, found in zip(good, fields, strict=True):
            text = row.text.decode()
            if "\r" in text:
                continue  # Python ends a row there
            (expected,) = csv.reader(io.StringIO(text, newline=""))
            assert [field for field in found if isinstance(field, str)][: len(expected)] == expected
            assert not any(field for field in found[len(expected) :] if isinstance(field, str))
            compared += 1
    assert compared > 500


def test_csv_of_any_bytes_gives_every_line_once(tmp_path: Path) -> None:
    rng = random.Random(11)
    for _ in range(200):
        body = bytes(rng.choice(b'ab,"\n\r\0\xff ') for _ in range(rng.randint(0, 60)))
        found = source(tmp_path / "t.csv", b"NAME,OTHER\n" + body)
        seen = [offset for offset, _, _ in read_all(found)]
        assert seen == sorted(set(seen))
        lines = (b"NAME,OTHER\n" + body).split(b"\n")
        assert all(lines[offset - 1].strip() for offset in seen)
        # a line that is in no row is blank, or inside the quotes of the row before
        covered = sum(row.text.count(b"\n") + 1 for row in raw_rows(enumerate(io.BytesIO(body), start=2)))
        blank_outside = [n for n, line in enumerate(lines[1:], start=2) if not line.strip()]
        assert covered >= len(lines) - 1 - len(blank_outside)
