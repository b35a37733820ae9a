"""The fast path of a record: from its JSON straight to a line of COPY text.

A contract is compiled, from the core schema that pydantic validates by, to one function: msgspec reads the JSON, a
few checks follow, an f-string writes the line. The function knows no reasons. Whatever is unusual (a number with an
exponent, a tombstone, an escaped quote) or wrong gives None, and the record goes to Contract.decode, which alone
decides what is a dead letter and why. So the function has one duty: where it gives a line, the contract accepts the
record, and Postgres stores the same row either way. tests/unit/test_copy_text.py holds it to that with the corpus and
the fuzzer, test_fast_rows.py on a real server.

A contract with something that is not known here (another type, a rule about several fields) has no such function.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from textwrap import indent
from typing import Annotated, Any, Literal, get_args, get_origin
from uuid import UUID

import msgspec
import orjson
from pydantic import BaseModel

from headrace.contracts.column_types import INTEGER_MAX
from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.numbers import FLOAT_MAX, NUMERIC_DIGITS_MAX, NUMERIC_PLACES_MAX
from headrace.contracts.strict_json import nests_too_deep
from headrace.contracts.times import (
    EPOCH_MS_MAX,
    EPOCH_MS_MIN,
    PLAIN_TIMES,
    parse_date,
    parse_epoch_ms,
    parse_epoch_s,
    parse_timestamp,
)

# (offset, the record's time as text, key, value, headers as text) to the columns of `staging.columns`, with tabs
# between them and a newline behind them
LineMaker = Callable[[int, str, bytes | None, bytes | None, str], str | None]
Binder = Callable[[int, int, UUID], LineMaker]  # generation, partition, batch_id: the same in a whole batch

NULL = r"\N"  # in COPY text


def escaped(text: str) -> str:
    """Text as COPY reads it (Postgres, COPY, text format)."""
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\n" in text or "\r" in text or "\t" in text:
        text = text.replace("\n", "\\n").replace("\r", "\\r").replace("\t", "\\t")
    return text


def compile_lines(contract: Contract) -> Binder | None:
    """Compile a contract; None where something in it is known to Contract.decode alone."""
    try:
        schemas = _field_schemas(contract.model)
        fields = [_field(column, schemas[column.field], contract) for column in contract.columns]
        if any(len(column.source_names) != 1 for column in contract.columns):
            raise _Unknown
    except _Unknown:
        return None
    source_names = [column.source_names[0] for column in contract.columns]
    struct = msgspec.defstruct(
        "Fields",
        [(f"v{i}", *field.definition) for i, field in enumerate(fields)],
        rename={f"v{i}": name for i, name in enumerate(source_names)},
        kw_only=True,  # else those with a default would have to come last
        gc=False,  # a struct of texts and numbers is in no cycle
    )
    names: dict[str, Any] = {
        "UNSET": msgspec.UNSET,
        "decode": msgspec.json.Decoder(struct).decode,
        "extra_of": _Extra(source_names) if contract.model.model_config.get("extra") != "forbid" else _no_extra,
        "escaped": escaped,
    }
    for i, field in enumerate(fields):
        names |= {f"{name}{i}": value for name, value in field.names.items()}
    # as dataclasses and namedtuples are made; the source holds numbers and names of ours, and nothing of the contract's
    exec(_source(contract, fields), names)  # noqa: S102
    binder: Binder = names["bind"]
    return binder


class _Unknown(Exception):
    """Never leaves this module: a contract with something that is not known here."""


class _NotPlain(ValueError):
    """Never leaves this module: JSON that Contract.decode has to look at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """How a field is read and written.

    kind: msgspec's type. quotes: how many its value has in JSON, at least. parse: statements that leave the field's
    value in {v}, where msgspec does not, and count further quotes; steps: those that make its text of it; either may
    refuse the record by an exception. names are what they refer to, the field's number behind each. suffix: written
    behind {v}. empty_is_null: an empty text counts as null, where the field is nullable.
    """

    kind: Any
    quotes: int = 0
    parse: str = ""
    steps: str = ""
    suffix: str = ""
    names: Mapping[str, Any]
    is_nullable: bool = False
    has_default: bool = False
    empty_is_null: bool = False

    @property
    def is_raw(self) -> bool:
        """Whether msgspec leaves the field's JSON as it stands."""
        return self.kind is msgspec.Raw

    @property
    def definition(self) -> tuple[Any, ...]:
        """Type, and default if any, as msgspec.defstruct takes them."""
        kind = self.kind
        if self.is_nullable and not self.is_raw:
            kind = kind | None
        if self.is_nullable and self.empty_is_null and not self.is_raw and not _takes_text(self.kind):
            kind = kind | Literal[""]
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
            null = f"bytes(v{i}) == b'null'" if self.is_raw else f"v{i} is None"
            branches.append(f"if {null}:\n    quotes += 2\n    v{i} = {NULL!r}\n")
            if self.empty_is_null:
                empty = f"bytes(v{i}) == b'\"\"'" if self.is_raw else f"v{i} == ''"
                branches.append(f"if {empty}:\n    quotes += 4\n    v{i} = {NULL!r}\n")
        steps += f"quotes += {2 + self.quotes}\n"
        # the suffix here, for null and a default have none
        if self.suffix:
            steps += f"v{i} = f'{{v{i}}}{self.suffix}'\n"
        branches.append(f"if True:\n{indent(steps, '    ')}")
        return read + "el".join(branches).replace("elif True:", "else:")


