"""The rows of a .csv file as JSON documents: a header, commas, quotes as RFC 4180 has them, UTF-8.

pandas splits the rows into fields. Which lines are a row is decided here, before: pandas neither says where a bad row
stands nor goes on behind a quote that is never closed.
"""

import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import islice
from json.encoder import encode_basestring
from pathlib import Path
from typing import Literal, NamedTuple

import orjson
import pandas

from headrace.contracts.rejection import Rejection
from headrace.exceptions import FileSourceError
from headrace.file_lines import BYTE_ORDER_MARK, FIRST_LINE, Line, numbered_lines

CHUNK_ROWS = 10_000
CHUNK_BYTES = 8 * 1024 * 1024
CHUNK_CELLS = 1_000_000
COLUMNS_MAX = 10_000  # a header of 64 MB of commas has as many fields
# A quoted field may go over lines. One that is longer than this is a quote that somebody forgot to close.
ROW_LINES_MAX = 1_000
ROW_BYTES_MAX = 4 * 1024 * 1024
LONG_LINE_BYTES = 1024 * 1024  # a pattern remembers every field that it passed, 50 bytes each
REASON = "malformed_row"

# possessive (*+): what was matched is not tried in another way
_QUOTED = rb'"[^"]*+(?:""[^"]*+)*+"'
_UNQUOTED = rb'[^",\r\n][^,\r\n]*+'
_FIELD = rb"(?:%s|%s|)" % (_QUOTED, _UNQUOTED)
_is_row = re.compile(rb"%s(?:,%s)*\r*\n?" % (_FIELD, _FIELD)).fullmatch
_match_field = re.compile(rb'(?:%s|[^",][^,]*+|)(?:,|\Z)' % _QUOTED).match
_inside_quotes = re.compile(rb'[^"]*+(?:""[^"]*+)*+').match
_is_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII).fullmatch

Kind = Literal["text", "number", "boolean", "json"]


class RawRow(NamedTuple):
    """A row as it stands in the file, by its first line; problem: why it is none."""

    number: int
    text: bytes
    problem: str | None = None


class CsvRows:
    """A .csv file, or .csv.gz. A record's offset is the number of its row's first line; the header is in line 1.

    A field becomes text, or, where the contract's column says so and it looks like JSON's, a number, a boolean, an
    object or a list. An empty field, quoted or not, is missing. Digits stay as they are written.
    """

    def __init__(
        self,
        path: Path,
        types: Mapping[str, str],
        required: Collection[Sequence[str]] = (),
        unpacked_bytes: int | None = None,
    ) -> None:
        self._path = path
        self._types = types
        self._required = required
        self._unpacked_bytes = unpacked_bytes

    def end(self) -> int:
        """Behind the last line; raises FileSourceError for a header that cannot be used."""
        self._header(raw_rows(self._lines()))
        return FIRST_LINE + sum(1 for _ in self._lines())

    def records(self, start: int) -> Iterator[Line]:
        """Yield the rows below the header that begin at a line or behind it."""
        rows = raw_rows(self._lines())
        names = self._header(rows)
        encoded = [encode_basestring(name) for name in names]
        kinds = [_kind(self._types.get(name, "text")) for name in names]
        wanted = (row for row in rows if row.number >= start)
        while chunk := _chunk(wanted):
            checked = [_with_count_checked(row, len(names)) for row in chunk]
            fields = _fields([row.text for row in checked if row.problem is None], len(names))
            for row in checked:
                if row.problem is None:
                    yield Line(row.number, _document(encoded, kinds, next(fields)))
                else:
                    yield Line(row.number, row.text, Rejection(REASON, f"line {row.number}: {row.problem}"))

    def _header(self, rows: Iterator[RawRow]) -> list[str]:
        header = next(rows, None)
        if header is None:
            raise self._refused("an empty file", "a header and rows")
        if header.problem is not None:
            raise self._refused(f"line {header.number}: {header.problem}", "a header")
        try:
            header.text.decode()
        except UnicodeDecodeError as error:
            raise self._refused(f"a header that is not UTF-8: {error}", "UTF-8") from error
        if header.text.count(b",") >= COLUMNS_MAX:
            raise self._refused(f"a header of {header.text.count(b',') + 1} columns", f"at most {COLUMNS_MAX}")
        names = [_name(field) for field in _split([header.text], None)[0]]
        twice = sorted(name for name, count in Counter(names).items() if count > 1)
        if twice:
            raise self._refused(f"column {twice[0]!r} twice in the header", "one of each")
        check_columns(self._path, names, self._types, self._required)
        return names

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        return numbered_lines(self._path, may_end_in_cr=True, free_bytes=self._unpacked_bytes)

    def _refused(self, found: str, expected: str) -> FileSourceError:
        return FileSourceError(f"{self._path}: found {found}, expected {expected}; nothing was loaded")


