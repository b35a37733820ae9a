"""The fast way of a record: from its JSON straight to a line of COPY text, for records that are as they should be.

A contract is compiled, from the core schema that pydantic validates by, to one function: msgspec reads the JSON, a
few checks follow, an f-string writes the line. The function knows no reasons. Whatever is unusual (a field that the
contract does not name, an escape, a number with an exponent, a tombstone) or wrong gives None, and the record goes
the slow way, through Contract.decode, which alone decides what is a dead letter and why. So the function has one
duty: where it gives a line, the contract accepts the record, and Postgres stores the same row either way.
tests/unit/test_copy_lines.py holds it to that with the corpus and the fuzzer, test_fast_rows.py on a real server.

A contract with something that is not known here (another type, a rule about several fields) has no such function.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, tzinfo
from textwrap import indent
from typing import Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec
from pydantic import BaseModel

from headrace.columns import INTEGER_MAX, Column
from headrace.contract import EPOCH_MS_MAX, EPOCH_MS_MIN, PLAIN_TIMES, Contract, parse_epoch_ms, parse_timestamp
from headrace.staging import NULL, escaped

# (offset, the record's time as text, key, value, headers as text) to the columns of `staging.columns`, with tabs
# between them and a newline behind them
LineMaker = Callable[[int, str, bytes | None, bytes | None, str], str | None]
Binder = Callable[[int, int, UUID], LineMaker]  # generation, partition, batch_id: the same in a whole batch

DIGITS_MAX = 15  # what a double carries there and back: pydantic reads JSON's numbers as doubles
JSON_LENGTH_MAX = 4_000  # no number in it is longer than the contract lets pass
JSON_NESTING_MAX = 100  # and nothing is nested deeper


def compile_lines(contract: Contract) -> Binder | None:
    """Compile a contract; None where something in it is known to the slow way alone."""
    try:
        schemas = _field_schemas(contract.model)
        fields = [_field(column, schemas[column.field], contract.zone) for column in contract.columns]
    except _Unknown:
        return None
    struct = msgspec.defstruct(
        "Fields",
        [(f"v{i}", *field.definition) for i, field in enumerate(fields)],
        rename={f"v{i}": column.field for i, column in enumerate(contract.columns)},
        forbid_unknown_fields=True,
        kw_only=True,  # else those with a default would have to come last
        gc=False,  # a struct of texts and numbers is in no cycle
    )
    names: dict[str, Any] = {"UNSET": msgspec.UNSET, "decode": msgspec.json.Decoder(struct).decode}
    for i, field in enumerate(fields):
        names |= {f"{name}{i}": value for name, value in field.names.items()}
    # as dataclasses and namedtuples are made; the source holds numbers and names of ours, and nothing of the contract's
    exec(_source(contract, fields), names)  # noqa: S102
    binder: Binder = names["bind"]
    return binder


class _Unknown(Exception):
    """Never leaves this module: a contract with something that is not known here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """How a field is read and written.

    kind: msgspec's type. quotes: how many its value has in JSON. parse: statements that leave the field's value in {v},
    where msgspec does not; steps: those that make its text of it; either may refuse the record. names are what they
    refer to, the field's number behind each. suffix: written behind {v}.
    """

    kind: Any
    quotes: int = 0
    parse: str = ""
    steps: str = ""
    suffix: str = ""
    names: Mapping[str, Any]
    is_nullable: bool = False
    has_default: bool = False

    @property
    def definition(self) -> tuple[Any, ...]:
        """Type, and default if any, as msgspec.defstruct takes them."""
        kind = self.kind | None if self.is_nullable and self.kind is not msgspec.Raw else self.kind
        return (kind, msgspec.UNSET) if self.has_default else (kind,)

    def source(self, i: int) -> str:
        """Statements that leave the text of field i in v<i> and count its quotes."""
        read, steps = f"v{i} = fields.v{i}\n", (self.parse + self.steps).format(v=f"v{i}", i=i)
        if not self.is_nullable and not self.has_default:
            return read + steps
        branches = []
        if self.has_default:
            branches.append(f"if v{i} is UNSET:\n    v{i} = default{i}\n")
        if self.is_nullable:
            null = f"bytes(v{i}) == b'null'" if self.kind is msgspec.Raw else f"v{i} is None"
            branches.append(f"if {null}:\n    quotes += 2\n    v{i} = {NULL!r}\n")
        steps += f"quotes += {2 + self.quotes}\n"
        # the suffix here, for null and a default have none
        branches.append(f"if True:\n{indent(steps, '    ')}    v{i} = f'{{v{i}}}{self.suffix}'\n")
        return read + "el".join(branches).replace("elif True:", "else:")