def _takes_text(kind: Any) -> bool:
    kinds = get_args(kind) if get_origin(kind) is not Annotated else (kind,)
    return str in (kind, *kinds) or any(get_args(part)[:1] == (str,) for part in (kind, *kinds))


def _source(contract: Contract, fields: Sequence[_Field]) -> str:
    """The text of `bind`, a function that gives the function of a batch."""
    always = [field for field in fields if not field.is_nullable and not field.has_default]
    quotes = sum(2 + field.quotes for field in always)
    steps = "".join(field.source(i) for i, field in enumerate(fields))
    columns = r"\t".join(f"{{v{i}}}{field.suffix if field in always else ''}" for i, field in enumerate(fields))
    return f"""
def bind(generation, partition, batch_id):
    place = f"\\t{{generation}}\\t{{partition}}\\t"
    tail = f"\\t{{batch_id}}\\n"

    def make_line(offset, at, key, value, headers):
        if value is None or len(value) > {contract.max_value_bytes}:
            return None
        try:
            text = str(value, "utf-8")
{indent(_split_source(contract), " " * 12)}
            fields = decode(text)
            has_escapes = "\\\\" in text
            if has_escapes and ("\\\\u0000" in text or "\\\\u0022" in text):
                return None
            quotes = {quotes}
{indent(steps, " " * 12)}
            # as many as the fields need: none stands twice, and there is no other
            others = text.count('"') - quotes
            extra = extra_of(text, others, has_escapes) if others else {NULL!r}
        except Exception:  # whatever it is, Contract.decode meets it too, and says it
            return None
{indent(_key_source(contract), " " * 8)}
        return f"{columns}{{place}}{{offset}}\\t{{at}}\\t{{key_text}}\\t{{headers}}\\tf\\t{{extra}}{{tail}}"

    return make_line
"""


def _split_source(contract: Contract) -> str:
    """Statements that take a key off the document's front and leave it in prefix."""
    if contract.separator is None:
        return ""
    return f"""
prefix = None
if text[:1] in " \\t\\r\\n":
    return None  # a document may follow
if text[:1] != "{{":
    prefix, found, text = text.partition({contract.separator!r})
    if not found or text[:1] != "{{":
        return None
"""


def _key_source(contract: Contract) -> str:
    """Statements that leave the record's key, as bytea reads it, in key_text; the field's own text is there before."""
    if contract.key_index is None:
        return r"""key_text = "\\N" if key is None else f"\\\\x{key.hex()}" """
    # bytea takes ASCII as it stands, where it has no backslash; other bytes it would take in the server's encoding
    as_hex = r"""if has_escapes or not key.isascii():
    key_text = f"\\\\x{key.hex()}"
"""
    if contract.separator is None:
        return f"if key != key_text.encode():\n    return None\n{as_hex}"
    return rf"""
if key is None:
    if prefix != key_text:
        return None
    key_text = "\\N"
elif key != key_text.encode() or (prefix is not None and prefix != key_text):
    return None
el{as_hex}"""


