"""A record becomes a row, or a rejection that says why.

A contract is a pydantic model. pydantic's own JSON parser does the work for records that are as they should
be; anything that looks odd is parsed a second time, slowly and strictly, because pydantic accepts what
Postgres or an accountant would not: duplicate keys, NaN, "1.50" for 1.50, more digits than a double holds.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, Field, PlainValidator, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from headrace.columns import INT64_MAX, INTEGER_MAX, KEY_LENGTH_MAX, SqlType, check_key, columns_of, is_bounded
from headrace.exceptions import DatasetError

DETAIL_MAX = 500  # characters of a dead letter's detail


# What fromisoformat makes of more than this is another moment, found by fuzzing: 10:00.5 is half a minute and not half
# a second, 2019-03-01+01:00 is a day and a zone and not one o'clock, +05:70 is no zone.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:"
    r"([Tt ]\d\d(?::\d\d(?::\d\d(?:[.,]\d+)?)?|\d\d(?:\d\d(?:[.,]\d+)?)?)?)"
    r" ?([Zz]|[+-]\d\d(?:[0-5]\d|:[0-5]\d(?::[0-5]\d)?)?)?"
    r")?",
    re.ASCII,
).fullmatch
PLAIN_TIMES = (
    "--T::",
    "-- ::",
)  # every third character of YYYY-MM-DDThh:mm:ss: that needs no pattern, which costs 0.4 us


def parse_timestamp(value: object) -> datetime:
    """Parse an ISO 8601 date and time, with or without a zone; a date alone is its midnight.

    Stricter than pydantic: digits alone are not a time, because seconds and milliseconds look alike. Stricter than
    datetime.fromisoformat, which bends what it does not know. Digits behind the microseconds are cut off.
    """
    if not isinstance(value, str):
        raise PydanticCustomError("wrong_type", "expected an ISO 8601 time as text")
    if len(value) != 19 or value[4::3] not in PLAIN_TIMES:
        found = _TIME(value)
        if found is None:
            raise PydanticCustomError(
                "invalid_timestamp", "expected YYYY-MM-DD, then a time hh:mm:ss and a zone, if any"
            )
        value = "".join(part for part in found.groups() if part).upper()
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        message = "expected an ISO 8601 time: {error}"
        raise PydanticCustomError("invalid_timestamp", message, {"error": str(error)}) from error


EPOCH_MS_MIN = 100_000_000_000  # 1973: any smaller number is seconds since 1970, sent by mistake
EPOCH_MS_MAX = 253_402_300_799_999  # the last millisecond of 9999


def parse_epoch_ms(value: object) -> datetime:
    """Parse milliseconds since 1970 UTC."""
    if type(value) is not int:
        raise PydanticCustomError("wrong_type", "expected milliseconds since 1970 as a whole number")
    if not EPOCH_MS_MIN <= value <= EPOCH_MS_MAX:
        raise PydanticCustomError("out_of_range", "expected milliseconds since 1970; these look like another unit")
    return datetime.fromtimestamp(value // 1000, UTC).replace(microsecond=value % 1000 * 1000)


Text = Annotated[str, Field(max_length=KEY_LENGTH_MAX)]
Identifier = Annotated[str, Field(min_length=1, max_length=KEY_LENGTH_MAX)]
Integer = Annotated[int, Field(ge=-(2**63), le=INT64_MAX), SqlType("bigint")]
# 15 significant digits are what a double carries there and back, and pydantic reads JSON numbers as doubles
Money = Annotated[Decimal, Field(max_digits=15, decimal_places=2), SqlType("numeric(15,2)")]
Timestamp = Annotated[datetime, PlainValidator(parse_timestamp)]
EpochMilliseconds = Annotated[datetime, PlainValidator(parse_epoch_ms)]
Float = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a record is a dead letter: a reason of one word, a sentence and the place in the JSON."""

    reason: str
    detail: str
    json_path: str = "$"


Row = list[Any]  # the contract's columns in order, then _extra as JSON text or None


