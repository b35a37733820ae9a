"""Size limits of a .parquet file: the unpacked size of its pages, and the size of its values.

A value may take almost no space in a page: an index into a dictionary, or a difference from the previous value. 100
million of them were 3 MB.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.compute

from headrace.sources.file_lines import Expansion
from headrace.sources.file_parquet_pages import DELTA_BYTE_ARRAY, Page, column_pages

BATCH_ROWS = 1_000
BATCH_BYTES = 16 * 1024 * 1024  # converted to text at once, plus at most one row
# The memory of pyarrow for a row group (a dictionary and a page of each column), as a multiple of a file's size limit
HELD_FACTOR = 4
FIXED_BYTES = 16  # at most, of a number or a time


class ParquetReadPlan:
    """How a file is read within its limits.

    batch_rows: rows per batch. dictionaries: columns that stay dictionary indexes until they are converted to text.
    repeated: these, and other columns whose values may be longer than their share of a page. may_exceed: whether these
    may exceed the limit, so that they must be measured.
    """

    def __init__(self, path: Path, file: Any, limit: Expansion) -> None:
        """Read all page headers of an open file; raises FileSourceError for too large a size, NoPage, OSError."""
        self.batch_rows = BATCH_ROWS
        self.dictionaries: set[str] = set()
        self.repeated: set[str] = set()
        self._limit = limit
        self._deltas: set[str] = set()
        self._unpacked = self._values_bytes = self._row_bytes = 0
        if file.metadata.num_rows > limit.rows:
            raise limit.too_many_rows()
        for group in range(file.metadata.num_row_groups):
            held, metadata = 0, file.metadata.row_group(group)
            if not metadata.num_rows:  # pyarrow skips it, and its offsets may be invalid
                continue
            for index in range(file.metadata.num_columns):
                column = _Column(file.schema.column(index))
                for page in column_pages(path, metadata.column(index)):
                    self._count(column, page)
                held += column.dictionary_bytes + column.page_bytes
                self._check(group, column, held)
                self._add(column)
        self.dictionaries -= self._deltas  # pyarrow cannot read these as dictionaries
        self.may_exceed = self._values_bytes > limit.bytes
        self.batch_rows = max(min(BATCH_ROWS, limit.free_bytes // max(self._row_bytes, 1)), 1)

    def measure(self, file: Any) -> None:
        """Raise FileSourceError if the repeated values are too large; `file` is opened with the dictionaries."""
        left = self._limit.bytes
        for batch in file.iter_batches(batch_size=self.batch_rows, columns=sorted(self.repeated)):
            left -= decoded_bytes(batch)
            if left < 0:
                raise self._limit.too_many_bytes()

    def _count(self, column: "_Column", page: Page) -> None:
        column.add(page)
        self._unpacked += page.unpacked_bytes
        if self._unpacked > self._limit.bytes:
            raise self._limit.too_many_bytes()
        if column.values > self._limit.rows:
            raise self._limit.too_many_rows()

    def _check(self, group: int, column: "_Column", held: int) -> None:
        held_max = self._limit.free_bytes * HELD_FACTOR
        if held > held_max or column.row_bytes > held_max:
            raise self._limit.error(
                f"column {column.path!r} of row group {group} takes {max(held, column.row_bytes)} bytes of memory, "
                f"expected at most {held_max}: pages of about 1 MB, no list in DELTA_BYTE_ARRAY"
            )

    def _add(self, column: "_Column") -> None:
        self._values_bytes += column.value_bytes * column.values
        if column.is_delta or not column.is_text:
            self._row_bytes = max(self._row_bytes, column.value_bytes)
        if column.is_text and column.is_delta:
            self._deltas.add(column.path)
        elif column.is_text and column.dictionary_bytes:
            self.dictionaries.add(column.path)
        if column.value_bytes > FIXED_BYTES:
            self.repeated.add(column.path)


class _Column:
    """The unpacked size of a column chunk's pages, and the possible size of its values."""

    def __init__(self, schema: Any) -> None:
        self.path: str = schema.path
        self.is_text = schema.physical_type == "BYTE_ARRAY"
        self.is_delta = False
        self.dictionary_bytes = self.page_bytes = self.values = 0
        self._width: int = schema.length if schema.physical_type == "FIXED_LEN_BYTE_ARRAY" else FIXED_BYTES
        self._is_list = schema.max_repetition_level > 0

    def add(self, page: Page) -> None:
        """Count a page."""
        if page.is_dictionary:
            self.dictionary_bytes += page.unpacked_bytes
        else:
            self.page_bytes = max(self.page_bytes, page.unpacked_bytes)
            self.values += page.values
        self.is_delta |= page.encoding == DELTA_BYTE_ARRAY

    @property
    def value_bytes(self) -> int:
        """The longest possible value that takes almost no space in its page."""
        if not self.is_text:
            return self._width
        return max(self.dictionary_bytes, self.page_bytes if self.is_delta else 0)

    @property
    def row_bytes(self) -> int:
        """The memory that pyarrow needs for one row, which may hold all values of a list, without dictionaries."""
        if self._is_list and (self.is_delta or not self.is_text):
            return self.value_bytes * self.values
        return 0


def parts(batch: Any) -> Iterator[tuple[Any, int]]:
    """A batch in parts of at most BATCH_BYTES, or of one row, and the bytes of each."""
    size = decoded_bytes(batch)
    if batch.num_rows <= 1 or size <= BATCH_BYTES:
        yield batch, size
        return
    half = batch.num_rows // 2
    yield from parts(batch.slice(0, half))
    yield from parts(batch.slice(half))


def decoded_bytes(array: Any) -> int:
    """The bytes of an array's or a batch's values, with dictionary values counted for each use."""
    if isinstance(array, pyarrow.RecordBatch):
        return sum(map(decoded_bytes, array.columns))
    kinds, kind = pyarrow.types, array.type
    if kinds.is_dictionary(kind):
        lengths = pyarrow.compute.binary_length(array.dictionary).cast("int64")
        return 4 * len(array) + (pyarrow.compute.sum(lengths.take(array.indices)).as_py() or 0)
    if kinds.is_map(kind):
        begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        both = array.keys.slice(begin, end - begin), array.items.slice(begin, end - begin)
        return 8 * len(array) + sum(map(decoded_bytes, both))
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        return 8 * len(array) + decoded_bytes(array.flatten())
    if kinds.is_struct(kind):
        return len(array) + sum(map(decoded_bytes, array.flatten()))
    return int(array.nbytes)
