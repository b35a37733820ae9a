"""The type of a field, from the values that records have for it. A type is chosen by the parsers of the contract."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from pydantic_core import PydanticCustomError

from headrace.contracts.column_types import INT64_MAX
from headrace.contracts.numbers import bounded, exact
from headrace.contracts.rejection import json_path, shown
from headrace.contracts.strict_json import Number
from headrace.contracts.times import parse_date, parse_epoch_ms, parse_epoch_s, parse_time, parse_timestamp
from headrace.formats.values import Nanoseconds
from headrace.infer.names import words_of

# Of the values of a field with at least OUTLIERS_FROM, so many may be of another type: such records are dead letters
OUTLIERS_FROM = 100
OUTLIERS_MAX = 0.05
ODD_TEXTS_MAX = 0.01  # and so many texts may be odd where the others are all numbers, times or the like
TEXT_LENGTH_MAX = 64  # Text ends at 255 characters: a field that has longer ones than this in the sample is a `str`
# A Literal makes every other value a dead letter, so it needs a sample that hardly lacks one
LITERAL_FROM, LITERAL_VALUES_MAX, LITERAL_SHARE_MIN = 2_000, 5, 0.05
LITERAL_WORDS = frozenset({"status", "state", "type", "kind", "level", "currency", "direction", "side"})
EPOCH_S = (1_000_000_000, 4_100_000_000)  # 2001 to 2099
TIME_WORDS = frozenset((
    "at", "on", "ts", "time", "timestamp", "date", "datetime", "created", "updated", "modified", "when",
    "start", "end", "started", "ended", "expires", "millis", "ms", "epoch", "since", "until", "received",
    "sent", "occurred",
))  # fmt: skip
TIME_ENDINGS = ("date", "time", "timestamp")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(?:\.[0-9]{1,30})?", re.ASCII)
_CHOICE = re.compile(r"[A-Za-z][A-Za-z _-]{0,29}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TypeFound:
    """The expression of a type, whether empty texts stand for null, and a comment for the author."""

    expression: str
    empty_is_null: bool = False
    comment: str = ""


def names_time(name: str) -> bool:
    """Whether a field's name says that it is a time."""
    words = words_of(name)
    return any(word in TIME_WORDS or word.endswith(TIME_ENDINGS) for word in words)


def type_of(name: str, values: Sequence[Any], *, all_text: bool = False) -> TypeFound:
    """The type of a field's values, which are not null.

    all_text: the source writes every value as text, so that "5" is a number; else it is a text, unless the field has
    numbers too.
    """
    if not values:
        return TypeFound("Any", comment="only null in the sample: any JSON")
    filled = [value for value in values if value != ""]
    if filled and len(filled) < len(values):
        found = _type_of(name, filled, all_text)
        if found.expression not in ("Text", "str", "Any") and not found.expression.startswith("Literal"):
            return TypeFound(found.expression, True, found.comment)
    return _type_of(name, values, all_text)


_Fits = Callable[[Any], bool]


def _type_of(name: str, values: Sequence[Any], all_text: bool) -> TypeFound:
    has_numbers = any(isinstance(value, int | float | Decimal) and not isinstance(value, bool) for value in values)
    candidates = _candidates(name, reads_text=all_text or has_numbers)
    best, most = _best(candidates, values)
    if most == len(values):
        return _refined(name, best, values)
    if len(values) >= OUTLIERS_FROM and most >= len(values) * (1 - OUTLIERS_MAX):
        fits = dict(candidates)[best]
        other = next(value for value in values if not fits(value))
        return TypeFound(best, comment=f"{len(values) - most} of {len(values)} are not, such as {shown(other)}")
    if all(_is_scalar(value) for value in values):
        return TypeFound(_text(values), comment="texts and numbers in the sample")
    return TypeFound("Any", comment=f"of several types in the sample: {_kinds(values)}")


def _best(candidates: Sequence[tuple[str, _Fits]], values: Sequence[Any]) -> tuple[str, int]:
    """The type that fits most values, and how many; not text where almost all of it is of a narrower type."""
    best, most = "", 0
    for expression, fits in candidates:
        count = sum(map(fits, values))
        is_narrower = len(values) >= OUTLIERS_FROM and most >= len(values) * (1 - ODD_TEXTS_MAX)
        if count > most and not (expression == "Text" and is_narrower):
            best, most = expression, count
    return best, most


