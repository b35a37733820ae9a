"""The types that the fast path of documents knows: from pydantic's core schema of a field to how a value is written.

A document is what a schema made of a value (formats.base): its values have Python's types. Where this gives a cell,
Contract.decode accepts the value and Postgres stores the same; all else is left to decode.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from headrace.contracts.column_types import store_document
from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.copy_cells import NotPlain
from headrace.contracts.copy_field import UnsupportedField, only
from headrace.contracts.copy_field_types import bounds_of, integer_bounds, numeric_digits, utc_text
from headrace.contracts.numbers import FLOAT_MAX
from headrace.contracts.times import PARSERS, parse_date, parse_time
from headrace.formats.values import Nanoseconds

_REFUSE = "    return None\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentField:
    """How a field's value is written.

    steps: statements that make text of the value in {v}, or refuse the record; names are what they refer to, the
    field's number behind each. suffix: written behind the text. default_class: of defaults whose text is known.
    """

    steps: str
    names: Mapping[str, Any]
    suffix: str = ""
    default_class: type | None = None


def _text(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "min_length", "max_length")
    steps = f'if {{v}}.__class__ is not str or "\\0" in {{v}}{_lengths(schema)}:\n{_REFUSE}{{v}} = escaped({{v}})\n'
    return DocumentField(steps=steps, names={}, default_class=str)


def _lengths(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("min_length"), schema.get("max_length")
    return (f" or len({{v}}) < {least}" if least else "") + ("" if most is None else f" or len({{v}}) > {most}")


def _bytes(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "min_length", "max_length", "strict")
    steps = f"if {{v}}.__class__ is not bytes{_lengths(schema)}:\n{_REFUSE}{{v}} = f'\\\\\\\\x{{{{{{v}}.hex()}}}}'\n"
    return DocumentField(steps=steps, names={})


def _choice(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "expected")
    return _of_choices(schema["expected"])


def _enum(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "cls", "members", "sub_type", "missing", "strict")
    if schema.get("missing") is not None:
        raise UnsupportedField
    return _of_choices([member.value for member in schema["members"]])


def _of_choices(choices: Sequence[Any]) -> DocumentField:
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
    steps = f"if {{v}}.__class__ is not int or not {lower} <= {{v}} <= {upper}:\n{_REFUSE}"
    return DocumentField(steps=steps, names={}, default_class=int)


def _double(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema, "allow_inf_nan", "ge", "gt", "le", "lt", "strict")
    steps = (
        f"if {{v}}.__class__ is not float or not -{FLOAT_MAX!r} <= {{v}} <= {FLOAT_MAX!r} or not within{{i}}({{v}}):\n"
        f"{_REFUSE}{{v}} = repr({{v}})\n"
    )
    return DocumentField(steps=steps, names={"within": bounds_of(schema)})


def _decimal(column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    whole, places = numeric_digits(column, schema)
    is_within = bounds_of(schema)

    def text(value: Any) -> str:
        if value.__class__ is not Decimal or not value.is_finite():
            raise NotPlain
        exponent = value.as_tuple().exponent
        # -0 and a scale below 0 are rare enough to be looked at
        if not -places <= exponent <= 0 or (value and value.adjusted() >= whole) or not is_within(value):
            raise NotPlain
        if not value and value.is_signed():
            raise NotPlain
        return f"{value:f}"

    return DocumentField(steps="{v} = text{i}({v})\n", names={"text": text})


def _time(column: Column, schema: Mapping[str, Any], contract: Contract) -> DocumentField:
    """A parser of contracts.times, known by being that very function."""
    only(schema, "function", "json_schema_input_schema")
    parser = schema["function"].get("function")
    if parser not in PARSERS:
        raise UnsupportedField
    if parser is parse_date and column.sql_type == "date":
        steps = f"if {{v}}.__class__ is not date:\n{_REFUSE}{{v}} = {{v}}.isoformat()\n"
        return DocumentField(steps=steps, names={})
    if parser is parse_time and column.sql_type == "time":
        return DocumentField(steps="{v} = clock{i}({v})\n", names={"clock": _clock})
    if column.sql_type != "timestamptz":
        raise UnsupportedField
    zone = contract.zone

    def moment(value: Any) -> str:
        if value.__class__ is Nanoseconds:
            value = value.datetime()
        if value.__class__ is not datetime:
            raise NotPlain
        return utc_text(value.replace(tzinfo=zone) if value.tzinfo is None else value)

    if zone is UTC:  # written as Postgres reads it, without another object of it
        steps = (
            "if {v}.__class__ is datetime and ({v}.tzinfo is None or {v}.tzinfo is UTC) and 2 <= {v}.year <= 9998:\n"
            "    {v} = {v}.isoformat(' ').partition('+')[0]\nelse:\n    {v} = moment{i}({v})\n"
        )
    else:
        steps = "{v} = moment{i}({v})\n"
    return DocumentField(steps=steps, names={"moment": moment}, suffix="+00")


def _clock(value: Any) -> str:
    if not hasattr(value, "hour") or value.__class__ is datetime or value.tzinfo is not None:
        raise NotPlain
    return str(value.isoformat())


def _uuid(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> DocumentField:
    only(schema)
    return DocumentField(steps=f"if {{v}}.__class__ is not UUID:\n{_REFUSE}{{v}} = str({{v}})\n", names={})


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


NAMES: Mapping[str, Any] = {"UTC": UTC, "UUID": UUID, "date": date, "datetime": datetime}

FIELD_TYPES: Mapping[tuple[str, str], Callable[[Column, Mapping[str, Any], Contract], DocumentField]] = {
    ("str", "text"): _text,
    ("bytes", "bytea"): _bytes,
    ("literal", "text"): _choice,
    ("enum", "text"): _enum,
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