def _source(contract: Contract, fields: Sequence[_Field]) -> str:
    """The text of `bind`, a function that gives the function of a batch."""
    always = [field for field in fields if not field.is_nullable and not field.has_default]
    quotes = sum(2 + field.quotes for field in always)
    steps = "".join(field.source(i) for i, field in enumerate(fields))
    columns = r"\t".join(f"{{v{i}}}{field.suffix if field in always else ''}" for i, field in enumerate(fields))
    return f"""
def bind(generation, partition, batch_id):
    place = f"\\t{{generation}}\\t{{partition}}\\t"
    tail = f"\\tf\\t\\\\N\\t{{batch_id}}\\n"

    def make_line(offset, at, key, value, headers):
        if value is None or len(value) > {contract.max_value_bytes}:
            return None
        try:
            text = str(value, "utf-8")
            fields = decode(text)
            if "\\\\" in text:
                return None
            quotes = {quotes}
{indent(steps, " " * 12)}
        except Exception:  # whatever it is, the slow way meets it too, and says it
            return None
        # no more than the fields need: none stands twice, and no number stands as text
        if text.count('"') != quotes:
            return None
{indent(_key_source(contract), " " * 8)}
        return f"{columns}{{place}}{{offset}}\\t{{at}}\\t{{key_text}}\\t{{headers}}{{tail}}"

    return make_line
"""


def _key_source(contract: Contract) -> str:
    """Statements that leave the record's key, as bytea reads it, in key_text."""
    if contract.key_index is None:
        return r"""key_text = "\\N" if key is None else f"\\\\x{key.hex()}" """
    # bytea takes ASCII as it stands, and here it is without a backslash; other bytes it would take in the server's
    # encoding
    return rf"""
key_text = str(v{contract.key_index})
if key != key_text.encode():
    return None
if not key.isascii():
    key_text = f"\\\\x{{key.hex()}}"
"""


def _field_schemas(model: type[BaseModel]) -> Mapping[str, Mapping[str, Any]]:
    """The core schema of every field; raises _Unknown for a model that does more than validate its fields.

    https://docs.pydantic.dev/latest/api/pydantic_core_schema/ lists the types and what they may hold.
    """
    schema: Any = model.__pydantic_core_schema__
    if schema["type"] != "model" or any(schema.get(name) for name in ("custom_init", "post_init", "root_model")):
        raise _Unknown
    if not set(model.model_config) <= {"strict", "extra", "allow_inf_nan"}:
        raise _Unknown
    fields = schema["schema"]
    if fields["type"] != "model-fields" or any(fields.get(n) for n in ("extras_schema", "extras_keys_schema")):
        raise _Unknown
    if any(set(field) - {"type", "schema", "metadata", "frozen"} for field in fields["fields"].values()):
        raise _Unknown
    return {name: field["schema"] for name, field in fields["fields"].items()}


def _field(column: Column, schema: Mapping[str, Any], zone: tzinfo) -> _Field:
    if schema["type"] == "default":
        _only(schema, "schema", "default")
        field = _field(column, schema["schema"], zone)
        default = _default(schema["default"], field)
        return replace(field, has_default=True, names={**field.names, "default": default})
    if schema["type"] == "nullable":
        _only(schema, "schema")
        return replace(_field(column, schema["schema"], zone), is_nullable=True)
    if schema["type"] == "function-after":
        return _validated(column, schema, zone)
    make = _FIELDS.get((schema["type"], _family(column.sql_type)))
    if make is None:
        raise _Unknown
    return make(column, schema, zone)