class Contract:
    """A compiled pydantic model.

    key: the field that identifies an entity, or None where nothing does.
    keyed: whether a record's key must equal it; the lines of a file have no keys.
    zone: where times that name no zone were written.
    max_value_bytes: a longer value is a dead letter, `too_large`.
    json_columns: the places of a row that hold JSON text.
    key_index: the place of the key that a record's key must equal; None where there is none.
    """

    def __init__(
        self,
        model: type[BaseModel],
        *,
        key: str | None = None,
        keyed: bool = True,
        zone: tzinfo = UTC,
        max_value_bytes: int = 1024 * 1024,
    ) -> None:
        self.model = model
        self.columns = tuple(columns_of(model))
        self.key = key
        self._validate = model.__pydantic_validator__.validate_json
        self.zone = zone
        self.max_value_bytes = max_value_bytes
        fields = [column.field for column in self.columns]
        if key is not None:
            if key not in fields:
                raise DatasetError(f"{model.__name__}: key {key!r} is not a field of the contract")
            check_key(model, self.columns[fields.index(key)])
        self.key_index = fields.index(key) if key is not None and keyed else None
        if self.key_index is not None:
            info = model.model_fields[fields[self.key_index]]
            self._validate_key = _validator(info.annotation, info)
        self._times = [i for i, column in enumerate(self.columns) if column.sql_type == "timestamptz"]
        self.json_columns = [i for i, column in enumerate(self.columns) if column.sql_type == "jsonb"]
        self._json = [(i, column.field) for i, column in enumerate(self.columns) if column.sql_type == "jsonb"]
        self._integers = [
            (i, column.field, INTEGER_MAX[column.sql_type])
            for i, column in enumerate(self.columns)
            if column.sql_type in INTEGER_MAX and not is_bounded(model.model_fields[column.field], column.sql_type)
        ]
        decimals = [column.field for column in self.columns if column.sql_type.startswith("numeric")]
        # a decimal as text, with more digits than a double holds or so small that it is nothing: pydantic would take
        # it, changed
        self._odd_decimals = [
            re.compile(rb'"%s"\s*:\s*(?:"|[-+0-9.eE]{17}|[-0-9.]+[eE]-[0-9]{3})' % re.escape(name.encode())).search
            for name in decimals
        ]
        if decimals:
            self._odd_decimals.append(_ESCAPED_NAME)
        self._decimals = [(i, column.field) for i, column in enumerate(self.columns) if column.field in decimals]

    def decode(self, key: bytes | None, value: bytes | None) -> Row | Rejection:
        """Turn a record into a row or say why not; never raises for anything that a record can hold.

        A tombstone (value None) gives a row with nothing but its key.
        """
        if value is None:
            return self._tombstone(key)
        if len(value) > self.max_value_bytes:
            return Rejection("too_large", f"value has {len(value)} bytes, expected at most {self.max_value_bytes}")
        try:
            model = self._validate(value)
        except ValidationError as error:
            return self._reject(value, error.errors(include_url=False))
        row = list(model.__dict__.values())
        extra = model.__pydantic_extra__
        extra_json: bytes | None = None
        if self._json or self._is_odd(value, len(model.model_fields_set)) or (extra and _ODD_NUMBER(value)):
            document = _parse_strictly(value)
            if isinstance(document, Rejection):
                return document
            rejection = self._check_decimals(document, row)
            if rejection is not None:
                return rejection
            for i, field in self._json:
                if field in document:
                    row[i] = document[field]
            if extra:
                extra_json = orjson.dumps({name: document[name] for name in extra})
        elif extra:
            extra_json = orjson.dumps(extra)
        for i, _ in self._json:
            if row[i] is not None:
                row[i] = orjson.dumps(row[i])
        for i, field, limit in self._integers:
            if row[i] is not None and not -limit - 1 <= row[i] <= limit:
                detail = f"{field}: found {row[i]!r:.60}, expected a whole number of at most {limit}"
                return Rejection("out_of_range", detail, f"$.{field}")
        for i in self._times:
            if row[i] is not None and row[i].tzinfo is None:
                row[i] = row[i].replace(tzinfo=self.zone)
        if self.key_index is not None:
            expected = str(row[self.key_index]).encode()
            if key != expected:
                return self._key_mismatch(key, expected)
        row.append(extra_json)
        return row

    def _is_odd(self, value: bytes, fields: int) -> bool:
        # model_fields_set counts extra fields too. Every key is a quote, perhaps white space, and a colon: as
        # many as there are fields means that none came twice; text with an escaped quote before a colon, or a
        # nested object, is looked at again for nothing.
        return (
            value.count(b'":') != fields
            or b"\\u0000" in value
            or _SPACED_COLON(value) is not None
            or any(odd(value) is not None for odd in self._odd_decimals)
        )

    def _check_decimals(self, document: dict[str, Any], row: Row) -> Rejection | None:
        for i, field in self._decimals:
            if isinstance(document.get(field), str):
                return Rejection("wrong_type", f"{field}: found text, expected a number", f"$.{field}")
            if row[i] is not None and isinstance(document.get(field), orjson.Fragment):
                exact = Decimal(_fragment_text(document[field]))
                if exact != row[i]:
                    detail = f"{field}: found {str(exact)[:60]}, expected no more digits than the column holds"
                    return Rejection("out_of_range", detail, f"$.{field}")
        return None

    def _tombstone(self, key: bytes | None) -> Row | Rejection:
        row: Row = [None] * (len(self.columns) + 1)
        if self.key_index is None:
            return row
        column = self.columns[self.key_index]
        if key is None:
            return Rejection("missing_key", f"a tombstone without a key, expected {column.field} as its key")
        try:
            text = key.decode()
            found = int(text) if column.sql_type in INTEGER_MAX else text
            if str(found) != text or "\0" in text:
                raise ValueError("expected text without U+0000, or a number as JSON writes it")
            limit = INTEGER_MAX.get(column.sql_type, 0)
            if isinstance(found, int) and not -limit - 1 <= found <= limit:
                raise ValueError(f"expected a whole number of at most {limit}")
            row[self.key_index] = self._validate_key(found)
        except ValueError as error:
            message = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            return Rejection("key_mismatch", storable(f"tombstone key {key[:60]!r} is no {column.field}: {message}"))
        return row

    def _key_mismatch(self, key: bytes | None, expected: bytes) -> Rejection:
        field = self.columns[self.key_index or 0].field
        found = "no key" if key is None else f"key {key[:60]!r}"
        return Rejection("key_mismatch", storable(f"found {found}, expected {field} {expected[:60]!r}"), f"$.{field}")

    def _reject(self, value: bytes, errors: list[ErrorDetails]) -> Rejection:
        first = errors[0]
        if first["type"] == "json_invalid":
            document = _parse_strictly(value)
            if isinstance(document, Rejection):
                return document
            message = first["msg"].removeprefix("Invalid JSON: ")
            return Rejection(_json_reason(message), storable(message))
        detail = "; ".join(_describe(error) for error in errors[:5])
        return Rejection(_reason(first["type"]), storable(detail), _json_path(first["loc"]))


