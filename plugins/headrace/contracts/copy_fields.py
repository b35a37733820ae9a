"""From a contract's fields to those of the fast path; refuses unsupported ones."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel

from headrace.contracts.column_types import INTEGER_MAX
from headrace.contracts.columns import Column
from headrace.contracts.contract import Contract
from headrace.contracts.copy_cells import NULL, escaped
from headrace.contracts.copy_field import FastField, UnsupportedField, only
from headrace.contracts.copy_field_types import FIELD_TYPES

# what the fast path does too, or what changes no value
_KNOWN_CONFIG = {"strict", "extra", "allow_inf_nan", "title", "val_json_bytes", "defer_build"}


def field_schemas(model: type[BaseModel]) -> Mapping[str, Mapping[str, Any]]:
    """The core schema of every field; raises UnsupportedField for a model that does more than validate its fields.

    https://docs.pydantic.dev/latest/api/pydantic_core_schema/ lists the types and what they may hold.
    """
    schema: Any = model.__pydantic_core_schema__
    if schema["type"] != "model" or any(schema.get(name) for name in ("custom_init", "post_init", "root_model")):
        raise UnsupportedField
    if not set(model.model_config) <= _KNOWN_CONFIG:
        raise UnsupportedField
    fields = schema["schema"]
    if fields["type"] != "model-fields" or any(fields.get(n) for n in ("extras_schema", "extras_keys_schema")):
        raise UnsupportedField
    known = {"type", "schema", "metadata", "frozen", "validation_alias", "serialization_alias"}
    if any(set(field) - known for field in fields["fields"].values()):
        raise UnsupportedField
    return {name: field["schema"] for name, field in fields["fields"].items()}


def field_of(column: Column, schema: Mapping[str, Any], contract: Contract) -> FastField:
    """The fast path of a column's field; raises UnsupportedField if only Contract.decode supports it."""
    field = _made(column, schema, contract)
    if contract.key_index is not None and contract.columns[contract.key_index] is column:
        if field.is_nullable or field.has_default:
            raise UnsupportedField
        field = replace(field, parse=field.parse + "key_value = {v}\nkey_text = str({v})\n")
    return field if column.masked is None else _masked(column, field, contract)


def _masked(column: Column, field: FastField, contract: Contract) -> FastField:
    """A field whose cell is its mask; the key's text, which is compared first, stays as it is."""
    assert column.masked is not None
    assert contract.masks is not None
    default = {"default": NULL} if field.has_default else {}
    if column.masked.how == "drop":
        steps = field.steps + "{v} = " + repr(NULL) + "\n"
        return replace(field, steps=steps, suffix="", names={**field.names, **default})
    if field.has_default and field.names["default"] != NULL:
        raise UnsupportedField
    if column.value_type not in ("text", *INTEGER_MAX) or field.is_raw:
        raise UnsupportedField  # a value with several texts
    steps = "if has_escapes:\n    quotes += str({v}).count('\"')\n{v} = mask{i}(str({v}))\n"
    return replace(field, steps=steps, names={**field.names, "mask": contract.masks.cell_of(column)})


def _made(column: Column, schema: Mapping[str, Any], contract: Contract) -> FastField:
    if schema["type"] == "default":
        only(schema, "schema", "default")
        field = _made(column, schema["schema"], contract)
        default = _default(schema["default"], field)
        return replace(field, has_default=True, names={**field.names, "default": default})
    if schema["type"] == "nullable":
        only(schema, "schema")
        field = _made(column, schema["schema"], contract)
        if field.has_default:
            raise UnsupportedField
        return replace(field, is_nullable=True)
    if schema["type"] == "function-after":
        return _validated(column, schema, contract)
    make = FIELD_TYPES.get((schema["type"], family(column.value_type)))
    if make is None:
        raise UnsupportedField
    return make(column, schema, contract)


def family(sql_type: str) -> str:
    """A column type without precision; "whole" for all whole numbers."""
    return "whole" if sql_type in INTEGER_MAX else sql_type.partition("(")[0]


def _validated(column: Column, schema: Mapping[str, Any], contract: Contract) -> FastField:
    """A field with a validator of its own; a value that it changes is left to Contract.decode."""
    only(schema, "function", "schema")
    inner = schema["schema"]
    if schema["function"]["type"] != "no-info" or inner["type"] not in ("str", "literal", "bool", "int", "float"):
        raise UnsupportedField
    field = _made(column, inner, contract)
    return replace(
        field,
        parse=field.parse + "if validate{i}({v}) is not {v}:\n    return None\n",
        names={**field.names, "validate": schema["function"]["function"]},
    )


def _default(value: object, field: FastField) -> str:
    if value is None:
        return NULL
    if isinstance(value, dict | list) and not value and field.is_raw and "json_cell" in field.names:
        return "[]" if isinstance(value, list) else "{}"
    if "in_utc" in field.names or "exact" in field.names:
        raise UnsupportedField
    if isinstance(value, bool):
        return "t" if value else "f"
    if isinstance(value, str) and not value.isprintable():
        raise UnsupportedField
    if not isinstance(value, str | int | float) or not _is_of_kind(value, field):
        raise UnsupportedField
    return escaped(str(value))


def _is_of_kind(value: object, field: FastField) -> bool:
    if field.is_raw:
        return "parse" in field.names and type(value) is float
    kinds = [field.kind, *get_args(field.kind)]
    plain = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    if any(get_origin(kind) is Literal for kind in plain):
        return type(value) is str
    return type(value) is (int if int in plain else str if str in plain else None)
