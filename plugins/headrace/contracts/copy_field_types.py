"""The types that the fast path supports: from a field's core schema to its `FastField`.

If it returns a cell, Contract.decode accepts the value and gives the same row; other values are left to decode.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec

from headrace.contracts.column_types import INTEGER_MAX
from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.copy_cells import NotPlain, json_cell
from headrace.contracts.copy_field import FastField, UnsupportedField, limited, only
from headrace.contracts.numbers import FLOAT_MAX, NUMERIC_DIGITS_MAX, NUMERIC_PLACES_MAX
from headrace.contracts.times import (
    EPOCH_MS_MAX,
    EPOCH_MS_MIN,
    PLAIN_TIMES,
    parse_date,
    parse_epoch_ms,
    parse_epoch_s,
    parse_timestamp,
)


def _text(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> FastField:
    only(schema, "min_length", "max_length")
    return FastField(
        kind=limited(str, schema, "min_length", "max_length"),
        quotes=2,
        steps="if has_escapes:\n    quotes += {v}.count('\"')\n    {v} = escaped({v})\n",
        names={},
    )


def choices_of(schema: Mapping[str, Any]) -> Sequence[Any]:
    """The values of a Literal or an Enum; raises UnsupportedField for an Enum with a `_missing_` of its own."""
    if schema["type"] == "literal":
        only(schema, "expected")
        literals: Sequence[Any] = schema["expected"]
        return literals
    only(schema, "cls", "members", "sub_type", "missing", "strict")
    if schema.get("missing") is not None:
        raise UnsupportedField
    return [member.value for member in schema["members"]]


def _choice(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> FastField:
    choices = choices_of(schema)
    if not all(isinstance(choice, str) and choice.isprintable() and not set(choice) & set('"\\') for choice in choices):
        raise UnsupportedField
    return FastField(kind=Literal[tuple(choices)], quotes=2, names={})


def _boolean(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> FastField:
    only(schema, "strict")
    return FastField(kind=bool, steps="{v} = 't' if {v} else 'f'\n", names={}, empty_is_null=True)


# an integer as text: no plus sign, blank or underscore, and at most 18 digits, which 64 bits always hold
_INTEGER_TEXT = re.compile(r"-?[0-9]{1,18}").fullmatch


def _integer(column: Column, schema: Mapping[str, Any], contract: Contract) -> FastField:
    lower, upper = integer_bounds(column, schema)
    number = Annotated[int, msgspec.Meta(ge=lower, le=upper)]
    if contract.strict or schema.get("strict"):
        return FastField(kind=number, names={})

    def from_text(text: str) -> int:
        if not _INTEGER_TEXT(text) or not lower <= (found := int(text)) <= upper:
            raise NotPlain
        return found

    return FastField(
        kind=number | str,
        parse="if {v}.__class__ is str:\n    {v} = from_text{i}({v})\n    quotes += 2\n",
        names={"from_text": from_text},
        empty_is_null=True,
    )


def integer_bounds(column: Column, schema: Mapping[str, Any]) -> tuple[int, int]:
    """The least and the most that a field and its column hold; raises UnsupportedField for other rules."""
    only(schema, "ge", "gt", "le", "lt", "strict")
    limit = INTEGER_MAX[column.value_type]
    if not all(isinstance(schema.get(name, 0), int) for name in ("ge", "gt", "le", "lt")):
        raise UnsupportedField
    lower = max(schema.get("ge", -limit - 1), schema.get("gt", -limit - 2) + 1, -limit - 1)
    upper = min(schema.get("le", limit), schema.get("lt", limit + 1) - 1, limit)
    return lower, upper


# no exponent that overflows, nor one that only Contract.decode would refuse
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,16})(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,2})?").fullmatch
_UNQUOTED = "{v} = str({v}, 'utf-8')\nif {v}[0] == '\"':\n    {v} = {v}[1:-1]\n    quotes += 2\n"
_RAW_TEXT = "{v} = str({v}, 'utf-8')\n"


def _unquoted(contract: Contract, schema: Mapping[str, Any]) -> str:
    """Statements that leave a raw number's text in {v}, in quotes or not."""
    return _RAW_TEXT if contract.strict or schema.get("strict") else _UNQUOTED


