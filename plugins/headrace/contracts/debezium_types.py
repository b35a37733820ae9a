"""Types for fields that Debezium encodes as numbers or bytes, where no schema says so: JSON without its schema part.

Values that a schema has decoded are accepted as well, so that a declaration fits both. Times without a zone are what
the source's clock showed: the dataset's zone applies.
https://debezium.io/documentation/reference/3.3/connectors/postgresql.html#postgresql-data-types
"""

from base64 import b64decode
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainValidator
from pydantic_core import PydanticCustomError

from headrace.contracts import strict_json
from headrace.contracts.reasons import Reason
from headrace.contracts.strict_json import Malformed
from headrace.contracts.times import parse_date, parse_time, parse_timestamp
from headrace.formats.values import Nanoseconds

EPOCH = datetime(1970, 1, 1)
DAY_US = 86_400_000_000


def _whole(value: object, unit: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool | Nanoseconds):
        return int(value)
    raise PydanticCustomError(Reason.WRONG_TYPE, "expected {unit} as a whole number", {"unit": unit})


def _moment(micros: int) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=micros)
    except OverflowError as error:
        raise PydanticCustomError(Reason.OUT_OF_RANGE, "expected a time of the years 1 to 9999") from error


def _clock(micros: int) -> time:
    if not 0 <= micros < DAY_US:
        raise PydanticCustomError(Reason.OUT_OF_RANGE, "expected a time of day before 24:00")
    return (EPOCH + timedelta(microseconds=micros)).time()


def parse_days(value: object) -> date:
    """Days since 1970, io.debezium.time.Date."""
    return parse_date(value) if isinstance(value, date) else _moment(_whole(value, "days") * DAY_US).date()


def parse_millis(value: object) -> datetime:
    """Milliseconds since 1970, io.debezium.time.Timestamp."""
    if isinstance(value, datetime | Nanoseconds):
        return parse_timestamp(value)
    return _moment(_whole(value, "milliseconds since 1970") * 1_000)


def parse_micros(value: object) -> datetime:
    """Microseconds since 1970, io.debezium.time.MicroTimestamp."""
    if isinstance(value, datetime | Nanoseconds):
        return parse_timestamp(value)
    return _moment(_whole(value, "microseconds since 1970"))


def parse_nanos(value: object) -> datetime:
    """Nanoseconds since 1970, io.debezium.time.NanoTimestamp; digits after the microseconds are cut off."""
    if isinstance(value, datetime | Nanoseconds):
        return parse_timestamp(value)
    return _moment(_whole(value, "nanoseconds since 1970") // 1_000)


def parse_milli_time(value: object) -> time:
    """Milliseconds since midnight, io.debezium.time.Time."""
    return parse_time(value) if isinstance(value, time) else _clock(_whole(value, "milliseconds of a day") * 1_000)


def parse_micro_time(value: object) -> time:
    """Microseconds since midnight, io.debezium.time.MicroTime."""
    return parse_time(value) if isinstance(value, time) else _clock(_whole(value, "microseconds of a day"))


def parse_nano_time(value: object) -> time:
    """Nanoseconds since midnight, io.debezium.time.NanoTime; digits after the microseconds are cut off."""
    return parse_time(value) if isinstance(value, time) else _clock(_whole(value, "nanoseconds of a day") // 1_000)


def parse_json(value: object) -> Any:
    """The value of JSON text, io.debezium.data.Json."""
    if not isinstance(value, str):
        return value
    try:
        return strict_json.parse_value(value)
    except Malformed as error:
        raise PydanticCustomError(Reason.INVALID_VALUE, "expected JSON as text") from error


def scaled(scale: int) -> Any:
    """Mark, in Annotated, a decimal whose digits come as bytes in base64."""
    return BeforeValidator(partial(_decimal, scale))


def _decimal(scale: int, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        data = b64decode(value, validate=True)
    except ValueError as error:
        raise PydanticCustomError(Reason.INVALID_VALUE, "expected a decimal's bytes in base64") from error
    return Decimal(f"{int.from_bytes(data, 'big', signed=True)}e{-scale}")


EpochDate = Annotated[date, PlainValidator(parse_days)]
MilliTimestamp = Annotated[datetime, PlainValidator(parse_millis)]
MicroTimestamp = Annotated[datetime, PlainValidator(parse_micros)]
NanoTimestamp = Annotated[datetime, PlainValidator(parse_nanos)]
MilliTime = Annotated[time, PlainValidator(parse_milli_time)]
MicroTime = Annotated[time, PlainValidator(parse_micro_time)]
NanoTime = Annotated[time, PlainValidator(parse_nano_time)]
JsonText = Annotated[Any, PlainValidator(parse_json)]
