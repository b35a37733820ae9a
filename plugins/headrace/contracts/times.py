"""Parsers of times in producers' formats; they refuse invalid times, and times that some clients cannot show."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from math import isfinite
from typing import Any

from pydantic_core import PydanticCustomError

from headrace.contracts.reasons import Reason
from headrace.contracts.strict_json import Number
from headrace.formats.values import Nanoseconds

# Python's datetime ends at the years 1 and 9999 in every zone, and a zone is at most a day away from UTC: a moment
# inside these can be shown anywhere. A later one made a whole table impossible to query.
EARLIEST = datetime(1, 1, 2, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, 23, 59, 59, 999_999, tzinfo=UTC)

# What fromisoformat makes of more than this is another moment, found by fuzzing: 10:00.5 is half a minute and not half
# a second, 2019-03-01+01:00 is a day and a zone and not one o'clock, +05:70 is no zone.
# Behind a zone, what Java's ZonedDateTime ("[Europe/Berlin]") and Go's time.String (" +0300 MSK") write says it again.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d|\d{8}(?=[Tt]))(?:"
    r"([Tt ](?:[01]\d|2[0-3])(?::\d\d(?::\d\d(?:[.,]\d+)?)?|\d\d(?:\d\d(?:[.,]\d+)?)?)?)"
    r"(?: ?([Zz]|[+-]\d\d(?:[0-5]\d|:[0-5]\d(?::[0-5]\d)?)?)(?:\[[A-Za-z0-9_/+-]{1,40}\]| [A-Z]{3,5})?| ?(UTC|GMT))?"
    r")?",
    re.ASCII,
).fullmatch
PLAIN_TIMES = (
    "--T::",
    "-- ::",
)  # every third character of YYYY-MM-DDThh:mm:ss: that needs no pattern, which costs 0.4 us


def parse_timestamp(value: object) -> datetime:
    """Parse an ISO 8601 or RFC 3339 date and time, with or without a zone; a date alone is its midnight.

    Stricter than pydantic: digits alone are not a time, because seconds and milliseconds look alike. Stricter than
    datetime.fromisoformat, which misreads unknown formats. Digits after the microseconds are cut off: timestamptz
    cannot store them.
    """
    if isinstance(value, datetime):  # a default, the result of an earlier validator, or a schema's time
        return value
    if isinstance(value, Nanoseconds):
        return _moment(value)
    if not isinstance(value, str):
        raise PydanticCustomError(Reason.WRONG_TYPE, "expected an ISO 8601 time as text")
    if len(value) != 19 or value[4::3] not in PLAIN_TIMES:
        found = _TIME(value)
        if found is None:
            raise PydanticCustomError(
                Reason.INVALID_TIMESTAMP, "expected YYYY-MM-DD, then a time hh:mm:ss and a zone, if any"
            )
        day, clock, zone, utc = found.groups()
        value = (day + (clock or "") + (zone or ("Z" if utc else ""))).upper()
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        message = "expected an ISO 8601 time: {error}"
        raise PydanticCustomError(Reason.INVALID_TIMESTAMP, message, {"error": str(error)}) from error


def _moment(value: Nanoseconds) -> datetime:
    try:
        return value.datetime()
    except OverflowError as error:
        raise PydanticCustomError(Reason.OUT_OF_RANGE, "expected a time of the years 1 to 9999") from error


def parse_date(value: object) -> date:
    """Parse an ISO 8601 date, or a time at midnight."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)
    at = parse_timestamp(value)
    if at.time() != time():
        raise PydanticCustomError(Reason.INVALID_TIMESTAMP, "expected a date, or a time at midnight")
    return at.date()


_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:[.,]\d+)?)?", re.ASCII).fullmatch


def parse_time(value: object) -> time:
    """Parse a time of day, hh:mm or hh:mm:ss with a fraction; digits after the microseconds are cut off."""
    if isinstance(value, time):
        return value
    if not isinstance(value, str):
        raise PydanticCustomError(Reason.WRONG_TYPE, "expected a time of day as text")
    if not _CLOCK(value):
        raise PydanticCustomError(Reason.INVALID_TIMESTAMP, "expected a time of day hh:mm:ss without a zone")
    return time.fromisoformat(value)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EPOCH_MS_MIN = 100_000_000_000  # 1973: any smaller number is seconds since 1970, sent by mistake
EPOCH_MS_MAX = (LATEST - EPOCH) // timedelta(milliseconds=1)
EPOCH_S_MAX = 100_000_000_000  # the year 5138: any larger number is milliseconds, sent by mistake
_EPOCH_TEXT = re.compile(r"-?\d{1,20}(?:\.\d{1,20})?", re.ASCII).fullmatch


def parse_epoch_ms(value: object) -> datetime:
    """Parse milliseconds since 1970 UTC, a whole number or its text."""
    if isinstance(value, datetime | Nanoseconds):  # its schema says that it is a time
        return parse_timestamp(value)
    found = _epoch(value, "milliseconds since 1970 as a whole number")
    if found != found.to_integral_value():
        raise PydanticCustomError(Reason.WRONG_TYPE, "expected milliseconds since 1970 as a whole number")
    if not EPOCH_MS_MIN <= found <= EPOCH_MS_MAX:
        raise PydanticCustomError(Reason.OUT_OF_RANGE, "expected milliseconds since 1970; these look like another unit")
    return EPOCH + timedelta(milliseconds=int(found))


def parse_epoch_s(value: object) -> datetime:
    """Parse seconds since 1970 UTC with a fraction, or their text; digits after the microseconds are cut off."""
    if isinstance(value, datetime | Nanoseconds):
        return parse_timestamp(value)
    found = _epoch(value, "seconds since 1970")
    if not 0 <= found < EPOCH_S_MAX:
        raise PydanticCustomError(Reason.OUT_OF_RANGE, "expected seconds since 1970; these look like another unit")
    return EPOCH + timedelta(microseconds=int(found * 1_000_000))


def _epoch(value: object, expected: str) -> Decimal:
    if isinstance(value, Number) and isfinite(value):
        return value.exact()
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    if isinstance(value, str) and _EPOCH_TEXT(value):
        return Decimal(value)
    raise PydanticCustomError(Reason.WRONG_TYPE, "expected {expected}", {"expected": expected})


@dataclass(frozen=True, slots=True)
class Parser:
    """The description of a time parser: accepted JSON types, expected format, and possible reasons."""

    accepted: tuple[type, ...]
    words: str
    reasons: tuple[Reason, ...]


PARSERS: Mapping[Any, Parser] = {
    parse_timestamp: Parser((str,), "ISO 8601 date and time", (Reason.WRONG_TYPE, Reason.INVALID_TIMESTAMP)),
    parse_date: Parser((str,), "ISO 8601 date", (Reason.WRONG_TYPE, Reason.INVALID_TIMESTAMP)),
    parse_time: Parser((str,), "time of day", (Reason.WRONG_TYPE, Reason.INVALID_TIMESTAMP)),
    parse_epoch_s: Parser(
        (int, float), "seconds since 1970, not milliseconds", (Reason.WRONG_TYPE, Reason.OUT_OF_RANGE)
    ),
    parse_epoch_ms: Parser((int,), "milliseconds since 1970, not seconds", (Reason.WRONG_TYPE, Reason.OUT_OF_RANGE)),
}
