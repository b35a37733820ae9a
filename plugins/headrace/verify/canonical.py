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

from headrace.contracts.contract import Deletion
from headrace.dataset import Dataset
from headrace.postgres.dead_letters import headers_json
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


class CanonicalRow:
    """The canonical form of a dataset's rows: the contract's columns, then those of BOOKKEEPING."""

    def __init__(self, dataset: Dataset) -> None:
        columns = dataset.compiled.columns
        self.names = [column.name for column in columns] + list(BOOKKEEPING)
        self.fields = {column.name: column.source_names[0] for column in columns if not column.required}
        self._contract = dataset.compiled
        self._decode = dataset.compiled.decode
        self._filter = dataset.filter
        self._masks = dataset.compiled.masks
        types = [column.sql_type for column in columns] + ["timestamptz", "bytea", "jsonb", "boolean", "jsonb"]
        self._times = [index for index, name in enumerate(types) if name in ("timestamptz", "timestamptz[]")]
        self._json = [index for index, name in enumerate(types) if name == "jsonb"]

    def of_record(self, record: VisibleRecord) -> list[Any] | str:
        """The row that today's contract makes of a record, or the reason of its rejection."""
        _, key, value, headers, timestamp = record
        decoded = getattr(headers, "rejection", None) or self._decode(key, value, headers)
        if not isinstance(decoded, list):
            return f"{decoded.reason}: {decoded.detail}"
        extra, deleted = decoded.pop(), isinstance(decoded, Deletion)
        decoded += (record_time(timestamp), self.stored_key(key, headers), headers_json(headers), deleted, extra)
        for index in self._times:
            decoded[index] = _microseconds(decoded[index])
        return self._parsed(decoded)

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

    def of_stored(self, values: Sequence[Any]) -> list[Any]:
        """What Postgres stores, read through a cursor of `canonical_cursor`."""
        return self._parsed(list(values))

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

    def _parsed(self, row: list[Any]) -> list[Any]:
        for index in self._json:
            if row[index] is not None:
                row[index] = json_value(row[index])
        return row


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
