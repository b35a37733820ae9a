"""The values of Kafka Connect's and Debezium's semantic types, by the name that a schema gives them.

Times of io.debezium.time without a zone are what the source's clock showed: the dataset's zone applies. A time that
Python cannot show becomes Nanoseconds, which the contract refuses as out of range.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from headrace.formats.values import Nanoseconds

Reader = Callable[[Any, Mapping[str, Any]], Any]  # from a value and the parameters of its schema

TIME, DATA = "io.debezium.time", "io.debezium.data"
CONNECT = "org.apache.kafka.connect.data"
DECIMAL = f"{CONNECT}.Decimal"
VARIABLE_SCALE_DECIMAL = f"{DATA}.VariableScaleDecimal"
EPOCH = datetime(1970, 1, 1)  # without a zone, as these times are
FIRST_DAY = date(1970, 1, 1)
DAY_US = 86_400_000_000
BITS_MAX = 2**31 - 1  # the length that the schema of a bit varying without a limit states


def variable_scale_decimal(value: Mapping[str, Any]) -> Decimal:
    """A decimal with the scale that it brings itself."""
    return _scaled(value["value"], int(value["scale"]))


def _scaled(data: bytes, scale: int) -> Decimal:
    return Decimal(f"{int.from_bytes(data, 'big', signed=True)}e{-scale}")


def _decimal(value: bytes, parameters: Mapping[str, Any]) -> Decimal:
    return _scaled(value, int(parameters["scale"]))


def _date(value: int, _: Mapping[str, Any]) -> Any:
    try:
        return FIRST_DAY + timedelta(days=value)
    except OverflowError:
        return Nanoseconds(value * DAY_US * 1_000, has_zone=False)


def _time(unit_us: int, divisor: int = 1) -> Reader:
    def read(value: int, _: Mapping[str, Any]) -> Any:
        micros = value * unit_us // divisor
        # 24:00:00, which Postgres knows and Python does not
        return (EPOCH + timedelta(microseconds=micros)).time() if 0 <= micros < DAY_US else value

    return read


def _timestamp(unit_us: int, *, has_zone: bool = False) -> Reader:
    def read(value: int, _: Mapping[str, Any]) -> Any:
        try:
            at = EPOCH + timedelta(microseconds=value * unit_us)
        except OverflowError:
            return Nanoseconds(value * unit_us * 1_000, has_zone=has_zone)
        return at.replace(tzinfo=UTC) if has_zone else at

    return read


def _nano_timestamp(value: int, _: Mapping[str, Any]) -> Nanoseconds:
    return Nanoseconds(value, has_zone=False)


def _seconds(unit: str) -> Reader:
    return lambda value, _: Decimal(str(value)) * Decimal(unit)


def _bits(value: bytes, parameters: Mapping[str, Any]) -> str:
    """A bit string as Postgres writes it, B'101'; the bytes are little-endian."""
    length = int(parameters["length"])
    digits = f"{int.from_bytes(value, 'little'):b}"
    return digits if length == BITS_MAX else digits.zfill(length)[-length:]


READERS: Mapping[tuple[str, str], Reader] = {
    ("bytes", DECIMAL): _decimal,
    ("int32", f"{CONNECT}.Date"): _date,
    ("int32", f"{CONNECT}.Time"): _time(1_000),
    ("int64", f"{CONNECT}.Timestamp"): _timestamp(1_000, has_zone=True),
    ("int32", f"{TIME}.Date"): _date,
    ("int32", f"{TIME}.Time"): _time(1_000),
    ("int64", f"{TIME}.MicroTime"): _time(1),
    ("int64", f"{TIME}.NanoTime"): _time(1, 1_000),
    ("int64", f"{TIME}.Timestamp"): _timestamp(1_000),
    ("int64", f"{TIME}.MicroTimestamp"): _timestamp(1),
    ("int64", f"{TIME}.NanoTimestamp"): _nano_timestamp,
    ("int64", f"{TIME}.MicroDuration"): _seconds("1e-6"),
    ("int64", f"{TIME}.NanoDuration"): _seconds("1e-9"),
    ("bytes", f"{DATA}.Bits"): _bits,
}