def _refined(name: str, expression: str, values: Sequence[Any]) -> TypeFound:
    if expression == "Text":
        return TypeFound(_literal(name, values) or _text(values))
    if expression in ("EpochSeconds", "EpochMilliseconds"):
        unit = "seconds" if expression == "EpochSeconds" else "milliseconds"
        return TypeFound(expression, comment=f"{unit} since 1970, by its name and values such as {shown(values[0])}")
    if expression == "Integer" and all(_in_ms(value) for value in values):
        return TypeFound(expression, comment="if these are milliseconds since 1970: EpochMilliseconds")
    if expression == "Integer" and names_time(name) and all(_in_us(value) for value in values):
        return TypeFound(expression, comment="microseconds since 1970, as it seems: kept as a number")
    if expression == "Timestamp" and any(isinstance(v, str) and parse_timestamp(v).tzinfo is None for v in values):
        return TypeFound(expression, comment="without a time zone: UTC, unless Dataset(zone=...) says another")
    items = [item for value in values for item in value] if expression == "list[Any]" else []
    if items and all(isinstance(item, Mapping) for item in items):
        path = json_path((name,))
        return TypeFound(expression, comment=f'objects: Child(explode="{path}", ...) stages each as a row of its own')
    return TypeFound(expression)


def _candidates(name: str, *, reads_text: bool) -> list[tuple[str, _Fits]]:
    """Types, narrow ones first: of types that fit equally many values the first is chosen."""
    numbers = int | float | Decimal | str if reads_text else int | float | Decimal
    is_time = names_time(name)
    return [
        ("Boolean", lambda v: isinstance(v, bool) or (reads_text and v in ("true", "false", "True", "False"))),
        ("EpochMilliseconds", lambda v: is_time and isinstance(v, numbers) and _in_ms(v)),
        ("EpochSeconds", lambda v: is_time and isinstance(v, numbers) and _in_s(v)),
        ("Integer", lambda v: isinstance(v, numbers) and _is_integer(v)),
        ("Float", lambda v: type(v) is float),
        ("Numeric", lambda v: isinstance(v, numbers) and _is_numeric(v)),
        ("UUID", lambda v: isinstance(v, UUID) or (isinstance(v, str) and bool(_UUID.fullmatch(v)))),
        ("Date", lambda v: _is_date(v)),
        ("Timestamp", lambda v: isinstance(v, str | datetime | Nanoseconds) and _parses(parse_timestamp, v)),
        ("TimeOfDay", lambda v: isinstance(v, str | time) and _parses(parse_time, v)),
        ("bytes", lambda v: isinstance(v, bytes)),
        ("Text", lambda v: isinstance(v, str)),
        ("dict[str, Any]", lambda v: isinstance(v, dict)),
        ("list[Any]", lambda v: isinstance(v, list)),
    ]


def _parses(parse: Callable[[object], Any], value: Any) -> bool:
    try:
        parse(value)
    except (ValueError, PydanticCustomError, OverflowError):
        return False
    return True


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_INTEGER.fullmatch(value)) and abs(int(value)) <= INT64_MAX
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT64_MAX


def _is_numeric(value: Any) -> bool:
    if isinstance(value, str) and not _DECIMAL.fullmatch(value):
        return False
    if isinstance(value, bool):
        return False
    number = exact(value)
    return number is not None and number.is_finite() and _parses(lambda _: bounded(number), value)


def _in_ms(value: Any) -> bool:
    return _parses(parse_epoch_ms, value) and EPOCH_S[0] * 1_000 <= float(value) < EPOCH_S[1] * 1_000


def _in_us(value: Any) -> bool:
    return EPOCH_S[0] * 1_000_000 <= int(value) < EPOCH_S[1] * 1_000_000


def _in_s(value: Any) -> bool:
    return _parses(parse_epoch_s, value) and EPOCH_S[0] <= float(value) < EPOCH_S[1]


def _is_date(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) == 10 and _parses(parse_date, value)
    return isinstance(value, date) and not isinstance(value, datetime)


def _is_scalar(value: Any) -> bool:
    """Whether a column of text takes the value."""
    if isinstance(value, Number):
        return isfinite(value) or value.text[-1].isdigit()
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _text(values: Sequence[Any]) -> str:
    longest = max(len(value) if isinstance(value, str) else 0 for value in values)
    return "Text" if longest <= TEXT_LENGTH_MAX else "str"


def _literal(name: str, values: Sequence[Any]) -> str | None:
    """A Literal of the values where the sample is large, they are few and plain, each is common, and the name fits."""
    words = words_of(name)
    if len(values) < LITERAL_FROM or not any(word in LITERAL_WORDS or word.endswith("status") for word in words):
        return None
    counts = Counter(values)
    if len(counts) > LITERAL_VALUES_MAX or min(counts.values()) < len(values) * LITERAL_SHARE_MIN:
        return None
    if not all(_CHOICE.fullmatch(value) for value in counts):
        return None
    return "Literal[" + ", ".join(f'"{value}"' for value in sorted(counts)) + "]"


def _kinds(values: Sequence[Any]) -> str:
    names = {dict: "object", list: "array", bool: "boolean", str: "text", bytes: "bytes"}
    return ", ".join(sorted({names.get(type(value), "number") for value in values}))