def _family(sql_type: str) -> str:
    return "whole" if sql_type in INTEGER_MAX else sql_type.partition("(")[0]


def _only(schema: Mapping[str, Any], *names: str) -> None:
    """Raise _Unknown for a core schema that says more than these; what does not validate may stand there."""
    if not set(schema) <= {"type", "metadata", "ref", "serialization", *names}:
        raise _Unknown


def _validated(column: Column, schema: Mapping[str, Any], zone: tzinfo) -> _Field:
    """A field with a validator of its own; a value that it changes is left to the slow way."""
    _only(schema, "function", "schema")
    inner = schema["schema"]
    if schema["function"]["type"] != "no-info" or inner["type"] not in ("str", "literal", "bool", "int", "float"):
        raise _Unknown
    field = _field(column, inner, zone)
    return replace(
        field,
        parse=field.parse + "if validate{i}({v}) is not {v}:\n    return None\n",
        names={**field.names, "validate": schema["function"]["function"]},
    )


def _default(value: object, field: _Field) -> str:
    if value is None:
        return NULL
    kind = get_args(field.kind)[0] if get_origin(field.kind) is Annotated else field.kind
    if get_origin(kind) is Literal:
        kind = str
    if "parse" in field.names:
        kind = float
    if type(value) is not kind or "in_utc" in field.names:
        raise _Unknown
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, str) and not value.isprintable():
        raise _Unknown
    return escaped(str(value))


