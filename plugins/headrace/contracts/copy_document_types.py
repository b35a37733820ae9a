"""The types that the fast path of documents knows: from pydantic's core schema of a field to how a value is written.

A document is what a schema made of a value (formats.base): its values have Python's types. Where this gives a cell,
Contract.decode accepts the value and Postgres stores the same; all else is left to decode.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any
from uuid import UUID

from headrace.contracts.column_types import store_document
from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.copy_cells import NotPlain
from headrace.contracts.copy_field import UnsupportedField, only
from headrace.contracts.copy_field_types import (
    FIRST_PLAIN_YEAR,
    LAST_PLAIN_YEAR,
    bounds_of,
    choices_of,
    integer_bounds,
    numeric_digits,
    utc_text,
)
from headrace.contracts.numbers import FLOAT_MAX
from headrace.contracts.times import PARSERS, parse_date, parse_time, parse_timestamp
from headrace.formats.values import EPOCH, Nanoseconds

_REFUSE = "    return None\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentField:
    """How a field's value is written.

    steps: statements that make text of the value in {v}, or refuse the record; names are what they refer to, the
    field's number behind each. default_class: of defaults whose text is known. is_moment: whether a value may also be
    microseconds since 1970 (formats.base.CountsMoments); no document has a whole number there that is taken.
    """

    steps: str
    names: Mapping[str, Any]
    default_class: type | None = None
    is_moment: bool = False


def _text(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "min_length", "max_length")
    steps = (
        f"if {{v}}.__class__ is not str{_lengths(schema)}:\n{_REFUSE}"
        "if '\\\\' in {v} or not {v}.isprintable():\n    {v} = cleaned({v})\n"
    )
    return DocumentField(steps=steps, names={}, default_class=str)


def _lengths(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("min_length"), schema.get("max_length")
    return (f" or len({{v}}) < {least}" if least else "") + ("" if most is None else f" or len({{v}}) > {most}")


def _bytes(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "min_length", "max_length", "strict")
    steps = f"if {{v}}.__class__ is not bytes{_lengths(schema)}:\n{_REFUSE}{{v}} = f'\\\\\\\\x{{{{{{v}}.hex()}}}}'\n"
    return DocumentField(steps=steps, names={})


def _choice(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    choices = choices_of(schema)
    if not all(isinstance(choice, str) and choice.isprintable() and "\\" not in choice for choice in choices):
        raise UnsupportedField
    steps = f"if {{v}}.__class__ is not str or {{v}} not in choices{{i}}:\n{_REFUSE}"
    return DocumentField(steps=steps, names={"choices": frozenset(choices)}, default_class=str)


def _boolean(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "strict")
    steps = f"if {{v}}.__class__ is not bool:\n{_REFUSE}{{v}} = 't' if {{v}} else 'f'\n"
    return DocumentField(steps=steps, names={}, default_class=bool)


def _integer(column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    lower, upper = integer_bounds(column, schema)
    steps = (
        f"if {{v}}.__class__ is not int:\n    if {{v}}.__class__ is not Nanoseconds:\n    {_REFUSE}"
        "    {v} = int({v})\n"
        f"if not {lower} <= {{v}} <= {upper}:\n{_REFUSE}"
    )
    return DocumentField(steps=steps, names={}, default_class=int)


def _double(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "allow_inf_nan", "ge", "gt", "le", "lt", "strict")
    steps = (
        f"if {{v}}.__class__ is not float or not -{FLOAT_MAX!r} <= {{v}} <= {FLOAT_MAX!r} or not within{{i}}({{v}}):\n"
        f"{_REFUSE}{{v}} = repr({{v}})\n"
    )
    return DocumentField(steps=steps, names={"within": bounds_of(schema)})


def _decimal(column: Column, schema: Mapping[str, Any], contract: Contract) -> DocumentField:
    """Its text, where that is plain: no exponent, and no more digits than the column has."""
    whole, places = numeric_digits(column, schema)
    fraction = rf"(?:\.[0-9]{{1,{places}}})?" if places else ""
    is_plain = re.compile(rf"-?(?:0|[1-9][0-9]{{0,{whole - 1}}}){fraction}").fullmatch
    has_bounds = any(schema.get(name) is not None for name in ("ge", "gt", "le", "lt"))
    is_within = bounds_of(schema)
    is_strict = contract.strict or bool(schema.get("strict"))

    def text(value: Any) -> str:
        kind = value.__class__
        if kind is Decimal or kind is int or kind is float:
            written = str(value)
        elif kind is str and not is_strict:
            written = value
        else:
            raise NotPlain
        # numeric has no -0: Contract.decode looks at it
        if not is_plain(written) or (written[0] == "-" and not written.strip("-0.")):
            raise NotPlain
        if has_bounds and not is_within(Decimal(written)):
            raise NotPlain
        return written

    return DocumentField(steps="{v} = text{i}({v})\n", names={"text": text})


def _time(column: Column, schema: Mapping[str, Any], contract: Contract) -> DocumentField:
    """A parser of contracts.times, known by being that very function."""
    only(schema, "function", "json_schema_input_schema")
    parser = schema["function"].get("function")
    if parser not in PARSERS:
        raise UnsupportedField
    if parser is parse_date and column.value_type == "date":
        steps = "{v} = {v}.isoformat() if {v}.__class__ is date else day{i}({v})\n"
        return DocumentField(steps=steps, names={"day": _day})
    if parser is parse_time and column.value_type == "time":
        return DocumentField(steps="{v} = clock{i}({v})\n", names={"clock": _clock})
    if column.value_type != "timestamptz":
        raise UnsupportedField
    zone = contract.zone

    def moment(value: Any) -> str:
        if value.__class__ is Nanoseconds:
            value = value.datetime()
        elif value.__class__ is str and parser is parse_timestamp:
            value = parse_timestamp(value)
        if value.__class__ is not datetime:
            raise NotPlain
        return utc_text(value.replace(tzinfo=zone) if value.tzinfo is None else value) + "+00"

    # in UTC, as most schemas have it: written with its zone, as Postgres reads it
    steps = (
        "if {v}.__class__ is datetime and {v}.tzinfo is UTC and 2 <= {v}.year <= 9998:\n"
        "    {v} = str({v})\nelse:\n    {v} = moment{i}({v})\n"
    )
    return DocumentField(steps=steps, names={"moment": moment}, is_moment=True)


@lru_cache(maxsize=20_000)
def _minute(minutes: int) -> str:
    """A minute since 1970 as Postgres reads it in UTC; a topic's moments share minutes, mostly."""
    at = EPOCH + timedelta(minutes=minutes)
    if not FIRST_PLAIN_YEAR <= at.year <= LAST_PLAIN_YEAR:
        raise NotPlain
    return at.replace(tzinfo=None).isoformat(" ")[:-2]