class _Extra:
    """The fields that a contract does not name, as a cell of COPY text: {"name":value,...} as the record wrote them."""

    def __init__(self, source_names: Sequence[str]) -> None:
        self._names = tuple(source_names)
        self._decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

    def __call__(self, text: str, quotes: int, has_escapes: bool) -> str:
        """The cell, for a document whose other fields have so many quotes; raises ValueError for another number."""
        others = self._decode(text)
        pop = others.pop
        for name in self._names:
            pop(name, None)
        if not others:
            raise _NotPlain  # a name that stands twice
        extra = msgspec.json.encode(others)
        if extra.count(b'"') != quotes:
            raise _NotPlain
        # msgspec has read it: what it lets pass and the contract does not is in escapes, exponents, digits and objects
        if has_escapes or len(extra) > SMALL or _NESTED_OR_ODD(extra, 1):
            return json_cell(extra)
        return str(extra, "utf-8")


def _no_extra(_text: str, _quotes: int, _has_escapes: bool) -> str:
    raise _NotPlain


# an exponent that makes a number longer than any text; characters beyond what Contract.decode accepts
SMALL = 200  # bytes: below them a pattern costs less than to parse again, and above them more
_NESTED_OR_ODD = re.compile(rb"[{\[\t\n\r]|[0-9][eE]").search
_SMALL_NUMBER = re.compile(rb"[0-9][eE]-[0-9]{3}").search
# from its beginning alone: tried from each of its characters, numbers of 3,999 of them cost 2 s a megabyte
_LONG_NUMBER = re.compile(rb"(?<![-+0-9.eE])[-+0-9.eE]{4000}").search
JSON_LENGTH_MAX = 4_000  # no number in it is longer than the contract lets pass
JSON_BRACKETS_MAX = 100  # nothing can be nested deeper
_WHITE_SPACE = str.maketrans("\t\n\r", "   ")  # between tokens: in a text none of them stands as it is


def json_cell(raw: bytes) -> str:
    """JSON as a cell of COPY text, number by number as it was written.

    Raises ValueError for JSON that Contract.decode has to look at: a name twice in an object, a number out of bounds,
    deep nesting, or no JSON at all.
    """
    document = orjson.loads(raw)
    # Written again, an object has each name once: fewer quotes where one stood twice. An escaped quote is one again,
    # and \u0022, which would be, is not let through.
    if raw.count(b"{") > 0 and orjson.dumps(document).count(b'"') != raw.count(b'"'):
        raise _NotPlain
    if raw.count(b"[") + raw.count(b"{") > JSON_BRACKETS_MAX and nests_too_deep(f"[{raw.decode()}]"):
        raise _NotPlain
    if (b"e-" in raw or b"E-" in raw) and _SMALL_NUMBER(raw):
        raise _NotPlain
    if len(raw) > JSON_LENGTH_MAX and _LONG_NUMBER(raw):
        raise _NotPlain
    text = str(raw, "utf-8")
    if "\n" in text or "\t" in text or "\r" in text:
        text = text.translate(_WHITE_SPACE)
    return text.replace("\\", "\\\\") if "\\" in text else text


def _field_schemas(model: type[BaseModel]) -> Mapping[str, Mapping[str, Any]]:
    """The core schema of every field; raises _Unknown for a model that does more than validate its fields.

    https://docs.pydantic.dev/latest/api/pydantic_core_schema/ lists the types and what they may hold.
    """
    schema: Any = model.__pydantic_core_schema__
    if schema["type"] != "model" or any(schema.get(name) for name in ("custom_init", "post_init", "root_model")):
        raise _Unknown
    if not set(model.model_config) <= {"strict", "extra", "allow_inf_nan", "title"}:
        raise _Unknown
    fields = schema["schema"]
    if fields["type"] != "model-fields" or any(fields.get(n) for n in ("extras_schema", "extras_keys_schema")):
        raise _Unknown
    known = {"type", "schema", "metadata", "frozen", "validation_alias", "serialization_alias"}
    if any(set(field) - known for field in fields["fields"].values()):
        raise _Unknown
    return {name: field["schema"] for name, field in fields["fields"].items()}


def _field(column: Column, schema: Mapping[str, Any], contract: Contract) -> _Field:
    field = _made(column, schema, contract)
    if contract.key_index is not None and contract.columns[contract.key_index] is column:
        if field.is_nullable or field.has_default:
            raise _Unknown
        field = replace(field, parse=field.parse + "key_text = str({v})\n")
    return field


