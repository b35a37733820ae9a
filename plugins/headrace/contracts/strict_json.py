"""The one exact parse of a document, and the way back to JSON text.

Python's own parser, because it lets us see what others pass over: names that stand twice, digits beyond a double, and
how deep a document nests. Numbers keep the text in which they were written, so that nothing is rounded on the way into
a column or into `_extra`.
"""

import json
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

from headrace.contracts.reasons import Reason
from headrace.formats.values import Nanoseconds

DEPTH_MAX = 200  # objects and arrays inside each other, inside the document
NUMBER_LENGTH_MAX = 4_300  # Python's own limit for the digits of an integer (sys.set_int_max_str_digits)
EXPONENT_MAX = 1_000  # jsonb stores an exponent as digits: Postgres's numeric ends at 131,072


class Number(float):
    """A JSON number with a fraction or an exponent: a float to a validator, and exact in `text`."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> "Number":
        """Read a number as JSON writes it."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    def exact(self) -> Decimal:
        """The number, digit by digit."""
        return Decimal(self.text)


class Whole(int):
    """A JSON whole number of more digits than 64 bits hold."""

    __slots__ = ()


class Malformed(ValueError):
    """Bytes that are no document; carries what a rejection says."""

    def __init__(self, reason: str, detail: str, location: tuple[str | int, ...] | str = ()) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.location = location


def parse(text: str) -> dict[str, Any]:
    """Parse a JSON object; raises Malformed with the reason why it is none.

    Takes time linear in the length of any text.
    """
    if text.startswith("\ufeff"):
        raise Malformed(Reason.INVALID_JSON, "starts with a byte order mark, expected JSON")
    if not text.strip():
        raise Malformed(
            Reason.EMPTY_PAYLOAD, f"{len(text)} characters of nothing, expected JSON; a tombstone has no value"
        )
    if nests_too_deep(text):
        raise Malformed(Reason.TOO_DEEP, f"nested more than {DEPTH_MAX} deep")
    document = _decoded(text)
    if not isinstance(document, dict):
        raise Malformed(Reason.WRONG_TYPE, "expected a JSON object")
    if "\\u" in text:  # the only ways to either: a raw U+0000 is no JSON, and a raw surrogate no UTF-8
        _refuse_unstorable(document)
    return document


def parse_value(text: str) -> Any:
    """Parse any JSON value, as keys are; raises Malformed."""
    if nests_too_deep(text):
        raise Malformed(Reason.TOO_DEEP, f"nested more than {DEPTH_MAX} deep")
    value = _decoded(text)
    if "\\u" in text:
        _refuse_unstorable([value])
    return value


def _decoded(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(Reason.INVALID_JSON, str(error)) from error


_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


def nests_too_deep(text: str) -> bool:
    """Whether objects and arrays stand inside each other deeper than DEPTH_MAX, inside the document.

    Counted here and not left to a parser's recursion limit, which differs from one Python to the next.
    """
    if text.count("[") + text.count("{") <= DEPTH_MAX + 1:
        return False
    depth = 0
    for found in _BRACKET.finditer(_STRING.sub("", text)):
        depth += 1 if found[0] in "[{" else -1
        if depth > DEPTH_MAX + 1:
            return True
    return False


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise Malformed(Reason.DUPLICATE_KEY, f"{name!r} is repeated in one object", f"$..{name}")
            seen.add(name)
    return document


def _number(text: str) -> Number:
    _check_length(text)
    exponent = text.lower().partition("e")[2].lstrip("+-0")  # 1e-0005 is no large number
    if len(exponent) > 4 or (exponent and int(exponent) > EXPONENT_MAX):
        raise Malformed(Reason.OUT_OF_RANGE, f"a number with exponent {exponent[:20]}, expected at most {EXPONENT_MAX}")
    return Number(text)


def _whole(text: str) -> int | Number:
    if len(text) <= 18:
        return Number(text) if text == "-0" else int(text)
    _check_length(text)
    return Whole(text)


def _check_length(text: str) -> None:
    if len(text) > NUMBER_LENGTH_MAX:
        raise Malformed(
            Reason.OUT_OF_RANGE, f"a number of {len(text)} characters, expected at most {NUMBER_LENGTH_MAX}"
        )


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique_names, parse_float=_number, parse_int=_whole, parse_constant=Number
)


