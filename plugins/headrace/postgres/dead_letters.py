"""Dead letters: records that their contract rejected, with bytes, coordinate and reason."""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import orjson
from psycopg import Cursor
from psycopg.sql import Identifier

from headrace.contracts.rejection import Rejection
from headrace.postgres.copy import copy_rows, json_text
from headrace.record import Headers, Record
from headrace.times import record_time

TABLE = Identifier("headrace", "dead_letters")
COLUMNS = (
    ("dataset", "text"),
    ("generation", "integer"),
    ("partition", "integer"),
    ("offset", "bigint"),
    ("key", "bytea"),
    ("value", "bytea"),
    ("headers", "jsonb"),
    ("timestamp", "timestamptz"),
    ("reason", "text"),
    ("detail", "text"),
    ("json_path", "text"),
    ("batch_id", "uuid"),
    ("schema_id", "integer"),
)
REASON = COLUMNS.index(("reason", "text"))  # its index in a row


def dead_letter_row(
    dataset: str, generation: int, partition: int, record: Record, rejection: Rejection, batch_id: UUID
) -> Sequence[Any]:
    """A record and its rejection as a row in the order of COLUMNS."""
    return (
        dataset,
        generation,
        partition,
        record.offset,
        record.key,
        record.value,
        json_text(headers_json(record.headers)),
        record_time(record.timestamp),
        rejection.reason,
        rejection.detail,
        rejection.json_path,
        batch_id,
        rejection.schema_id,
    )


def copy_dead_letters(cursor: Cursor[Any], rows: Sequence[Sequence[Any]]) -> None:
    """COPY rows, in the order of COLUMNS, into headrace.dead_letters."""
    copy_rows(cursor, TABLE, COLUMNS, rows)


def headers_json(headers: Headers) -> bytes | None:
    """A record's headers as JSON text, in order, repeats included; None if there are none.

    [{"key": ..., "value": ...}]; bytes that Postgres cannot store as text are base64, under "base64" and "key_base64".
    """
    if not headers:
        return None
    return orjson.dumps([_header(key, value) for key, value in headers])


def headers_of(stored: Sequence[Mapping[str, str | None]] | None) -> list[tuple[str | bytes, bytes | None]]:
    """The headers of a record from the stored result of `headers_json`."""
    return [_pair(header) for header in stored or ()]


def _pair(header: Mapping[str, str | None]) -> tuple[str | bytes, bytes | None]:
    raw_key = header.get("key_base64")
    key: str | bytes = header.get("key") or ""
    if raw_key is not None:
        key = b64decode(raw_key)
        with suppress(UnicodeDecodeError):  # U+0000 is UTF-8, but jsonb cannot hold it
            key = key.decode()
    raw_value, value = header.get("base64"), header.get("value")
    if raw_value is not None:
        return key, b64decode(raw_value)
    return key, None if value is None else value.encode()


def _header(key: str | bytes, value: bytes | None) -> dict[str, str | None]:
    header: dict[str, str | None] = {}
    raw_key = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else key
    key_text = _text(raw_key)
    if key_text is None:
        header["key_base64"] = b64encode(raw_key).decode()
    else:
        header["key"] = key_text
    if value is None:
        header["value"] = None
    elif (text := _text(value)) is None:
        header["base64"] = b64encode(value).decode()
    else:
        header["value"] = text
    return header


def _text(raw: bytes) -> str | None:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
