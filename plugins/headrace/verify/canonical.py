"""One form for a row as the contract decodes it and for the same row as Postgres stores it.

Times are microseconds, JSON is compared by value and numbers exactly: a cent, a microsecond or a digit shows.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from hashlib import blake2b
from typing import Any

from psycopg import Connection, ServerCursor
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format

from headrace.contracts.children import ParentRow
from headrace.contracts.contract import Deletion
from headrace.dataset import Dataset
from headrace.postgres.dead_letters import headers_json
from headrace.postgres.staged_tables import count_column
from headrace.record import Headers
from headrace.times import record_time
from headrace.verify.readers import VisibleRecord

POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
EXACT = Context(prec=200_000)  # Postgres's numeric ends at 131,072 digits: nothing is rounded

BOOKKEEPING = ("_timestamp", "_key", "_headers", "_deleted", "_extra")


class _Microseconds(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> int:
        """Read a timestamptz as microseconds: Python's datetime has neither infinity nor years before 1."""
        return int.from_bytes(data, "big", signed=True)


class _JsonText(Loader):
    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        """Read a jsonb's text after its version byte."""
        return bytes(data)[1:]


class _Form:
    """Which values of a row are times, and which JSON, by their Postgres types."""

    def __init__(self, types: Sequence[str]) -> None:
        self._times = [index for index, name in enumerate(types) if name in ("timestamptz", "timestamptz[]")]
        self._json = [index for index, name in enumerate(types) if name == "jsonb"]

    def decoded(self, row: list[Any]) -> list[Any]:
        """A row that a contract made."""
        for index in self._times:
            row[index] = _microseconds(row[index])
        return self.stored(row)

    def stored(self, row: list[Any]) -> list[Any]:
        """A row that `canonical_cursor` read."""
        for index in self._json:
            if row[index] is not None:
                row[index] = json_value(row[index])
        return row


