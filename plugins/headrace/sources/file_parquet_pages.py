"""The unpacked sizes that the page headers of a .parquet file state, read before any page is unpacked.

The footer's numbers are not reliable: pyarrow unpacks by the page headers. A header is a Thrift struct in the
compact protocol (https://parquet.apache.org/docs/file-format/data-pages/, https://github.com/apache/parquet-format).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

HEADER_BYTES = 4 * 1024  # of most headers; those with long statistics are read again with more
HEADER_BYTES_MAX = 16 * 1024 * 1024  # pyarrow's own limit
DEPTH_MAX = 8
DICTIONARY_PAGE = 2
DELTA_BYTE_ARRAY = 7  # a value's common prefix with the previous one is not repeated

# the fields of a header, by Thrift's numbers
_TYPE, _UNPACKED, _PACKED = 1, 2, 3
_OF_TYPE = {
    0: (5, 2),
    DICTIONARY_PAGE: (7, 2),
    3: (8, 4),
}  # per page type: its header's field, and the encoding's field in it
# compact protocol's types
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)


class NoPage(ValueError):
    """A page whose header cannot be read."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a column: its unpacked bytes, its number of values (nulls included), and their encoding."""

    is_dictionary: bool
    unpacked_bytes: int
    values: int
    encoding: int


def column_pages(path: Path, column: Any) -> Iterator[Page]:
    """Yield the pages of a column chunk, by its metadata in the footer; raises NoPage for a damaged one."""
    at: int = column.data_page_offset
    if column.has_dictionary_page and 0 < column.dictionary_page_offset < at:
        at = column.dictionary_page_offset
    end, size = at + column.total_compressed_size, path.stat().st_size
    if not 0 < at <= end <= size:
        raise NoPage(f"column {column.path_in_schema} is at [{at}, {end}) of {size} bytes")
    with path.open("rb") as file:
        while at < end:
            header, length = _header(file, at)
            packed = header.get(_PACKED)
            page = _page(header)
            if page is None or not isinstance(packed, int) or packed < 0:
                raise NoPage(f"column {column.path_in_schema} has no page at {at}")
            yield page
            at += length + packed


def _page(header: dict[int, Any]) -> Page | None:
    kind, unpacked = header.get(_TYPE), header.get(_UNPACKED)
    if kind not in _OF_TYPE or not isinstance(unpacked, int) or unpacked < 0:
        return None
    place, encoding_place = _OF_TYPE[kind]
    of_kind = header.get(place)
    if not isinstance(of_kind, dict):
        return None
    values, encoding = of_kind.get(1), of_kind.get(encoding_place)
    if not isinstance(values, int) or not isinstance(encoding, int) or values < 0:
        return None
    return Page(kind == DICTIONARY_PAGE, unpacked, values, encoding)


def _header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    """A page's header and its length."""
    size = HEADER_BYTES
    while True:
        file.seek(at)
        data = file.read(size)
        try:
            return _Struct(data).read()
        except IndexError:
            if len(data) < size or size >= HEADER_BYTES_MAX:
                raise NoPage(f"the header of the page at {at} does not end") from None
        size *= 16


class _Struct:
    """A struct of the compact protocol as a dict from field numbers to numbers and structs; others are skipped."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self) -> tuple[dict[int, Any], int]:
        return self._struct(0), self._at

    def _struct(self, depth: int) -> dict[int, Any]:
        if depth > DEPTH_MAX:
            raise NoPage("structs within structs")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            number = number + (head >> 4) if head >> 4 else self._zigzag()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._zigzag()
        if kind == _STRUCT:
            return self._struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(count):
                self._value(head & 15, depth + 1)
                self._data[self._at - 1]  # elements without bytes would loop without end
        elif kind == _BINARY:
            length = self._varint()
            self._at += length
            self._data[self._at - 1]
        elif kind in (_BYTE, _DOUBLE):
            self._at += 8 if kind == _DOUBLE else 1
        else:
            raise NoPage(f"a field of type {kind}")
        return None

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _varint(self) -> int:
        number = shift = 0
        while (byte := self._byte()) >= 0x80:
            number |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise NoPage("a number without an end")
        return number | byte << shift

    def _zigzag(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)
