"""The fast path of documents: what a schema made of a value, straight to a line of COPY text.

Like contracts.copy_text, which reads JSON: a contract is compiled to one function of a few checks and an f-string,
whatever is unusual or wrong gives None, and Contract.decode alone decides. tests/unit/test_copy_documents.py holds the
two to each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from headrace.contracts import strict_json
from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.copy_cells import NULL, NotPlain, cleaned, escaped
from headrace.contracts.copy_document_types import FIELD_TYPES, NAMES, DocumentField, counted_moment, json_text
from headrace.contracts.copy_field import Binder, UnsupportedField, only
from headrace.contracts.copy_fields import family, field_schemas
from headrace.exceptions import HeadraceError
from headrace.formats.base import CountsMoments

_MISSING = object()


@dataclass(frozen=True, slots=True)
class _Written:
    """A field, and what stands for it where a document does not have it, or has null."""

    field: DocumentField
    default: str | None = None
    is_nullable: bool = False
    validate: Any = None


def compile_documents(contract: Contract) -> Binder | None:
    """Compile a contract; None where only Contract.decode knows something in it."""
    try:
        schemas = field_schemas(contract.model)
        written = [_written(column, schemas[column.field], contract) for column in contract.columns]
        if any(len(column.source_names) != 1 for column in contract.columns):
            raise UnsupportedField
    except UnsupportedField:
        return None
    is_closed = contract.model.model_config.get("extra") == "forbid"
    names: dict[str, Any] = {
        **NAMES,
        "MISSING": _MISSING,
        "HeadraceError": HeadraceError,
        "decode": contract.decoder.decode,
        "has_key": contract.has_key,
        "cleaned": cleaned,
        "counted_moment": counted_moment,
        "escaped": escaped,
        "parse": strict_json.parse,
        "extra_of": _no_extra if is_closed else lambda document: json_text("_extra", contract, document),
    }
    for i, each in enumerate(written):
        names[f"name{i}"] = contract.columns[i].source_names[0]
        names[f"validate{i}"] = each.validate
        names[f"default{i}"] = each.default
        names |= {f"{name}{i}": value for name, value in each.field.names.items()}
    moments: frozenset[int] = frozenset()
    if isinstance(contract.decoder, CountsMoments):
        moments = frozenset(i for i, each in enumerate(written) if each.field.is_moment)
        names["decode"] = contract.decoder.counted(frozenset(contract.columns[i].source_names[0] for i in moments))
    exec(_source(contract, written, moments), names)  # noqa: S102 # as in contracts.copy_text
    binder: Binder = names["bind"]
    return binder


def _source(contract: Contract, written: list[_Written], moments: frozenset[int]) -> str:
    """The text of `bind`, a function that gives the function of a batch."""
    is_counted = isinstance(contract.decoder, CountsMoments)
    decoded = "document, number = decode(value)" if is_counted else "document, _, number, change = decode(value, ())"
    key = contract.key_index
    steps = "".join(_steps(i, each, is_key=i == key, is_counted=i in moments) for i, each in enumerate(written))
    columns = r"\t".join(f"{{v{i}}}" for i in range(len(written)))
    number = r"\t{number}" if contract.has_schema_ids else ""
    change = r"\t{position}\t{op}" if contract.changes is not None else ""
    end = f"{{tail}}{number}{change}\\n"
    return f"""
def bind(generation, partition, batch_id):
    place = f"\\t{{generation}}\\t{{partition}}\\t"
    tail = f"\\t{{batch_id}}"

    def make_line(offset, at, key, value, headers):
        if value is None or len(value) > {contract.max_value_bytes}:
            return None
        try:
            {decoded}
{indent(_change_source(contract), " " * 12)}
            pop = document.pop
{indent(steps, " " * 12)}
            extra = extra_of(document) if document else {NULL!r}
{indent(_key_source(contract), " " * 12)}
        except HeadraceError:
            raise
        except Exception:  # Contract.decode meets the same error and gives it a reason
            return None
        return f"{columns}{{place}}{{offset}}\\t{{at}}\\t{{key_text}}\\t{{headers}}\\tf\\t{{extra}}{end}"

    return make_line