def check_columns(
    path: Path, names: Sequence[str], types: Mapping[str, str], required: Collection[Sequence[str]]
) -> None:
    """Refuse a table without a column that the contract requires: every row of it would be a dead letter."""
    missing = [" or ".join(choices) for choices in required if not set(choices) & set(names)]
    if missing or (types and not types.keys() & set(names)):
        expected = f"some of the contract's: {', '.join(types)}"
        if missing:
            needed = ", ".join(" or ".join(choices) for choices in required)
            expected = f"all that the contract requires: {needed}; missing: {', '.join(missing)}"
        raise FileSourceError(
            f"{path}: found columns {', '.join(map(repr, names))[:200]}, expected {expected} (as the contract writes "
            "them; of a .csv: in its first line, between commas); nothing was loaded"
        )


def _name(field: str) -> str:
    # blanks around it, and quotes that a blank in front of them made part of it
    name = field.strip(" \t")
    return name[1:-1].replace('""', '"') if len(name) > 1 and name[0] == name[-1] == '"' else name


def raw_rows(lines: Iterator[tuple[int, bytes]]) -> Iterator[RawRow]:
    """Yield rows, the header among them; blank lines are none.

    A row whose quotes are wrong is its first line alone: the next line is looked at as if it began a row.
    """
    waiting: deque[tuple[int, bytes]] = deque()

    def next_line() -> tuple[int, bytes] | None:
        return waiting.popleft() if waiting else next(lines, None)

    while (item := next_line()) is not None:
        number, line = item
        if not line.strip():
            continue
        if b'"' not in line or (len(line) < LONG_LINE_BYTES and _is_row(line)):
            yield _row(number, line)
            continue
        taken, size, state = [line], len(line), _state_behind(line, is_inside=False)
        behind: list[tuple[int, bytes]] = []
        while state == "inside" and len(taken) < ROW_LINES_MAX and size < ROW_BYTES_MAX:
            more = next_line()
            if more is None:
                break
            behind.append(more)
            taken.append(more[1])
            size += len(more[1])
            state = _state_behind(more[1], is_inside=True)
        if state == "closed":
            yield _row(number, b"".join(taken))
            continue
        waiting.extendleft(reversed(behind))
        # closed lines later, by the quote that opens another field: not closed either
        problem = "a quote that is not closed" if state == "inside" or behind else "text behind a closing quote"
        yield RawRow(number, line.rstrip(b"\r\n"), problem)


def _row(number: int, text: bytes) -> RawRow:
    # pandas reads C strings: what is behind a NUL would be gone
    return RawRow(number, text.rstrip(b"\r\n"), "a NUL, which Postgres does not store" if b"\0" in text else None)