def counted_moment(microseconds: int) -> str:
    """Microseconds since 1970 UTC as Postgres reads them; raises NotPlain or OverflowError for a far moment."""
    seconds, rest = divmod(microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    fraction = f".{rest:06}" if rest else ""
    return f"{_minute(minutes)}{second:02}{fraction}+00"


def _day(value: Any) -> str:
    if value.__class__ is not str or len(value) != 10 or value[4::3] != "--":
        raise NotPlain
    return date.fromisoformat(value).isoformat()


def _clock(value: Any) -> str:
    if value.__class__ is str:
        value = parse_time(value)
    if not hasattr(value, "hour") or value.__class__ is datetime or value.tzinfo is not None:
        raise NotPlain
    return str(value.isoformat())


def _uuid(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema)
    steps = f"if {{v}}.__class__ is str:\n    {{v}} = UUID({{v}})\nif {{v}}.__class__ is not UUID:\n{_REFUSE}"
    return DocumentField(steps=steps + "{v} = str({v})\n", names={})


def _json(kind: type) -> Callable[[Column, Mapping[str, Any], Contract], DocumentField]:
    def make(column: Column, schema: Mapping[str, Any], contract: Contract) -> DocumentField:
        only(schema, "keys_schema", "values_schema", "items_schema")
        if schema.get("keys_schema", {"type": "str"}) != {"type": "str"}:
            raise UnsupportedField
        for inner in ("values_schema", "items_schema"):
            if schema.get(inner) not in (None, {"type": "any"}):
                raise UnsupportedField
        steps = f"if {{v}}.__class__ is not {kind.__name__}:\n{_REFUSE}{{v}} = json{{i}}({{v}})\n"
        names = {"json": lambda value: json_text(column.field, contract, value)}
        return DocumentField(steps=steps, names=names, default_class=kind)

    return make


def json_text(field: str, contract: Contract, value: Any) -> str:
    """A value as a cell of COPY text, as Contract.decode stores it; raises what refuses the record there."""
    text = str(store_document(field, "jsonb", contract.zone, value), "utf-8")
    return text.replace("\\", "\\\\") if "\\" in text else text


NAMES: Mapping[str, Any] = {"Nanoseconds": Nanoseconds, "UTC": UTC, "UUID": UUID, "date": date, "datetime": datetime}

FIELD_TYPES: Mapping[tuple[str, str], Callable[[Column, Mapping[str, Any], Contract], DocumentField]] = {
    ("str", "text"): _text,
    ("bytes", "bytea"): _bytes,
    ("literal", "text"): _choice,
    ("enum", "text"): _choice,
    ("bool", "boolean"): _boolean,
    ("int", "whole"): _integer,
    ("float", "double precision"): _double,
    ("decimal", "numeric"): _decimal,
    ("function-plain", "timestamptz"): _time,
    ("function-plain", "date"): _time,
    ("function-plain", "time"): _time,
    ("uuid", "uuid"): _uuid,
    ("dict", "jsonb"): _json(dict),
    ("list", "jsonb"): _json(list),
}