"""


def _change_source(contract: Contract) -> str:
    """Statements that leave a change's position and op as COPY text; other events are the contract's."""
    if contract.changes is None:
        return ""
    return f"""
if change.is_deletion or change.unavailable:
    return None
if document.__class__ is str:
    document = parse(document)
position, op = change.position, change.op
position = {NULL!r} if position is None else "{{" + ",".join(map(str, position)) + "}}"
op = {NULL!r} if op is None else escaped(op)
"""


def _key_source(contract: Contract) -> str:
    """Statements that leave the record's key, as bytea reads it, in key_text."""
    as_hex = f"key_text = {NULL!r} if key is None else f'\\\\\\\\x{{key.hex()}}'\n"
    if contract.key_index is None:
        return as_hex
    is_text = "" if contract.key_decoder is not None else "key != str(key_value).encode() and "
    return f"if {is_text}not has_key(key, key_value):\n    return None\n{as_hex}"


def _steps(i: int, each: _Written, *, is_key: bool, is_counted: bool) -> str:
    """Statements that leave the cell of field i in v<i>."""
    v, field = f"v{i}", each.field
    steps = f"key_value = {v}\n" if is_key else ""
    if each.validate is not None:
        steps += f"if validate{i}({v}) is not {v}:\n    return None\n"
    if is_counted:
        steps += f"if {v}.__class__ is int:\n    {v} = counted_moment({v})\nel"
    steps += field.steps.format(v=v, i=i)
    if each.default is None and not each.is_nullable:
        return f"{v} = pop(name{i})\n{steps}"
    branches = [f"{v} = pop(name{i}, MISSING)\n"] if each.default is not None else [f"{v} = pop(name{i})\n"]
    if each.default is not None:
        branches.append(f"if {v} is MISSING:\n    {v} = default{i}\n")
    if each.is_nullable:
        branches.append(f"if {v} is None:\n    {v} = {NULL!r}\n")
    branches.append(f"if True:\n{indent(steps, '    ')}")
    return branches[0] + "el".join(branches[1:]).replace("elif True:", "else:")


def _written(column: Column, schema: Mapping[str, Any], contract: Contract) -> _Written:
    default: str | None = None
    is_nullable = False
    if schema["type"] == "default":
        only(schema, "schema", "default")
        value, schema = schema["default"], schema["schema"]
        if schema["type"] == "nullable":
            only(schema, "schema")
            is_nullable, schema = True, schema["schema"]
        field, validate = _field(column, schema, contract)
        return _Written(field, _default(value, field), is_nullable, validate)
    if schema["type"] == "nullable":
        only(schema, "schema")
        is_nullable, schema = True, schema["schema"]
    field, validate = _field(column, schema, contract)
    return _Written(field, default, is_nullable, validate)


def _field(column: Column, schema: Mapping[str, Any], contract: Contract) -> tuple[DocumentField, Any]:
    validate = None
    if schema["type"] == "function-after":
        only(schema, "function", "schema")
        inner = schema["schema"]
        if schema["function"]["type"] != "no-info" or inner["type"] not in ("str", "literal", "bool", "int", "float"):
            raise UnsupportedField
        validate, schema = schema["function"]["function"], inner
    make = FIELD_TYPES.get((schema["type"], family(column.sql_type)))
    if make is None:
        raise UnsupportedField
    return make(column, schema, contract), validate


def _default(value: Any, field: DocumentField) -> str:
    if value is None:
        return NULL
    if field.default_class is None or type(value) is not field.default_class:
        raise UnsupportedField
    if isinstance(value, dict | list):
        if value:
            raise UnsupportedField
        return "[]" if isinstance(value, list) else "{}"
    if isinstance(value, str) and not value.isprintable():
        raise UnsupportedField
    return {True: "t", False: "f"}[value] if isinstance(value, bool) else escaped(str(value))


def _no_extra(_document: Any) -> str:
    raise NotPlain
