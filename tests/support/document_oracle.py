"""Which values of a format with schemas are orders, by other readers: Apache's avro, and protoc's classes.

Shares no code with formats/ and contracts/: what a schema means by a number is computed here from the number.
"""

import io
import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

import avro.errors
import avro.io
import avro.schema

from tests.support.fuzz_oracle import EXTRA, FIRST, LAST
from tests.support.order_schemas import NAMES, plain_avro

Document = dict[str, Any]
Read = Callable[[bytes], Document]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EXACT = Context(prec=5_000, Emax=100_000, Emin=-100_000)
DEFAULTS: dict[str, Any] = dict.fromkeys(NAMES) | {"tags": [], "attributes": {}, "status": "NEW"}
REQUIRED = ("id", "amount", "at")


class Undecided(Exception):
    """Bytes that the format's standard does not allow, but readers do."""


def order_row(document: Document) -> Document:
    """The row of a document; raises ValueError for one that breaks the contract."""
    row = DEFAULTS | {name: document.pop(name) for name in NAMES if name in document}
    if any(row[name] is None for name in REQUIRED):
        raise ValueError("a field is missing")
    if not -(2**63) <= row["id"] < 2**63 or not -(2**63) <= (row["nanos"] or 0) < 2**63:
        raise ValueError("no bigint")
    amount = row["amount"]
    if amount and (amount.adjusted() >= 30 or int(EXACT.normalize(amount).as_tuple().exponent) < -60):
        raise ValueError("no numeric that all can show")
    for name in ("at", "seen"):
        if row[name] is not None and not FIRST <= row[name] <= LAST:
            raise ValueError("beyond what every zone can show")
    if row["ratio"] is not None and not abs(row["ratio"]) <= 1e100:
        raise ValueError("no double that all can show")
    for name in ("note", "status"):
        if row[name] is not None and not 0 < len(row[name]) <= 255:
            raise ValueError("no identifier")
    if "\\u0000" in json.dumps([row[name] for name in ("tags", "attributes", "note", "status")] + [document]):
        raise ValueError("U+0000")
    return row | {EXTRA: document or None}


# by a field's logical type, or its type: the value of what is written
def _decimal(raw: bytes) -> Decimal:
    return EXACT.scaleb(Decimal(int.from_bytes(raw, "big", signed=True)), -4)


def _micros(raw: int) -> datetime:
    return EPOCH + timedelta(microseconds=raw)


def _clock(raw: int) -> time:
    if not 0 <= raw < 86_400_000_000:
        raise ValueError("no time of a day")
    return _micros(raw).time()


AVRO_VALUES: Mapping[str, Callable[[Any], Any]] = {
    "amount": _decimal,
    "at": _micros,
    "seen": lambda raw: None if raw is None else _micros(raw * 1_000),
    "day": lambda raw: date.fromordinal(date(1970, 1, 1).toordinal() + raw),
    "clock": _clock,
    "uid": UUID,
}


def avro_reader(schema: str) -> Read:
    """Read a record by its schema; raises Undecided or another exception for what is none."""
    reader = avro.io.DatumReader(avro.schema.parse(plain_avro(schema)))

    def read(payload: bytes) -> Document:
        data = io.BytesIO(payload)
        try:
            document: Any = reader.read(avro.io.BinaryDecoder(data))
        except avro.errors.InvalidAvroBinaryEncoding as error:
            raise Undecided if "Varint" in str(error) else ValueError from error
        except (avro.errors.SchemaResolutionException, IndexError) as error:
            # the number of a branch or a symbol below zero: fastavro counts from the end, as Python does
            raise Undecided if re.search(r"-\d", str(error)) else ValueError from error
        if data.tell() != len(payload):
            raise ValueError("bytes are left")
        return {name: AVRO_VALUES.get(name, lambda raw: raw)(raw) for name, raw in document.items()}

    return read


def message_reader(classes: Mapping[tuple[int, ...], Any]) -> Read:
    """Read a message behind its indexes, by the class that protoc generated for it."""

    def read(payload: bytes) -> Document:
        indexes, end = _indexes(payload)
        message = classes[indexes].FromString(payload[end:])
        size = message.ByteSize()
        message.DiscardUnknownFields()
        if message.ByteSize() != size:
            raise ValueError("a field that the schema does not have")
        return {
            field.name: _field(message, field)
            for field in message.DESCRIPTOR.fields
            if not field.has_presence or message.HasField(field.name)
        }

    return read


def _indexes(payload: bytes) -> tuple[tuple[int, ...], int]:
    """The indexes of a message, and where they end."""
    if payload[0] == 0:
        return (0,), 1
    numbers: list[int] = []
    end = 0
    while not numbers or len(numbers) <= numbers[0]:
        number = shift = 0
        while payload[end] >= 0x80:
            number |= (payload[end] & 0x7F) << shift
            shift, end = shift + 7, end + 1
        number |= payload[end] << shift
        end += 1
        numbers.append((number >> 1) ^ -(number & 1))
        if numbers[0] <= 0:
            raise ValueError("no indexes")
    return tuple(numbers[1:]), end


def _field(message: Any, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.name == "amount":
        if abs(value.scale) > 10_000:
            raise ValueError("no decimal")
        return EXACT.scaleb(Decimal(int.from_bytes(value.value, "big", signed=True)), -value.scale)
    if field.name in ("at", "seen", "nanos"):
        if not 0 <= value.nanos < 1_000_000_000:
            raise ValueError("no time")
        nanos = value.seconds * 1_000_000_000 + value.nanos
        return nanos if field.name == "nanos" else _micros(nanos // 1_000)
    if field.name in ("day", "clock"):
        return _plain_text(value, date if field.name == "day" else time)
    if field.name == "uid":
        return UUID(value) if value else None
    if field.name == "status":
        return {number: each.name for number, each in field.enum_type.values_by_number.items()}.get(value, str(value))
    if field.is_repeated:
        return dict(value) if field.name == "attributes" else list(value)
    if isinstance(value, float) and math.isnan(value):
        raise ValueError("no number")
    return value


def _plain_text(text: str, kind: Any) -> Any:
    """A day or a time of day; the contract accepts more ways to write it than this."""
    if not text:
        return None
    try:
        found = kind.fromisoformat(text)
    except ValueError as error:
        raise Undecided from error
    if found.isoformat() != text:
        raise Undecided
    return found