def _state_behind(line: bytes, *, is_inside: bool) -> Literal["closed", "inside", "broken"]:
    """Where a line leaves a row: at its end, inside a quoted field, or nowhere."""
    end = len(line.rstrip(b"\r\n"))
    at = -1 if is_inside else 0
    while True:
        if at < 0 or line[at : at + 1] == b'"':
            found = _inside_quotes(line, at + 1)
            assert found is not None
            at = found.end()
            if at == len(line):
                return "inside"
            at += 1  # the closing quote
            if at < end and line[at : at + 1] != b",":
                return "broken"
        else:
            comma = line.find(b",", at)
            at = end if comma < 0 else comma
        if at >= end:
            return "closed"
        at += 1  # the comma


def _chunk(rows: Iterator[RawRow]) -> list[RawRow]:
    chunk: list[RawRow] = []
    size = cells = 0
    for row in islice(rows, CHUNK_ROWS):
        chunk.append(row)
        size += len(row.text)
        cells += row.text.count(b",")
        if size >= CHUNK_BYTES or cells >= CHUNK_CELLS:
            break
    return chunk


def _with_count_checked(row: RawRow, columns: int) -> RawRow:
    if row.problem is not None or row.text.count(b",") < columns:
        return row
    fields, at = 1, 0
    while (found := _match_field(row.text, at)) is not None and found.group().endswith(b","):
        fields, at = fields + 1, found.end()
        if fields > COLUMNS_MAX:
            return row._replace(problem=f"more than {COLUMNS_MAX} fields, expected at most {columns}")
    return row if fields <= columns else row._replace(problem=f"{fields} fields, expected at most {columns}")


def _fields(rows: Sequence[bytes], columns: int) -> Iterator[list[str]]:
    """The fields of each row, at most so many.

    Rows are split together with others of about their width: pandas makes a field of each that a short one lacks.
    """
    widths = [min(columns, 1 << row.count(b",").bit_length()) for row in rows]
    split = {
        width: iter(_split([row for row, each in zip(rows, widths, strict=True) if each == width], width))
        for width in set(widths)
    }
    return (next(split[width]) for width in widths)


def _split(rows: Sequence[bytes], columns: int | None) -> list[list[str]]:
    """The fields of rows; bytes that are not UTF-8 are kept, as surrogates."""
    if not rows:
        return []
    frame = pandas.read_csv(
        BytesIO(BYTE_ORDER_MARK + b"\n".join(rows)),  # pandas takes one off, wherever in the file this is from
        header=None,
        names=None if columns is None else range(columns),
        index_col=False,
        dtype=object,
        na_filter=False,  # "NA" is text
        skip_blank_lines=False,
        lineterminator="\n",
        encoding="utf-8",
        encoding_errors="surrogateescape",
        low_memory=False,
    )
    if len(frame) != len(rows):
        raise FileSourceError(f"pandas made {len(frame)} rows of {len(rows)}, expected as many; nothing was loaded")
    return [list(fields) for fields in zip(*(frame[column].tolist() for column in frame.columns), strict=True)]


def _kind(sql_type: str) -> Kind:
    # a time may be milliseconds since 1970; times as text hold more than digits
    if sql_type.startswith(("numeric", "bigint", "integer", "smallint", "double", "real", "timestamp")):
        return "number"
    kinds: dict[str, Kind] = {"boolean": "boolean", "jsonb": "json"}
    return kinds.get(sql_type, "text")


def _document(names: Sequence[str], kinds: Sequence[Kind], fields: Sequence[str]) -> bytes:
    parts = [
        f"{name}:{encode_basestring(text) if kind == 'text' else _literal(kind, text)}"
        for name, kind, text in zip(names, kinds, fields, strict=False)
        if isinstance(text, str) and text
    ]
    return f"{{{','.join(parts)}}}".encode("utf-8", "surrogateescape")


def _literal(kind: Kind, text: str) -> str:
    if kind == "number" and _is_number(text):
        return text
    if kind == "boolean" and text in ("true", "false"):
        return text
    if kind == "json" and text[0] in "{[" and _is_json(text):
        return text
    return encode_basestring(text)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except (ValueError, UnicodeError):
        return False
    return True