def _made(column: Column, schema: Mapping[str, Any], contract: Contract) -> _Field:
    if schema["type"] == "default":
        _only(schema, "schema", "default")
        field = _made(column, schema["schema"], contract)
        default = _default(schema["default"], field)
        return replace(field, has_default=True, names={**field.names, "default": default})
    if schema["type"] == "nullable":
        _only(schema, "schema")
        field = _made(column, schema["schema"], contract)
        if field.has_default:
            raise _Unknown
        return replace(field, is_nullable=True)
    if schema["type"] == "function-after":
        return _validated(column, schema, contract)
    make = _FIELDS.get((schema["type"], _family(column.sql_type)))
    if make is None:
        raise _Unknown
    return make(column, schema, contract)


def _family(sql_type: str) -> str:
    return "whole" if sql_type in INTEGER_MAX else sql_type.partition("(")[0]


def _only(schema: Mapping[str, Any], *names: str) -> None:
    """Raise _Unknown for a core schema that says more than these; what does not validate may stand there."""
    if not set(schema) <= {"type", "metadata", "ref", "serialization", *names}:
        raise _Unknown


def _validated(column: Column, schema: Mapping[str, Any], contract: Contract) -> _Field:
    """A field with a validator of its own; a value that it changes is left to Contract.decode."""
    _only(schema, "function", "schema")
    inner = schema["schema"]
    if schema["function"]["type"] != "no-info" or inner["type"] not in ("str", "literal", "bool", "int", "float"):
        raise _Unknown
    field = _made(column, inner, contract)
    return replace(
        field,
        parse=field.parse + "if validate{i}({v}) is not {v}:\n    return None\n",
        names={**field.names, "validate": schema["function"]["function"]},
    )


def _default(value: object, field: _Field) -> str:
    if value is None:
        return NULL
    if isinstance(value, dict | list) and not value and field.is_raw and "json_cell" in field.names:
        return "[]" if isinstance(value, list) else "{}"
    if "in_utc" in field.names or "exact" in field.names:
        raise _Unknown
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, str) and not value.isprintable():
        raise _Unknown
    if not isinstance(value, str | int | float) or not _is_of_kind(value, field):
        raise _Unknown
    return escaped(str(value))


def _is_of_kind(value: object, field: _Field) -> bool:
    if field.is_raw:
        return "parse" in field.names and type(value) is float
    kinds = [field.kind, *get_args(field.kind)]
    plain = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    if any(get_origin(kind) is Literal for kind in plain):
        return type(value) is str
    return type(value) is (int if int in plain else str if str in plain else None)


