"""The rows of a .csv file as JSON documents: a header, commas, quotes as in RFC 4180, UTF-8.

pandas splits rows into fields. This module first decides which lines form a row: pandas neither reports where a bad row
is nor continues after a quote that is never closed.
"""

import re
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from io import BytesIO
from json.encoder import encode_basestring
from pathlib import Path
from typing import Literal, NamedTuple

import orjson
import pandas

from headrace.contracts.column_types import JsonType, column_type
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection
from headrace.exceptions import FileSourceError
from headrace.sources.file_lines import BYTE_ORDER_MARK, FIRST_LINE, FileLine, numbered_lines

CHUNK_ROWS = 10_000
CHUNK_BYTES = 8 * 1024 * 1024
# In a chunk pandas makes as many fields per row as the longest row has: a chunk ends before these become too many
CHUNK_FIELDS = 100_000
FIELDS_PER_BYTE_MAX = 4
# A quoted field may span lines. In a longer one the quote was never closed.
ROW_LINES_MAX = 1_000
ROW_BYTES_MAX = 4 * 1024 * 1024
COLUMNS_MAX = 10_000  # pandas takes 20 us for each, with every chunk

# possessive: without backtracking, whose memory was many times the row's
_QUOTED = rb'"[^"]*+(?:""[^"]*+)*+"'
_UNQUOTED = rb'[^",\r\n][^,\r\n]*+'
_FIELD = rb"(?:%s|%s|)" % (_QUOTED, _UNQUOTED)
_is_row = re.compile(rb"%s(?:,%s)*+\r*+\n?" % (_FIELD, _FIELD)).fullmatch
_match_field = re.compile(rb'(?:%s|[^",][^,]*+|)(?:,|\Z)' % _QUOTED).match
_inside_quotes = re.compile(rb'[^"]*+(?:""[^"]*+)*+').match
_is_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII).fullmatch


class RawRow(NamedTuple):
    """A row's bytes and the number of its first line; problem: why it is malformed."""

    number: int
    text: bytes
    problem: str | None = None