def _double(_column: Column, schema: Mapping[str, Any], contract: Contract) -> FastField:
    only(schema, "allow_inf_nan", "ge", "gt", "le", "lt", "strict")
    is_within = bounds_of(schema)

    def parse(text: str) -> float:
        if not _PLAIN_NUMBER(text):
            raise NotPlain
        found = float(text)
        if not -FLOAT_MAX <= found <= FLOAT_MAX or not is_within(found):
            raise NotPlain
        if found.is_integer() and "." not in text and "e" not in text.lower() and int(found) != int(text):
            raise NotPlain  # a whole number that no double holds
        return found

    return FastField(
        kind=msgspec.Raw,
        parse=_unquoted(contract, schema) + "{v} = parse{i}({v})\n",
        steps="{v} = repr({v})\n",
        names={"parse": parse},
        empty_is_null=not contract.strict,
    )


def bounds_of(schema: Mapping[str, Any]) -> Callable[[Any], bool]:
    """A function that checks a number against ge, gt, le and lt."""
    if not any(schema.get(name) is not None for name in ("ge", "gt", "le", "lt")):
        return lambda _number: True
    least, above = schema.get("ge"), schema.get("gt")
    most, below = schema.get("le"), schema.get("lt")
    return lambda number: (
        (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )


def _decimal(column: Column, schema: Mapping[str, Any], contract: Contract) -> FastField:
    """The number's unchanged text, if it is plain."""
    whole, places = numeric_digits(column, schema)
    fraction = rf"(?:\.[0-9]{{1,{places}}})?" if places else ""
    bounds = {name: schema[name] for name in ("ge", "gt", "le", "lt") if schema.get(name) is not None}
    # that it is not below 0 the pattern can see; -0 is left to Contract.decode
    is_natural = bounds.keys() == {"ge"} and bounds["ge"] == 0
    sign = "" if is_natural else "-?"
    is_number = re.compile(rf"{sign}(?:0|[1-9][0-9]{{0,{whole - 1}}}){fraction}").fullmatch
    is_within = bounds_of(schema)

    def is_number_within(text: str) -> bool:
        return is_number(text) is not None and is_within(Decimal(text))

    is_plain: Callable[[str], Any] = is_number_within if bounds and not is_natural else is_number
    return FastField(
        kind=msgspec.Raw,
        parse=_unquoted(contract, schema),
        steps="if not exact{i}({v}):\n    return None\n",
        names={"exact": is_plain},
        empty_is_null=not contract.strict,
    )


def numeric_digits(column: Column, schema: Mapping[str, Any]) -> tuple[int, int]:
    """How many digits a decimal may have before the point and behind it; raises UnsupportedField for other rules."""
    only(schema, "max_digits", "decimal_places", "ge", "gt", "le", "lt", "allow_inf_nan", "strict")
    places: int | None = schema.get("decimal_places")
    digits: int | None = schema.get("max_digits")
    if "(" in column.value_type:
        if digits is None or places is None or digits <= places:
            raise UnsupportedField
        return digits - places, places
    if digits is not None:
        raise UnsupportedField
    return NUMERIC_DIGITS_MAX, NUMERIC_PLACES_MAX if places is None else min(places, NUMERIC_PLACES_MAX)


def _time(column: Column, schema: Mapping[str, Any], contract: Contract) -> FastField:
    """A parser of contracts.times, recognised by identity."""
    only(schema, "function", "json_schema_input_schema")
    parser = schema["function"].get("function")
    if column.value_type == "date" and parser is parse_date:
        return FastField(
            kind=str,
            quotes=2,
            steps="if len({v}) != 10 or {v}[4::3] != '--':\n    return None\nfromisoformat{i}({v})\n",
            names={"fromisoformat": date.fromisoformat, "in_utc": None},
            empty_is_null=not contract.strict,
        )
    if column.value_type != "timestamptz":
        raise UnsupportedField
    if parser is parse_epoch_ms:
        return _epoch_ms(contract)
    if parser is parse_epoch_s:
        return _epoch_s(contract)
    if parser is parse_timestamp:
        return _timestamp(contract)
    raise UnsupportedField


def _epoch_ms(contract: Contract) -> FastField:
    number = Annotated[int, msgspec.Meta(ge=EPOCH_MS_MIN, le=EPOCH_MS_MAX)]
    steps = "{v} = in_utc{i}({v})\n"
    if not contract.strict:
        steps = "if {v}.__class__ is str:\n    {v} = from_text{i}({v})\n    quotes += 2\n" + steps
    return FastField(
        kind=number if contract.strict else number | str,
        steps=steps,
        suffix="+00",
        names={"in_utc": lambda milliseconds: utc_text(parse_epoch_ms(milliseconds)), "from_text": _milliseconds},
        empty_is_null=not contract.strict,
    )


def _milliseconds(text: str) -> int:
    if not _INTEGER_TEXT(text):
        raise NotPlain
    return int(text)


_PLAIN_SECONDS = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,9})?").fullmatch