def _text(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> _Field:
    _only(schema, "min_length", "max_length")
    return _Field(
        kind=_limited(str, schema, "min_length", "max_length"),
        quotes=2,
        steps="if has_escapes:\n    quotes += {v}.count('\"')\n    {v} = escaped({v})\n",
        names={},
    )


def _choice(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> _Field:
    _only(schema, "expected")
    return _of_choices(schema["expected"])


def _enum(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> _Field:
    _only(schema, "cls", "members", "sub_type", "missing", "strict")
    if schema.get("missing") is not None:
        raise _Unknown
    return _of_choices([member.value for member in schema["members"]])


def _of_choices(choices: Sequence[Any]) -> _Field:
    if not all(isinstance(choice, str) and choice.isprintable() and not set(choice) & set('"\\') for choice in choices):
        raise _Unknown
    return _Field(kind=Literal[tuple(choices)], quotes=2, names={})


def _boolean(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> _Field:
    _only(schema, "strict")
    return _Field(kind=bool, steps="{v} = 't' if {v} else 'f'\n", names={}, empty_is_null=True)


# as text: no sign of a plus, no blank, no underscore, and no more digits than 64 bits surely hold
_INTEGER_TEXT = re.compile(r"-?[0-9]{1,18}").fullmatch


def _integer(column: Column, schema: Mapping[str, Any], contract: Contract) -> _Field:
    _only(schema, "ge", "gt", "le", "lt", "strict")
    limit = INTEGER_MAX[column.sql_type]
    if not all(isinstance(schema.get(name, 0), int) for name in ("ge", "gt", "le", "lt")):
        raise _Unknown
    lower = max(schema.get("ge", -limit - 1), schema.get("gt", -limit - 2) + 1, -limit - 1)
    upper = min(schema.get("le", limit), schema.get("lt", limit + 1) - 1, limit)
    number = Annotated[int, msgspec.Meta(ge=lower, le=upper)]
    if contract.strict or schema.get("strict"):
        return _Field(kind=number, names={})

    def from_text(text: str) -> int:
        if not _INTEGER_TEXT(text) or not lower <= (found := int(text)) <= upper:
            raise _NotPlain
        return found

    return _Field(
        kind=number | str,
        parse="if {v}.__class__ is str:\n    {v} = from_text{i}({v})\n    quotes += 2\n",
        names={"from_text": from_text},
        empty_is_null=True,
    )


# no exponent that overflows, nor one that only Contract.decode would refuse
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,16})(?:\.[0-9]{1,20})?(?:[eE][-+]?[0-9]{1,2})?").fullmatch
_UNQUOTED = "{v} = str({v}, 'utf-8')\nif {v}[0] == '\"':\n    {v} = {v}[1:-1]\n    quotes += 2\n"
_RAW_TEXT = "{v} = str({v}, 'utf-8')\n"


def _unquoted(contract: Contract, schema: Mapping[str, Any]) -> str:
    """Statements that leave a raw number's text in {v}, in quotes or not."""
    return _RAW_TEXT if contract.strict or schema.get("strict") else _UNQUOTED


def _double(_column: Column, schema: Mapping[str, Any], contract: Contract) -> _Field:
    _only(schema, "allow_inf_nan", "ge", "gt", "le", "lt", "strict")
    is_within = _bounds(schema)

    def parse(text: str) -> float:
        if not _PLAIN_NUMBER(text):
            raise _NotPlain
        found = float(text)
        if not -FLOAT_MAX <= found <= FLOAT_MAX or not is_within(found):
            raise _NotPlain
        if found.is_integer() and "." not in text and "e" not in text.lower() and int(found) != int(text):
            raise _NotPlain  # a whole number that no double holds
        return found

    return _Field(
        kind=msgspec.Raw,
        parse=_unquoted(contract, schema) + "{v} = parse{i}({v})\n",
        steps="{v} = repr({v})\n",
        names={"parse": parse},
        empty_is_null=not contract.strict,
    )


def _bounds(schema: Mapping[str, Any]) -> Callable[[Any], bool]:
    """Whether a number keeps to ge, gt, le and lt."""
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


def _decimal(column: Column, schema: Mapping[str, Any], contract: Contract) -> _Field:
    """Its text as it stands in the JSON, where that is plain."""
    _only(schema, "max_digits", "decimal_places", "ge", "gt", "le", "lt", "allow_inf_nan", "strict")
    places = schema.get("decimal_places")
    digits = schema.get("max_digits")
    if "(" in column.sql_type:
        if digits is None or places is None or digits <= places:
            raise _Unknown
        whole = digits - places
    else:
        if digits is not None:
            raise _Unknown
        whole = NUMERIC_DIGITS_MAX
        places = NUMERIC_PLACES_MAX if places is None else min(places, NUMERIC_PLACES_MAX)
    fraction = rf"(?:\.[0-9]{{1,{places}}})?" if places else ""
    bounds = {name: schema[name] for name in ("ge", "gt", "le", "lt") if schema.get(name) is not None}
    # that it is not below 0 the pattern can see; -0 is left to Contract.decode
    is_natural = bounds.keys() == {"ge"} and bounds["ge"] == 0
    sign = "" if is_natural else "-?"
    is_number = re.compile(rf"{sign}(?:0|[1-9][0-9]{{0,{whole - 1}}}){fraction}").fullmatch
    is_within = _bounds(schema)

    def is_number_within(text: str) -> bool:
        return is_number(text) is not None and is_within(Decimal(text))

    is_plain: Callable[[str], Any] = is_number_within if bounds and not is_natural else is_number
    return _Field(
        kind=msgspec.Raw,
        parse=_unquoted(contract, schema),
        steps="if not exact{i}({v}):\n    return None\n",
        names={"exact": is_plain},
        empty_is_null=not contract.strict,
    )


def _time(column: Column, schema: Mapping[str, Any], contract: Contract) -> _Field:
    """A parser of contracts.times, known by being that very function."""
    _only(schema, "function", "json_schema_input_schema")
    parser = schema["function"].get("function")
    if column.sql_type == "date" and parser is parse_date:
        return _Field(
            kind=str,
            quotes=2,
            steps="if len({v}) != 10 or {v}[4::3] != '--':\n    return None\nfromisoformat{i}({v})\n",
            names={"fromisoformat": date.fromisoformat, "in_utc": None},
            empty_is_null=not contract.strict,
        )
    if column.sql_type != "timestamptz":
        raise _Unknown
    if parser is parse_epoch_ms:
        return _epoch_ms(contract)
    if parser is parse_epoch_s:
        return _epoch_s(contract)
    if parser is parse_timestamp:
        return _timestamp(contract)
    raise _Unknown


def _epoch_ms(contract: Contract) -> _Field:
    number = Annotated[int, msgspec.Meta(ge=EPOCH_MS_MIN, le=EPOCH_MS_MAX)]
    steps = "{v} = in_utc{i}({v})\n"
    if not contract.strict:
        steps = "if {v}.__class__ is str:\n    {v} = from_text{i}({v})\n    quotes += 2\n" + steps
    return _Field(
        kind=number if contract.strict else number | str,
        steps=steps,
        suffix="+00",
        names={"in_utc": lambda milliseconds: _in_utc(parse_epoch_ms(milliseconds)), "from_text": _milliseconds},
        empty_is_null=not contract.strict,
    )


def _milliseconds(text: str) -> int:
    if not _INTEGER_TEXT(text):
        raise _NotPlain
    return int(text)


_PLAIN_SECONDS = re.compile(r"[0-9]{1,11}(?:\.[0-9]{1,9})?").fullmatch


def _epoch_s(contract: Contract) -> _Field:
    def in_utc(text: str) -> str:
        if not _PLAIN_SECONDS(text):
            raise _NotPlain
        return _in_utc(parse_epoch_s(text))

    return _Field(
        kind=msgspec.Raw,
        parse=_unquoted(contract, {}),
        steps="{v} = in_utc{i}({v})\n",
        suffix="+00",
        names={"in_utc": in_utc},
        empty_is_null=not contract.strict,
    )


def _timestamp(contract: Contract) -> _Field:
    zone = contract.zone

    def in_utc(text: str) -> str:
        at = parse_timestamp(text)
        return _in_utc(at.replace(tzinfo=zone) if at.tzinfo is None else at)

    steps = "{v} = in_utc{i}({v})\n"
    if zone is UTC:  # without a zone it is as Postgres reads it, once it is known to be a time
        steps = (
            "if len({v}) == 19 and {v}[4::3] in PLAIN_TIMES{i} and {v}[0] in '12':\n    fromisoformat{i}({v})\n"
            f"else:\n    {steps}"
        )
    names = {"in_utc": in_utc, "PLAIN_TIMES": PLAIN_TIMES, "fromisoformat": datetime.fromisoformat}
    return _Field(kind=str, quotes=2, steps=steps, suffix="+00", names=names, empty_is_null=not contract.strict)


FIRST_PLAIN_YEAR, LAST_PLAIN_YEAR = 2, 9998  # every moment of them can be shown in every time zone


def _in_utc(at: datetime) -> str:
    # in UTC: Postgres reads zones of less than 16 hours, Python of less than 24; OverflowError beyond Python's years
    found = at.astimezone(UTC)
    if not FIRST_PLAIN_YEAR <= found.year <= LAST_PLAIN_YEAR:
        raise _NotPlain
    return found.replace(tzinfo=None).isoformat(" ")


def _uuid(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> _Field:
    _only(schema)
    return _Field(kind=UUID, quotes=2, steps="{v} = str({v})\n", names={"exact": None})


def _object(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> _Field:
    _only(schema, "keys_schema", "values_schema")
    if schema.get("keys_schema", {"type": "str"}) != {"type": "str"}:
        raise _Unknown
    return _json("{", schema.get("values_schema"))


def _array(_column: Column, schema: Mapping[str, Any], _contract: Contract) -> _Field:
    _only(schema, "items_schema")
    return _json("[", schema.get("items_schema"))


def _json(opening: str, inner: Mapping[str, Any] | None) -> _Field:
    if inner not in (None, {"type": "any"}):
        raise _Unknown
    return _Field(
        kind=msgspec.Raw,
        parse="{v} = bytes({v})\n",
        steps=f"if {{v}}[0] != {ord(opening)}:\n    return None\nquotes += {{v}}.count(b'\"')\n"
        "{v} = json_cell{i}({v})\n",
        names={"json_cell": json_cell},
    )


def _limited(kind: type, schema: Mapping[str, Any], *names: str) -> Any:
    limits = {name: schema[name] for name in names if schema.get(name) is not None}
    return Annotated[kind, msgspec.Meta(**limits)] if limits else kind


_FIELDS: Mapping[tuple[str, str], Callable[[Column, Mapping[str, Any], Contract], _Field]] = {
    ("str", "text"): _text,
    ("literal", "text"): _choice,
    ("enum", "text"): _enum,
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
