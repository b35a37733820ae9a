"""The rows of a .parquet file as JSON documents.

Read with pyarrow, a few rows at a time: pandas' reader loads the whole file, and turns integers into floats if one is
null.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import NOT_KEPT, Rejection
from headrace.exceptions import FileSourceError
from headrace.sources.file_csv import COLUMNS_MAX, check_columns
from headrace.sources.file_lines import FIRST_LINE, LINE_BYTES_MAX, Expansion, FileLine, check_regular
from headrace.sources.file_parquet_bounds import ParquetReadPlan, parts

# floats hold every integer below this limit; pandas writes ids as floats if one is missing
EXACT_BELOW = {"halffloat": 2**11, "float": 2**24, "double": 2**53}
# errors for files that cannot be read and for values that Python cannot hold
BROKEN = (pyarrow.ArrowException, ValueError, OverflowError)


class ParquetRows:
    """A .parquet file. A record's offset is its row's number, from 1.

    Types are kept: text is text, numbers keep their digits, times become ISO 8601 text. Null fields are absent.
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
        """The offset after the last row; raises FileSourceError for wrong columns or too large a file."""
        with self._opened() as file, self._errors():
            names = file.schema_arrow.names
            if len(names) > COLUMNS_MAX:
                raise FileSourceError(
                    f"{self._path}: found {len(names)} columns, expected at most {COLUMNS_MAX}; nothing was loaded"
                )
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            if twice:
                raise FileSourceError(
                    f"{self._path}: found column {twice[0]!r} twice, expected one of each; nothing was loaded"
                )
            check_columns(self._path, names, self._types, self._required)
            reading = self._read_plan(file)
        if reading.may_exceed:
            with self._opened(reading.dictionaries) as file, self._errors():
                reading.measure(file)
        return FIRST_LINE + int(file.metadata.num_rows)

    def records(self, start: int) -> Iterator[FileLine]:
        """Yield the rows from `start` on; one above LINE_BYTES_MAX has no value, and a rejection."""
        with self._opened() as file, self._errors():
            reading = self._read_plan(file)
        with self._opened(reading.dictionaries) as file, self._errors():
            number = FIRST_LINE
            for group in range(file.metadata.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if number + rows <= start:
                    number += rows
                    continue
                for batch in file.iter_batches(batch_size=reading.batch_rows, row_groups=[group]):
                    for part, size in parts(batch):
                        for value, rejection in self._documents(part, size):
                            if number >= start:
                                yield FileLine(number, value, rejection)
                            number += 1

    def _documents(self, batch: Any, size: int) -> Iterable[tuple[bytes | None, Rejection | None]]:
        if size <= LINE_BYTES_MAX:
            return _documents(batch, self._types)
        detail = f"row has {size} bytes, expected at most {LINE_BYTES_MAX}: they are {NOT_KEPT}"
        return [(None, Rejection(Reason.TOO_LARGE, detail))]

    def _read_plan(self, file: Any) -> ParquetReadPlan:
        return ParquetReadPlan(self._path, file, Expansion(self._path, self._unpacked_bytes))

    def _opened(self, dictionaries: Iterable[str] = ()) -> Any:
        check_regular(self._path, self._path.stat().st_mode)
        with self._errors():
            return pyarrow.parquet.ParquetFile(self._path, read_dictionary=sorted(dictionaries))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except (*BROKEN, OSError) as error:  # OSError: compressed and damaged
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> FileSourceError:
        text = " ".join(str(error).split())
        return FileSourceError(f"{self._path}: cannot be read as Parquet: {text}; name a file that is complete")


def _documents(batch: Any, types: Mapping[str, str]) -> Iterator[tuple[bytes, Rejection | None]]:
    names = batch.schema.names
    encoded = [encode_basestring(name) for name in names]
    columns = [_texts(column) for column in batch.columns]
    ids = {}  # columns of floats for the contract's integers or texts, by index
    for index, (name, column) in enumerate(zip(names, batch.columns, strict=True)):
        limit = EXACT_BELOW.get(str(column.type))
        if limit and types.get(name, "").startswith(("bigint", "integer", "smallint", "text")):
            ids[index] = [
                _whole(name, value, text, limit) for value, text in zip(column.to_pylist(), columns[index], strict=True)
            ]
            columns[index] = [text for text, _ in ids[index]]
    for row, values in enumerate(zip(*columns, strict=True)):
        parts = [f"{name}:{text}" for name, text in zip(encoded, values, strict=True) if text is not None]
        rejection = next((found[row][1] for found in ids.values() if found[row][1]), None)
        yield f"{{{','.join(parts)}}}".encode("utf-8", "surrogateescape"), rejection


def _whole(name: str, value: float | None, text: str | None, limit: int) -> tuple[str | None, Rejection | None]:
    """A float as the integer that it equals; a fraction is left to the contract."""
    if value is None or not value.is_integer():  # also NaN and infinities
        return text, None
    if abs(value) < limit:
        return str(int(value)), None
    return text, Rejection(
        Reason.OUT_OF_RANGE,
        f"{name}: found the float {text}, expected a whole number below {limit}, from where on floats skip some; write "
        "the column as whole numbers or text",
        f"$.{name}",
    )


def _texts(column: Any) -> list[str | None]:
    """A column's values as JSON text."""
    kinds = pyarrow.types
    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kinds.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pyarrow.timestamp(column.type.unit, "UTC"))
    if kinds.is_timestamp(column.type) or kinds.is_date(column.type) or kinds.is_time(column.type):
        # arrow's own text: Python's datetime ends at microseconds and at the year 9999
        return [None if text is None else encode_basestring(text) for text in column.cast(pyarrow.string()).to_pylist()]
    if kinds.is_floating(column.type):
        # the shortest digits that round-trip, also for a float of 32 bits
        return [_float(text) for text in column.cast(pyarrow.string()).to_pylist()]
    return [None if value is None else _json(value) for value in column.to_pylist()]


def _float(text: str | None) -> str | None:
    if text is None or math.isfinite(float(text)):
        return text
    return "NaN"  # not JSON: the contract rejects it


def _json(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case Decimal():
            return format(value, "f")
        case float():
            return repr(value) if math.isfinite(value) else "NaN"
        case str():
            return encode_basestring(value)
        case bytes():
            return encode_basestring(value.decode("utf-8", "surrogateescape"))
        case date() | time():  # datetime is a date
            return encode_basestring(value.isoformat())
        case dict():
            return "{" + ",".join(f"{encode_basestring(str(name))}:{_json(item)}" for name, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_json, value)) + "]"
    return encode_basestring(str(value))