class CanonicalRow:
    """The canonical form of a dataset's rows: the contract's columns, then those of BOOKKEEPING.

    names: of the columns that are read. titles: of the values of a row: behind these, the elements of each child.
    """

    def __init__(self, dataset: Dataset) -> None:
        columns = dataset.compiled.columns
        children = dataset.compiled.children.each if dataset.compiled.children is not None else ()
        self.count_names = [count_column(child.name) for child in children]
        self.names = [column.name for column in columns] + list(BOOKKEEPING) + self.count_names
        self.titles = self.names + [dataset.child_table_name(child.name) for child in children]
        self._elements = [
            _Form([*(column.sql_type for column in child.contract.columns), "jsonb"]) for child in children
        ]
        self.fields = {column.name: column.source_names[0] for column in columns if not column.required}
        self._contract = dataset.compiled
        self._decode = dataset.compiled.decode
        self._filter = dataset.filter
        self._masks = dataset.compiled.masks
        types = [column.sql_type for column in columns] + ["timestamptz", "bytea", "jsonb", "boolean", "jsonb"]
        self._form = _Form(types)

    def of_record(self, record: VisibleRecord) -> list[Any] | str:
        """The row that today's contract makes of a record, or the reason of its rejection."""
        _, key, value, headers, timestamp = record
        decoded = getattr(headers, "rejection", None) or self._decode(key, value, headers)
        if not isinstance(decoded, list):
            return f"{decoded.reason}: {decoded.detail}"
        extra, deleted = decoded.pop(), isinstance(decoded, Deletion)
        decoded += (record_time(timestamp), self.stored_key(key, headers), headers_json(headers), deleted, extra)
        row = list(self._form.decoded(decoded))
        if not self._elements:
            return row
        elements = decoded.elements if isinstance(decoded, ParentRow) else None
        counts = [None if elements is None else len(elements[i]) for i, _ in enumerate(self._elements)]
        return (
            row
            + counts
            + [
                [form.decoded(list(each)) for each in (elements[i] if elements is not None else ())]
                for i, form in enumerate(self._elements)
            ]
        )

    @property
    def masked(self) -> list[str] | None:
        """What the contract of today masks, as headrace.dead_letters.masked has it."""
        return None if self._masks is None else self._masks.names

    def stored_key(self, key: bytes | None, headers: Headers) -> bytes | None:
        """A record's key as `_key` holds it."""
        return key if self._masks is None else self._masks.key(key, headers)

    def is_ignored(self, record: VisibleRecord) -> bool:
        """Whether the declaration of today leaves a record out."""
        _, key, value, headers, _ = record
        is_record = getattr(headers, "rejection", None) is None
        return is_record and self._filter is not None and self._filter.ignores(key, value, headers)

    def document(self, record: VisibleRecord) -> Any:
        """A record's document, for comparison."""
        _, _, value, headers, _ = record
        document = self._contract.decoder.decode(value or b"", headers).document
        return json_value(document) if self._contract.is_text(document) else document

    def of_stored(self, values: Sequence[Any], elements: Sequence[Sequence[Sequence[Any]]] = ()) -> list[Any]:
        """What Postgres stores, read through cursors of `canonical_cursor`. elements: of each child."""
        row = self._form.stored(list(values))
        return row + [
            [form.stored(list(each)) for each in rows] for form, rows in zip(self._elements, elements, strict=True)
        ]

    def is_before_children(self, stored: Sequence[Any], differing: Sequence[int]) -> bool:
        """Whether a row differs only by elements of a child that was declared later: it counts none."""
        names = {self.titles[i] for i in differing}
        later = {name for name in self.count_names if stored[self.titles.index(name)] is None}
        tables = {self.titles[len(self.names) + i] for i, name in enumerate(self.count_names) if name in later}
        return bool(later & names) and names <= later | tables | {"_extra"}

    def of_dead_letter(self, record: VisibleRecord, *, is_masked: bool = False) -> list[Any]:
        """The expected contents of a record's dead letter: key, value, headers and time, unchanged or masked."""
        _, key, value, headers, timestamp = record
        if is_masked and self._masks is not None:
            key, value = self._masks.key(key, headers), self._masks.value(value, headers)
        at = record_time(timestamp)
        text = headers_json(headers)
        return [
            key,
            value,
            None if text is None else json_value(text),
            _microseconds(at),
        ]

    def of_stored_dead_letter(self, values: Sequence[Any]) -> list[Any]:
        """The same of headrace.dead_letters, read through a cursor of `canonical_cursor`."""
        key, value, headers, at = values
        return [key, value, None if headers is None else json_value(headers), at]


def canonical_cursor(connection: Connection[Any], name: str) -> ServerCursor[Any]:
    """A server-side cursor that reads times as microseconds since 2000 and jsonb as text."""
    cursor = connection.cursor(name, binary=True)
    cursor.itersize = 5_000
    cursor.adapters.register_loader("timestamptz", _Microseconds)
    cursor.adapters.register_loader("jsonb", _JsonText)
    return cursor


def _microseconds(value: Any) -> Any:
    """A time, or each of a list of times, as `canonical_cursor` reads it."""
    if isinstance(value, list):
        return [_microseconds(item) for item in value]
    return None if value is None else (value - POSTGRES_EPOCH) // MICROSECOND


def json_value(text: bytes | str) -> Any:
    """JSON for comparison: every number as its exact value, told apart from text by a NUL that jsonb cannot hold."""
    return json.loads(text, parse_int=_number, parse_float=_number)


def digest(row: Sequence[Any]) -> str:
    """The blake2b hash of a canonical row, or of a few of its values, as 16 hexadecimal digits."""
    text = "\x1f".join(_text(value) for value in row)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    return _text(value).replace("\0", "")[:80]


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Decimal):
        return _number(str(value))
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_text)
    return repr(value)


def _number(text: str) -> str:
    number = EXACT.normalize(Decimal(text))
    return f"\0{number}" if number else "\0" + "0"  # numeric has no -0
