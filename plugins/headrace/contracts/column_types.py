"""The types of columns: a table of how each type is declared, converted, checked and stored.

A type is added here alone. A declaration writes its Python type; `contracts.columns` takes its Postgres type from here,
`contracts.conversions` the conversion in front of pydantic's validator, `contracts.contract` the check of what a
validator left, `sources.file_csv` how its cells are read. The fast path knows the types of
`contracts.copy_field_types`; a contract with another one takes the slower way.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

from pydantic_core import PydanticCustomError

from headrace.contracts import rejection, strict_json
from headrace.contracts.numbers import FLOAT_MAX, beyond, bounded, exact, wrong
from headrace.contracts.reasons import Reason
from headrace.contracts.schema_values import text_of_schema_value
from headrace.contracts.strict_json import Malformed, Number
from headrace.contracts.times import EARLIEST, LATEST, parse_date, parse_time, parse_timestamp
from headrace.formats.values import Nanoseconds

INT64_MAX = 2**63 - 1
INTEGER_MAX = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": INT64_MAX}

Convert = Callable[[Any], Any]  # from a JSON value to the input of pydantic's exact validator
Store = Callable[[str, str, tzinfo, Any], Any]  # field, Postgres's type, zone, value: to the column's value
JsonType = Literal["text", "number", "boolean", "json"]


class Unstorable(Exception):
    """A field's value that its column cannot store; never raised outside contracts/."""

    def __init__(self, field: str, value: Any, expected: str, reason: str = Reason.BUSINESS_RULE) -> None:
        super().__init__(field)
        self.field = field
        self.reason = reason
        self.detail = f"{field}: found {rejection.shown(value)}, expected {expected}"


def integer_of(value: Any) -> int:
    """The integer that a JSON number or a text equals; raises PydanticCustomError for another value."""
    if type(value) is int:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    number = exact(value)
    if number is None or not number.is_finite():
        raise wrong("a whole number")
    if number.adjusted() > 40:
        raise beyond("a whole number of at most 40 digits")
    if number != number.to_integral_value():
        raise wrong("a whole number")
    return int(number)