# where a value stands in a document: its name or number, behind the place of what holds it; None for the document
_Place = tuple["_Place", str | int] | None


def _refuse_unstorable(document: Any) -> None:
    waiting: list[tuple[_Place, Any]] = [(None, document)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, str):
            if "\0" in value:
                detail = "text holds U+0000, which Postgres stores neither as text nor as jsonb"
                raise Malformed(Reason.NUL_CHARACTER, detail, _path(place))
            if not value.isascii() and _SURROGATE(value):
                raise Malformed(Reason.INVALID_JSON, "text holds half of a surrogate pair, which is no character")
        elif isinstance(value, dict):
            waiting.extend(((place, name), name) for name in value)
            waiting.extend(((place, name), item) for name, item in value.items() if isinstance(item, _MAY_HOLD_TEXT))
        elif isinstance(value, list):
            waiting.extend(((place, i), item) for i, item in enumerate(value) if isinstance(item, _MAY_HOLD_TEXT))


_MAY_HOLD_TEXT = (str, dict, list)


def _path(place: _Place) -> tuple[str | int, ...]:
    path: list[str | int] = []
    while place is not None:
        place, part = place
        path.append(part)
    return tuple(reversed(path))


_SURROGATE = re.compile("[\ud800-\udfff]").search


def dumps(value: Any) -> bytes:
    """JSON text of a value as a validator left it; numbers that it did not touch stand as they were written.

    Raises Malformed for NaN and Infinity, which Python's producers write, and TypeError or ValueError for anything else
    that JSON cannot hold.
    """
    try:
        return orjson.dumps(value, default=_default, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    except orjson.JSONEncodeError as error:
        if isinstance(error.__cause__, Malformed):
            raise error.__cause__ from None
        raise


def dumps_value(value: Any) -> bytes:
    """JSON text of a value that a schema made: bytes are base64, NaN and Infinity, which JSON lacks, are texts."""
    text = orjson.dumps(value, default=_value_default, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    if b"null" in text:  # what orjson makes of these
        text = orjson.dumps(_without_odd_floats(value), default=_value_default, option=orjson.OPT_PASSTHROUGH_SUBCLASS)
    return text


def _value_default(value: Any) -> Any:
    return b64encode(value).decode() if isinstance(value, bytes) else _default(value)


def _without_odd_floats(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    if isinstance(value, dict):
        return {name: _without_odd_floats(item) for name, item in value.items()}
    return [_without_odd_floats(item) for item in value] if isinstance(value, list) else value


def _default(value: Any) -> Any:
    for kind, encode in _ENCODERS:
        if isinstance(value, kind):
            return encode(value)
    raise TypeError(f"{type(value).__name__} is nothing that JSON holds")


def _written(value: Number) -> Any:
    if not isfinite(value) and not value.text[-1].isdigit():  # 1e400 is infinite as a float, and a number in JSON
        raise Malformed(Reason.INVALID_JSON, f"{value.text} is not JSON")
    return orjson.Fragment(value.text)


def _finite(value: Decimal) -> Any:
    if not value.is_finite():
        raise ValueError(f"{value} is not JSON")
    return orjson.Fragment(str(value))


def _document(model: BaseModel) -> dict[str, Any]:
    # under the names that the source used, which an alias may differ from
    fields = type(model).model_fields
    names = {name: info.validation_alias if isinstance(info.validation_alias, str) else name
             for name, info in fields.items()}  # fmt: skip
    document = {names[name]: model.__dict__[name] for name in fields if name in model.model_fields_set}
    return document | (model.__pydantic_extra__ or {})


_ENCODERS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (Number, _written),
    (Nanoseconds, lambda value: value.isoformat()),
    (Whole, lambda value: orjson.Fragment(str(int(value)))),
    (Enum, lambda value: value.value),
    (Decimal, _finite),
    (BaseModel, _document),
    (str, str.__str__),
    (bool, bool),
    (int, int),
    (float, float),
    (dict, dict),
    (list | tuple | set | frozenset, list),
    (datetime | date | time, lambda value: value.isoformat()),
    (UUID, str),
    (bytes, lambda value: value.decode()),
)