def _epoch_s(contract: Contract) -> FastField:
    def in_utc(text: str) -> str:
        if not _PLAIN_SECONDS(text):
            raise NotPlain
        return utc_text(parse_epoch_s(text))

    return FastField(
        kind=msgspec.Raw,
        parse=_unquoted(contract, {}),
        steps="{v} = in_utc{i}({v})\n",
        suffix="+00",
        names={"in_utc": in_utc},
        empty_is_null=not contract.strict,
    )


def _timestamp(contract: Contract) -> FastField:
    zone = contract.zone

    def in_utc(text: str) -> str:
        at = parse_timestamp(text)
        return utc_text(at.replace(tzinfo=zone) if at.tzinfo is None else at)

    steps = "{v} = in_utc{i}({v})\n"
    if zone is UTC:  # without a zone it is as Postgres reads it, once it is known to be a time
        steps = (
            "if len({v}) == 19 and {v}[4::3] in PLAIN_TIMES{i} and {v}[0] in '12':\n    fromisoformat{i}({v})\n"
            f"else:\n    {steps}"
        )
    names = {"in_utc": in_utc, "PLAIN_TIMES": PLAIN_TIMES, "fromisoformat": datetime.fromisoformat}
    return FastField(kind=str, quotes=2, steps=steps, suffix="+00", names=names, empty_is_null=not contract.strict)


FIRST_PLAIN_YEAR, LAST_PLAIN_YEAR = 2, 9998  # every moment of them can be shown in every time zone


def utc_text(at: datetime) -> str:
    """A moment as Postgres reads it in UTC, without its zone; raises NotPlain or OverflowError for a far one."""
    # in UTC: Postgres reads zones of less than 16 hours, Python of less than 24; OverflowError beyond Python's years
    found = at.astimezone(UTC)
    if not FIRST_PLAIN_YEAR <= found.year <= LAST_PLAIN_YEAR:
        raise NotPlain
    return found.replace(tzinfo=None).isoformat(" ")


def _uuid(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> FastField:
    only(schema)
    return FastField(kind=UUID, quotes=2, steps="{v} = str({v})\n", names={"exact": None})


def _object(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> FastField:
    only(schema, "keys_schema", "values_schema")
    if schema.get("keys_schema", {"type": "str"}) != {"type": "str"}:
        raise UnsupportedField
    return _json("{", schema.get("values_schema"))


def _array(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> FastField:
    only(schema, "items_schema")
    return _json("[", schema.get("items_schema"))


def _json(opening: str, inner: Mapping[str, Any] | None) -> FastField:
    if inner not in (None, {"type": "any"}):
        raise UnsupportedField
    return FastField(
        kind=msgspec.Raw,
        parse="{v} = bytes({v})\n",
        steps=f"if {{v}}[0] != {ord(opening)}:\n    return None\nquotes += {{v}}.count(b'\"')\n"
        "{v} = json_cell{i}({v})\n",
        names={"json_cell": json_cell},
    )


FIELD_TYPES: Mapping[tuple[str, str], Callable[[Column, Mapping[str, Any], Contract], FastField]] = {
    ("str", "text"): _text,
    ("literal", "text"): _choice,
    ("enum", "text"): _choice,
    ("bool", "boolean"): _boolean,
    ("int", "whole"): _integer,
    ("float", "double precision"): _double,
    ("decimal", "numeric"): _decimal,
    ("function-plain", "timestamptz"): _time,
    ("function-plain", "date"): _time,
    ("uuid", "uuid"): _uuid,
    ("dict", "jsonb"): _object,
    ("list", "jsonb"): _array,
}