class CsvRows:
    """A .csv or .csv.gz file. A record's offset is the number of its row's first line; the header is in line 1.

    A field becomes text; if the contract's column is a number, a boolean or JSON, and the field is valid JSON of that
    type, it is copied unchanged. An empty field, quoted or not, is absent.
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
        """The offset after the last line; raises FileSourceError for a header that cannot be used."""
        self._header(raw_rows(self._lines()))
        return FIRST_LINE + sum(1 for _ in self._lines())

    def records(self, start: int) -> Iterator[FileLine]:
        """Yield the rows below the header whose first line is at or after `start`."""
        rows = raw_rows(self._lines())
        names = self._header(rows)
        encoded = [encode_basestring(name) for name in names]
        json_types = [_json_type(self._types.get(name, "text")) for name in names]
        checked = (_with_count_checked(row, len(names)) for row in rows if row.number >= start)
        for chunk, width in _chunks(checked, len(names)):
            fields = iter(_split([row.text for row in chunk if row.problem is None], width))
            for row in chunk:
                if row.problem is None:
                    yield FileLine(row.number, _document(encoded, json_types, next(fields)))
                else:
                    yield FileLine(
                        row.number, row.text, Rejection(Reason.MALFORMED_ROW, f"line {row.number}: {row.problem}")
                    )

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
        if (columns := header.text.count(b",") + 1) > COLUMNS_MAX:
            raise self._refused(f"a header of {columns} columns", f"at most {COLUMNS_MAX}")
        names = [_name(field) for field in _split([header.text], None)[0]]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise self._refused(f"column {min(twice)!r} twice in the header", "one of each")
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
    # without surrounding blanks, and without quotes that a leading blank made part of the name
    name = field.strip(" \t")
    return name[1:-1].replace('""', '"') if len(name) > 1 and name[0] == name[-1] == '"' else name


RowState = Literal[
    "closed", "inside", "broken"
]  # after a line: the row is complete, a quoted field is open, or quotes are wrong


def raw_rows(lines: Iterator[tuple[int, bytes]]) -> Iterator[RawRow]:
    """Yield rows, including the header; blank lines are skipped.

    A row with wrong quotes is its first line only: the next line is read as the start of a row.
    """
    ahead = _Ahead(lines)
    while (item := ahead.pop()) is not None:
        number, line = item
        if not line.strip():
            continue
        if b'"' not in line or _is_row(line):
            yield _row(number, line)
            continue
        state = _state_behind(line, is_inside=False)
        if state == "broken":
            yield RawRow(number, line.rstrip(b"\r\n"), "text after a closing quote")
        elif state == "inside" and not ahead.closes(len(line)):
            # a later quote that opens another field does not close this one either
            yield RawRow(number, line.rstrip(b"\r\n"), "a quote that is not closed")
        else:
            yield _row(number, line if state == "closed" else line + ahead.take())


class _Ahead:
    """Lines that were searched for a closing quote and do not belong to a row yet.

    Each is searched once, even if many lines before it open a quote: the first `_inside` of them leave a quoted field
    open, and `_end` is the result of the next one.
    """

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self._lines = lines
        self._ahead: deque[tuple[int, bytes]] = deque()
        self._inside = 0
        self._inside_bytes = 0
        self._end: RowState | None = None

    def pop(self) -> tuple[int, bytes] | None:
        """The next line, to begin a row; None after the last one."""
        if not self._ahead:
            return next(self._lines, None)
        number, line = self._ahead.popleft()
        if self._inside:
            self._inside -= 1
            self._inside_bytes -= len(line)
        else:
            self._end = None
        return number, line

    def closes(self, size: int) -> bool:
        """Whether the quote that the previous line, of `size` bytes, opens is closed within the limit of a row."""
        while self._end is None and self._inside + 1 < ROW_LINES_MAX and size + self._inside_bytes < ROW_BYTES_MAX:
            if len(self._ahead) == self._inside:
                more = next(self._lines, None)
                if more is None:
                    break
                self._ahead.append(more)
            line = self._ahead[self._inside][1]
            state = _state_behind(line, is_inside=True)
            if state == "inside":
                self._inside += 1
                self._inside_bytes += len(line)
            else:
                self._end = state
        return self._end == "closed"

    def take(self) -> bytes:
        """The lines up to the closing quote."""
        taken = b"".join(self._ahead.popleft()[1] for _ in range(self._inside + 1))
        self._inside, self._inside_bytes, self._end = 0, 0, None
        return taken


def _row(number: int, text: bytes) -> RawRow:
    # pandas reads C strings, so it would drop what follows a NUL
    return RawRow(number, text.rstrip(b"\r\n"), "a NUL, which Postgres does not store" if b"\0" in text else None)


def _state_behind(line: bytes, *, is_inside: bool) -> RowState:
    """The state after a line that begins a row, or that continues its quoted field."""
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


def _chunks(rows: Iterator[RawRow], columns: int) -> Iterator[tuple[list[RawRow], int]]:
    """Groups of rows that fit into memory as fields, with the longest row's number of fields."""
    chunk: list[RawRow] = []
    size, width = 0, 1
    for row in rows:
        fields = 1 if row.problem is not None else min(row.text.count(b",") + 1, columns)
        widest = max(width, fields)
        if chunk and (len(chunk) + 1) * widest > max(CHUNK_FIELDS, FIELDS_PER_BYTE_MAX * (size + len(row.text))):
            yield chunk, width
            chunk, size, widest = [], 0, fields
        chunk.append(row)
        size, width = size + len(row.text), widest
        if len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES:
            yield chunk, width
            chunk, size, width = [], 0, 1
    if chunk:
        yield chunk, width


def _with_count_checked(row: RawRow, columns: int) -> RawRow:
    if row.problem is not None or row.text.count(b",") < columns:
        return row
    fields, at = 1, 0
    while (found := _match_field(row.text, at)) is not None and found.group().endswith(b","):
        fields, at = fields + 1, found.end()
    return row if fields <= columns else row._replace(problem=f"{fields} fields, expected at most {columns}")


def _split(rows: Sequence[bytes], columns: int | None) -> list[list[str]]:
    """The fields of rows; bytes that are not UTF-8 become surrogates."""
    if not rows:
        return []
    frame = pandas.read_csv(
        BytesIO(BYTE_ORDER_MARK + b"\n".join(rows)),  # pandas removes one from the first row of its input
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


def _json_type(sql_type: str) -> JsonType:
    json_type = column_type(sql_type).json_type
    return "text" if json_type != "number" and sql_type.endswith("[]") else json_type


def _document(names: Sequence[str], json_types: Sequence[JsonType], fields: Sequence[str]) -> bytes:
    parts = [
        f"{name}:{encode_basestring(text) if json_type == 'text' else _literal(json_type, text)}"
        for name, json_type, text in zip(names, json_types, fields, strict=False)  # a row may have fewer fields
        if isinstance(text, str) and text
    ]
    return f"{{{','.join(parts)}}}".encode("utf-8", "surrogateescape")


def _literal(json_type: JsonType, text: str) -> str:
    if json_type == "number" and _is_number(text):
        return text
    if json_type == "boolean" and text in ("true", "false"):
        return text
    if json_type == "json" and text[0] in "{[" and _is_json(text):
        return text
    return encode_basestring(text)


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except (ValueError, UnicodeError):
        return False
    return True