def _text(_column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    _only(schema, "min_length", "max_length")
    return _Field(kind=_limited(str, schema, "min_length", "max_length"), quotes=2, names={})


def _choice(_column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    _only(schema, "expected")
    if not all(isinstance(choice, str) for choice in schema["expected"]):
        raise _Unknown
    return _Field(kind=Literal[tuple(schema["expected"])], quotes=2, names={})


def _boolean(_column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    _only(schema)
    return _Field(kind=bool, steps="{v} = 't' if {v} else 'f'\n", names={})


def _whole(column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    _only(schema, "ge", "gt", "le", "lt")
    limit = INTEGER_MAX[column.sql_type]
    if not all(isinstance(schema.get(name, 0), int) for name in ("ge", "gt", "le", "lt")):
        raise _Unknown
    lower = max(schema.get("ge", -limit - 1), schema.get("gt", -limit - 2) + 1, -limit - 1)
    upper = min(schema.get("le", limit), schema.get("lt", limit + 1) - 1, limit)
    return _Field(kind=Annotated[int, msgspec.Meta(ge=lower, le=upper)], names={})


# no exponent that overflows, nor one that only the strict parser would refuse
_PLAIN_NUMBER = re.compile(r"-?[0-9]{1,17}(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,2})?").fullmatch


def _double(_column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    _only(schema, "allow_inf_nan")

    def parse(raw: msgspec.Raw) -> float:
        text = str(raw, "utf-8")
        if not _PLAIN_NUMBER(text):
            raise ValueError("not plain")
        return float(text)

    return _Field(kind=msgspec.Raw, parse="{v} = parse{i}({v})\n", steps="{v} = repr({v})\n", names={"parse": parse})


def _decimal(column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    """Its text as it stands in the JSON, where that is plain and has no more digits than a double keeps."""
    _only(schema, "max_digits", "decimal_places", "ge")
    places = schema.get("decimal_places", 0)
    whole = min(schema.get("max_digits", 0), DIGITS_MAX) - places
    # a numeric without a scale would keep zeros that a double drops
    if whole < 1 or places < 1 or schema.get("ge", 0) != 0 or "(" not in column.sql_type:
        raise _Unknown
    sign = "" if "ge" in schema else "-?"
    pattern = rf"{sign}(?:0|[1-9][0-9]{{0,{whole - 1}}})(?:\.[0-9]{{1,{places}}})?"
    return _Field(
        kind=msgspec.Raw,
        steps="{v} = str({v}, 'utf-8')\nif not is_plain{i}({v}):\n    return None\n",
        names={"is_plain": re.compile(pattern).fullmatch},
    )


def _time(_column: Column, schema: Mapping[str, Any], zone: tzinfo) -> _Field:
    """A parser of the contract's module, known by being that very function."""
    _only(schema, "function", "json_schema_input_schema")
    parser = schema["function"]["function"]
    if parser is parse_epoch_ms:
        return _Field(
            kind=Annotated[int, msgspec.Meta(ge=EPOCH_MS_MIN, le=EPOCH_MS_MAX)],
            steps="{v} = in_utc{i}({v})\n",
            suffix="+00",
            names={"in_utc": lambda milliseconds: _in_utc(parse_epoch_ms(milliseconds))},
        )
    if parser is not parse_timestamp:
        raise _Unknown

    def in_utc(text: str) -> str:
        at = parse_timestamp(text)
        return _in_utc(at.replace(tzinfo=zone) if at.tzinfo is None else at)

    steps = "{v} = in_utc{i}({v})\n"
    if zone is UTC:  # without a zone it is as Postgres reads it, once it is known to be a time
        steps = (
            "if len({v}) == 19 and {v}[4::3] in PLAIN_TIMES{i}:\n    fromisoformat{i}({v})\n"
            f"else:\n    {steps}"
        )
    names = {"in_utc": in_utc, "PLAIN_TIMES": PLAIN_TIMES, "fromisoformat": datetime.fromisoformat}
    return _Field(kind=str, quotes=2, steps=steps, suffix="+00", names=names)


def _in_utc(at: datetime) -> str:
    # in UTC: Postgres reads zones of less than 16 hours, Python of less than 24; OverflowError beyond Python's years
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(" ")


def _object(_column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    _only(schema, "keys_schema", "values_schema")
    if schema.get("keys_schema", {"type": "str"}) != {"type": "str"}:
        raise _Unknown
    return _json(dict, schema.get("values_schema"))


def _array(_column: Column, schema: Mapping[str, Any], _zone: tzinfo) -> _Field:
    _only(schema, "items_schema")
    return _json(list, schema.get("items_schema"))


def _json(kind: type, inner: Mapping[str, Any] | None) -> _Field:
    if inner not in (None, {"type": "any"}):
        raise _Unknown
    decode: Callable[[str], Any] = msgspec.json.Decoder(kind).decode
    return _Field(
        kind=msgspec.Raw,
        steps="{v} = str({v}, 'utf-8')\nquotes += json_quotes{i}({v})\n",
        names={"json_quotes": lambda text: _json_quotes(text, decode)},
    )


# a line end or a tab means something to COPY; an exponent may make a number that is longer than any text
_ODD_JSON = re.compile(r"[\t\n\r]|[0-9][eE]").search


def _json_quotes(text: str, decode: Callable[[str], Any]) -> int:
    """How many quotes a document needs; raises ValueError, or msgspec's errors, for one that is not plain."""
    if len(text) > JSON_LENGTH_MAX or text.count("{") + text.count("[") > JSON_NESTING_MAX or _ODD_JSON(text):
        raise ValueError("not plain")
    return _quotes(decode(text))


def _quotes(part: Any) -> int:
    if isinstance(part, str):
        return 2
    if isinstance(part, dict):
        return sum(2 + _quotes(item) for item in part.values())
    return sum(map(_quotes, part)) if isinstance(part, list) else 0


def _limited(kind: type, schema: Mapping[str, Any], *names: str) -> Any:
    limits = {name: schema[name] for name in names if schema.get(name) is not None}
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind


_FIELDS: Mapping[tuple[str, str], Callable[[Column, Mapping[str, Any], tzinfo], _Field]] = {
    ("str", "text"): _text,
    ("literal", "text"): _choice,
    ("bool", "boolean"): _boolean,
    ("int", "whole"): _whole,
    ("float", "double precision"): _double,
    ("decimal", "numeric"): _decimal,
    ("function-plain", "timestamptz"): _time,
    ("dict", "jsonb"): _object,
    ("list", "jsonb"): _array,
}