def _validator(annotation: Any, info: FieldInfo) -> Callable[[object], Any]:
    """pydantic's validator of one field alone."""
    adapter: TypeAdapter[Any] = TypeAdapter(Annotated[annotation, info])
    return adapter.validate_python


_SPACED_COLON = re.compile(rb'"\s+:').search
# a field's name with an escape in it, "REVENU\u0045", would hide the field from the patterns that look for its name
_ESCAPED_NAME = re.compile(rb'\\u[^"\\]*(?:\\.[^"\\]*)*"\s*:').search
# long or exponential numbers, NaN: a double would change them, and only fields without a type can hold them
_ODD_NUMBER = re.compile(rb"[0-9.]{16}|[0-9][eE][+-]?[0-9]{2}|NaN|nfinity").search


class _Refused(ValueError):
    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.detail)
        self.rejection = rejection


def _parse_strictly(value: bytes) -> dict[str, Any] | Rejection:
    """Parse what pydantic may be lenient about; numbers that Python would change stay as they were written."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return Rejection("invalid_utf8", f"byte {error.start} is 0x{value[error.start]:02x}, expected UTF-8")
    if text.startswith("\ufeff"):
        return Rejection("invalid_json", "starts with a byte order mark, expected JSON")
    if not text.strip():
        return Rejection("empty_payload", f"{len(value)} bytes of nothing, expected JSON; a tombstone has no value")
    try:
        document = _STRICT.decode(text)
        _refuse_nul(document)
    except _Refused as refused:
        return refused.rejection
    except RecursionError:
        return Rejection("too_deep", "nested more than 200 deep")
    except ValueError as error:
        return Rejection("invalid_json", storable(str(error)))
    return document if isinstance(document, dict) else Rejection("wrong_type", "expected a JSON object", "$")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        detail = f"{twice!r} stands twice in one object"
        raise _Refused(Rejection("duplicate_key", storable(detail), storable(f"$..{twice}")))
    return document


def _exact_number(text: str) -> Any:
    exponent = text.lower().partition("e")[2].lstrip("+-0")  # 1e-0005 is no large number
    if len(text) > 4300 or len(exponent) > 4 or (exponent and int(exponent) > 1000):
        raise _Refused(Rejection("out_of_range", f"a number of {len(text)} characters, expected one that is sane"))
    return orjson.Fragment(text)


def _exact_integer(text: str) -> Any:
    return int(text) if len(text) <= 18 else _exact_number(text)


def _no_constant(text: str) -> Any:
    raise _Refused(Rejection("invalid_json", f"{text} is not JSON"))


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_float=_exact_number,
    parse_int=_exact_integer,
    parse_constant=_no_constant,
)


def _fragment_text(fragment: orjson.Fragment) -> str:
    return orjson.dumps(fragment).decode()


def _refuse_nul(document: Any) -> None:
    waiting: list[tuple[tuple[str | int, ...], Any]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str) and "\0" in value:
            detail = "text holds U+0000, which Postgres stores neither as text nor as jsonb"
            raise _Refused(Rejection("nul_character", detail, _json_path(path)))
        if isinstance(value, dict):
            waiting.extend(((*path, name), name) for name in value)
            waiting.extend(((*path, name), item) for name, item in value.items())
        elif isinstance(value, list):
            waiting.extend(((*path, i), item) for i, item in enumerate(value))


def _json_reason(message: str) -> str:
    if "recursion limit" in message:
        return "too_deep"
    return "out_of_range" if "number out of range" in message else "invalid_json"


_REASONS = {
    "missing": "missing_field",
    "literal_error": "invalid_value",
    "enum": "invalid_value",
    "string_pattern_mismatch": "invalid_value",
    "string_too_long": "too_large",
    "too_long": "too_large",
    "string_too_short": "out_of_range",
    "finite_number": "out_of_range",
    "int_parsing_size": "out_of_range",
    "int_from_float": "wrong_type",
    "value_error": "business_rule",
    "assertion_error": "business_rule",
}
_OUT_OF_RANGE = ("greater_than", "less_than", "decimal_", "multiple_of", "datetime_", "date_", "time_")


def _reason(error_type: str) -> str:
    if error_type in _REASONS:
        return _REASONS[error_type]
    if error_type.endswith(("_type", "_parsing")):
        return "wrong_type"
    if error_type.startswith(_OUT_OF_RANGE):
        return "out_of_range"
    # what is left is a contract's own PydanticCustomError, whose type is the reason
    return error_type if re.fullmatch(r"[a-z][a-z0-9_]*", error_type) else "business_rule"


def _describe(error: ErrorDetails) -> str:
    where = ".".join(str(part) for part in error["loc"]) or "record"
    message = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "missing":
        return f"{where}: missing"
    return f"{where}: found {repr(error['input'])[:80]}, {message}"


def _json_path(location: tuple[str | int, ...]) -> str:
    path = "$"
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif re.fullmatch(r"\w+", part):
            path += f".{part}"
        else:
            path += f"[{part!r}]"
    return storable(path)


def storable(text: str) -> str:
    """Make text storable: no U+0000, no lone surrogate, not endless."""
    return text[:DETAIL_MAX].replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