def _integer_strictly(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise wrong("a whole number")


def _numeric(value: Any) -> Decimal:
    number = exact(value)
    if number is None:
        raise wrong("a number")
    return bounded(number)


def _numeric_strictly(value: Any) -> Decimal:
    if isinstance(value, str):
        raise wrong("a number")
    return _numeric(value)


def _double(value: Any) -> float:
    number = exact(value)
    if number is None:
        raise wrong("a number")
    found = float(number)
    if not abs(found) <= FLOAT_MAX:
        raise beyond(f"a number of at most {FLOAT_MAX:g}")
    if (not found and number) or (isinstance(value, int) and int(found) != value):
        raise beyond("a number that a double holds")
    return found


def _double_strictly(value: Any) -> float:
    if isinstance(value, str):
        raise wrong("a number")
    return _double(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise wrong("true or false")


def _boolean_strictly(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise wrong("true or false")


def text_of(value: Any) -> str:
    """A JSON text, or a JSON number as text; raises PydanticCustomError for another value."""
    if isinstance(value, str):
        return value
    if isinstance(value, Number) and value.text[-1].isdigit():  # not NaN or Infinity, which are not JSON
        return value.text
    if isinstance(value, int) and not isinstance(value, bool | Nanoseconds):
        return str(int(value))
    return text_of_schema_value(value)


def _text_strictly(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise wrong("text")


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise wrong("a UUID as text")
    try:
        return UUID(value)
    except ValueError as error:
        raise PydanticCustomError(Reason.INVALID_VALUE, "expected a UUID") from error


def bytes_of_text(encoding: str, value: Any) -> bytes:
    """Bytes from their text in a document: utf8, base64 or hex."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise wrong("bytes as text")
    try:
        if encoding == "base64":
            return b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
        return bytes.fromhex(value) if encoding == "hex" else value.encode()
    except ValueError as error:
        raise PydanticCustomError(Reason.INVALID_VALUE, "expected {encoding} text", {"encoding": encoding}) from error


def _timestamp(value: Any) -> datetime:
    return parse_timestamp(value)


def _unchanged(_field: str, _sql_type: str, _zone: tzinfo, value: Any) -> Any:
    return value  # a type of Postgres's that a declaration names: the server judges it


def _store_text(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if not isinstance(value, str):
        raise Unstorable(field, value, "text")
    if "\0" in value:
        raise Unstorable(field, value, "text without U+0000", Reason.NUL_CHARACTER)
    return value


def _store_integer(field: str, sql_type: str, _zone: tzinfo, value: Any) -> int:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unstorable(field, value, "a whole number")
    limit = INTEGER_MAX[sql_type]
    if not -limit - 1 <= value <= limit:
        raise Unstorable(field, value, f"a whole number of at most {limit}", Reason.OUT_OF_RANGE)
    return int(value)


def _store_numeric(field: str, sql_type: str, _zone: tzinfo, value: Any) -> Decimal:
    number = exact(None if isinstance(value, str) else value)
    if number is None:
        raise Unstorable(field, value, "a number")
    try:
        number = bounded(number)
    except PydanticCustomError as error:
        raise Unstorable(field, value, error.message().removeprefix("expected "), Reason.OUT_OF_RANGE) from error
    if "(" in sql_type:
        precision, scale = (int(part) for part in sql_type[8:-1].split(","))
        places = max(0, -int(number.normalize().as_tuple().exponent))
        if places > scale or (number and number.adjusted() >= precision - scale):
            raise Unstorable(field, value, f"a number that {sql_type} holds", Reason.OUT_OF_RANGE)
    return number


def _store_double(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise Unstorable(field, value, "a number")
    if not abs(value) <= FLOAT_MAX:
        raise Unstorable(field, value, f"a number of at most {FLOAT_MAX:g}", Reason.OUT_OF_RANGE)
    return float(value)


def _store_boolean(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> bool:
    if not isinstance(value, bool):
        raise Unstorable(field, value, "true or false")
    return value


def _store_timestamp(field: str, _sql_type: str, zone: tzinfo, value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise Unstorable(field, value, "a time")
    at = value.replace(tzinfo=zone) if value.tzinfo is None else value
    if not EARLIEST <= at <= LATEST:
        expected = f"a time from {EARLIEST:%Y-%m-%d} to {LATEST:%Y-%m-%d}, which every time zone can show"
        raise Unstorable(field, value, expected.replace("from 1-", "from 0001-"), Reason.OUT_OF_RANGE)
    return at


def _store_date(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> date:
    if not isinstance(value, date) or isinstance(value, datetime):
        raise Unstorable(field, value, "a date")
    return value


def _store_time(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> time:
    if not isinstance(value, time) or value.tzinfo is not None:
        raise Unstorable(field, value, "a time of day without a zone")
    return value


def _store_uuid(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise Unstorable(field, value, "a UUID")
    return value


def _store_bytes(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise Unstorable(field, value, "bytes")
    return value


def _store_json(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> bytes:
    return _json_text(field, value, strict_json.dumps)


def store_document(field: str, _sql_type: str, _zone: tzinfo, value: Any) -> bytes:
    """Like the other documents', JSON of a value that a schema made: bytes are base64, times ISO 8601."""
    return _json_text(field, value, strict_json.dumps_value)


def _json_text(field: str, value: Any, dumps: Callable[[Any], bytes]) -> bytes:
    try:
        text = dumps(value)
    except Malformed:
        raise
    except (TypeError, ValueError) as error:
        raise Unstorable(field, value, f"what JSON holds: {error}") from error
    if b"\\u0000" in text:
        try:
            strict_json.parse(f'{{"value":{text.decode()}}}')
        except Malformed as error:
            raise Unstorable(field, value, "text without U+0000", error.reason) from error
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnType:
    """A type of columns.

    python: how a declaration writes it; None where it is only named by SqlType. sql_type: Postgres's name, without
    precision. schema: what pydantic's core schema calls it. convert: in front of the validator; None where pydantic
    alone converts. convert_strictly: likewise, from JSON's own type alone. store: what the column gets of a value.
    empty_is_null: an empty text counts as null where the field may be null. has_bounds: a number may be out of range.
    json_type: how JSON writes a cell of a .csv.
    """

    python: type | None = None
    sql_type: str
    schema: str | None = None
    convert: Convert | None = None
    convert_strictly: Convert | None = None
    store: Store
    empty_is_null: bool = True
    has_bounds: bool = False
    json_type: JsonType = "text"


COLUMN_TYPES = (
    ColumnType(
        python=str, sql_type="text", schema="str", convert=text_of, convert_strictly=_text_strictly,
        store=_store_text, empty_is_null=False,
    ),
    ColumnType(
        python=int, sql_type="bigint", schema="int", convert=integer_of, convert_strictly=_integer_strictly,
        store=_store_integer, has_bounds=True, json_type="number",
    ),
    ColumnType(
        python=float, sql_type="double precision", schema="float", convert=_double, convert_strictly=_double_strictly,
        store=_store_double, has_bounds=True, json_type="number",
    ),
    ColumnType(
        python=Decimal, sql_type="numeric", schema="decimal", convert=_numeric, convert_strictly=_numeric_strictly,
        store=_store_numeric, has_bounds=True, json_type="number",
    ),
    ColumnType(
        python=bool, sql_type="boolean", schema="bool", convert=_boolean, convert_strictly=_boolean_strictly,
        store=_store_boolean, json_type="boolean",
    ),
    # a cell of digits is a number, milliseconds since 1970; times as text contain other characters
    ColumnType(
        python=datetime, sql_type="timestamptz", schema="datetime", convert=_timestamp, convert_strictly=_timestamp,
        store=_store_timestamp, json_type="number",
    ),
    ColumnType(
        python=date, sql_type="date", schema="date", convert=parse_date, convert_strictly=parse_date, store=_store_date
    ),
    ColumnType(
        python=time, sql_type="time", schema="time", convert=parse_time, convert_strictly=parse_time, store=_store_time
    ),
    ColumnType(python=UUID, sql_type="uuid", schema="uuid", convert=_uuid, convert_strictly=_uuid, store=_store_uuid),
    # converted by what the model's val_json_bytes says: contracts.conversions
    ColumnType(python=bytes, sql_type="bytea", schema="bytes", store=_store_bytes, empty_is_null=False),
    ColumnType(sql_type="jsonb", store=_store_json, empty_is_null=False, json_type="json"),
    *(
        ColumnType(sql_type=name, store=_store_integer, has_bounds=True, json_type="number")
        for name in ("smallint", "integer")
    ),
    ColumnType(sql_type="real", store=_unchanged, has_bounds=True, json_type="number"),
    *(
        ColumnType(sql_type=name, store=_unchanged, json_type="number")
        for name in ("timestamp", "timestamp without time zone", "timestamp with time zone")
    ),
)  # fmt: skip

_BY_SQL_TYPE: Mapping[str, ColumnType] = {found.sql_type: found for found in COLUMN_TYPES}
# a type of Postgres's that a declaration names: the server judges it
_ANOTHER = ColumnType(sql_type="", store=_unchanged)


def column_type(sql_type: str) -> ColumnType:
    """The type of a column, or of an array's elements."""
    return _BY_SQL_TYPE.get(sql_type.partition("[")[0].partition("(")[0], _ANOTHER)
