"""Lossless conversions: "5" for 5, 98770148834.0 for a whole number, 5 for a text; never true for 1, nothing rounded.

pydantic describes a contract's validation in its core schema. Every leaf of the schema (a number, a text, a time) gets
a conversion in front, and becomes exact itself. So validators, aliases, defaults and nested models keep pydantic's
meaning, and no value is read from the document a second time.
https://docs.pydantic.dev/latest/api/pydantic_core_schema/ lists the types and their fields.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, time
from functools import partial
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticCustomError, SchemaValidator

from headrace.contracts.annotations import InvalidColumn
from headrace.contracts.column_types import COLUMN_TYPES, Convert, bytes_of_text, integer_of, text_of
from headrace.contracts.numbers import wrong
from headrace.contracts.reasons import Reason
from headrace.contracts.times import PARSERS
from headrace.formats.values import Nanoseconds

Schema = dict[str, Any]
Checks = Mapping[str, Callable[[Any], Any]]  # a field's name to what judges its values in place of its type
NO_CHECKS: Checks = {}
NO_ALIASES: Mapping[str, str] = {}


def validator(
    model: type[BaseModel], *, strict: bool, checks: Checks = NO_CHECKS, aliases: Mapping[str, str] = NO_ALIASES
) -> SchemaValidator:
    """A validator of a document as `strict_json.parse` gives it; returns an instance of the model.

    checks: what judges fields in place of their types. aliases: names of fields in documents, besides the model's own.

    strict: accept only JSON's own types. Raises InvalidColumn for a model that is not validated by its schema.
    """
    schema = _converting(_checked(model.__pydantic_core_schema__, checks, aliases), strict=strict)
    return _built(schema)


def field_validators(
    model: type[BaseModel], *, strict: bool = False, checks: Checks = NO_CHECKS
) -> Mapping[str, SchemaValidator]:
    """A validator for each field alone, that takes text as well: for keys, which are bytes of text."""
    schema = _converting(_checked(model.__pydantic_core_schema__, checks), strict=strict)
    definitions = schema["definitions"] if schema["type"] == "definitions" else []
    fields = _fields(schema)["fields"]
    return {name: _one_field(field["schema"], definitions) for name, field in fields.items()}


def judges_fields_alone(model: type[BaseModel]) -> bool:
    """Whether no validator sees more than the value of its own field."""
    schema: Any = model.__pydantic_core_schema__
    found = schema["schema"] if schema["type"] == "definitions" else schema
    if found["type"] != "model" or any(found.get(name) for name in ("custom_init", "post_init")):
        return False
    return not any(_sees_others(field["schema"]) for field in _fields(schema)["fields"].values())


def _sees_others(node: Any) -> bool:
    if isinstance(node, list | tuple):
        return any(map(_sees_others, node))
    if not isinstance(node, dict):
        return False
    function = node.get("function")
    if isinstance(function, dict) and function.get("type") == "with-info":
        return True
    return bool(node.get("default_factory_takes_data")) or any(
        _sees_others(node[name]) for name in _INNER & node.keys()
    )


def _fields(schema: Any) -> Any:
    """The schema of a model's fields."""
    found = schema["schema"] if schema["type"] == "definitions" else schema
    if found["type"] == "definition-ref":
        found = next(item for item in schema["definitions"] if item.get("ref") == found["schema_ref"])
    while found["type"].startswith("function"):
        found = found["schema"]
    return found["schema"]


def _checked(schema: Any, checks: Checks, aliases: Mapping[str, str] = NO_ALIASES) -> Any:
    """A model's schema in which some fields are judged by a function alone; defaults and null stay as they are."""
    if not checks and not aliases:
        return schema
    schema = _copied(schema)
    fields = _fields(schema)["fields"]
    for name, check in checks.items():
        fields[name]["schema"] = _checked_field(fields[name]["schema"], check)
    for name, alias in aliases.items():
        fields[name]["validation_alias"] = alias
    return schema


def _copied(node: Any) -> Any:
    if isinstance(node, list | tuple):
        return type(node)(map(_copied, node))
    return {name: _copied(item) for name, item in node.items()} if type(node) is dict else node


def _checked_field(schema: Schema, check: Callable[[Any], Any]) -> Schema:
    if schema["type"] == "default":
        return {**schema, "schema": _checked_field(schema["schema"], check)}
    plain: Schema = {"type": "function-plain", "function": {"type": "no-info", "function": check}}
    return {"type": "nullable", "schema": plain} if _may_be_null(schema) else plain


def _may_be_null(schema: Schema) -> bool:
    while schema["type"] != "nullable" and isinstance(schema.get("schema"), dict):
        schema = schema["schema"]
    return schema["type"] in ("nullable", "none", "any")


def _one_field(schema: Schema, definitions: list[Any]) -> SchemaValidator:
    if definitions:
        schema = {"type": "definitions", "schema": schema, "definitions": definitions}
    return _built(schema)


# where a core schema holds others
_INNER = frozenset((
    "schema", "schemas", "items_schema", "keys_schema", "values_schema", "extras_schema", "definitions", "choices",
    "fields", "lax_schema", "strict_schema", "json_schema", "python_schema", "steps",
))  # fmt: skip
_CONVERTED = {found.schema: found for found in COLUMN_TYPES if found.schema is not None}
# one item that is wrong is enough: an array of 1 MB has half a million, whose errors are 300 MB
_FAILS_FAST = frozenset({"list", "tuple", "set", "frozenset"})
_EMPTY_IS_NULL = frozenset(name for name, found in _CONVERTED.items() if found.empty_is_null)


def _converting(node: Any, *, strict: bool, config: Mapping[str, Any] | None = None) -> Any:
    """A core schema with a conversion in front of every leaf."""
    if isinstance(node, list | tuple):
        return type(node)(_converting(item, strict=strict, config=config) for item in node)
    if not isinstance(node, dict):
        return node
    kind = node.get("type")
    if not isinstance(kind, str):  # the fields of a model by name, the choices of a union
        return {name: _converting(item, strict=strict, config=config) for name, item in node.items()}
    if kind == "model":
        node = _kept_whole(node)
        config = node["config"]
    strict = strict or bool(node.get("strict")) or bool((config or {}).get("strict"))
    convert = _conversion(node, strict=strict, config=config or {})
    schema = {
        name: _converting(item, strict=strict, config=config) if name in _INNER else item for name, item in node.items()
    }
    if kind == "model":
        schema["config"] = {name: value for name, value in schema["config"].items() if name != "strict"}
    if kind == "model-fields" and schema.get("extra_behavior") == "ignore":
        schema["extra_behavior"] = "allow"
    schema.pop("strict", None)
    if kind in _FAILS_FAST:
        schema["fail_fast"] = True
    if kind == "nullable" and not strict and _leaf(node["schema"]) in _EMPTY_IS_NULL:
        convert = _empty_to_null
    if convert is None:
        return schema
    if kind in _CONVERTED:
        schema["strict"] = True
    outer: Schema = {"type": "function-before", "function": {"type": "no-info", "function": convert}, "schema": schema}
    for name in ("ref", "metadata"):
        if name in schema:
            outer[name] = schema.pop(name)
    return outer


def _kept_whole(node: Schema) -> Schema:
    """A model's schema that keeps fields which the model does not name, unless it forbids them."""
    name = node["cls"].__name__
    if node.get("custom_init"):
        raise InvalidColumn(f"model {name} has an __init__ of its own, expected none: use a model_validator")
    if node.get("root_model"):
        raise InvalidColumn(f"model {name} is a RootModel, expected named fields")
    config = dict(node.get("config") or {})
    if config.get("extra_fields_behavior", "ignore") == "ignore":
        config["extra_fields_behavior"] = "allow"
    return {**node, "config": config}


def _leaf(schema: Mapping[str, Any]) -> str:
    """The innermost type of a schema, inside functions and defaults."""
    while True:
        kind: str = schema["type"]
        if kind == "function-plain":
            return "datetime" if schema["function"].get("function") in PARSERS else kind
        if "schema" not in schema or kind in ("model", "dict", "list"):
            return kind
        schema = schema["schema"]


def _conversion(node: Schema, *, strict: bool, config: Mapping[str, Any]) -> Convert | None:
    kind = node["type"]
    if kind == "function-plain" and strict:
        parser = PARSERS.get(node["function"].get("function"))
        return partial(_only, parser.accepted) if parser else None
    if kind == "literal":
        return partial(_choice, {_token(value): value for value in node["expected"]}, strict)
    if kind == "enum":
        return partial(_choice, {_token(member.value): member for member in node["members"]}, strict)
    if kind == "bytes":
        return partial(bytes_of_text, config.get("val_json_bytes", "utf8"))
    found = _CONVERTED.get(kind)
    if found is None:
        return None
    return found.convert_strictly if strict else found.convert


def _empty_to_null(value: Any) -> Any:
    return None if value == "" and isinstance(value, str) else value


def _only(accepted: tuple[type, ...], value: Any) -> Any:
    if isinstance(value, date | time | Nanoseconds):  # datetime, too: a schema says that it is a time
        return value
    if isinstance(value, bool) or not isinstance(value, accepted):
        names = {int: "a whole number", float: "a number", str: "text"}
        raise wrong(" or ".join(names[kind] for kind in accepted))
    return value


def _token(value: Any) -> tuple[type, Any]:
    # told apart by type: 1 == True in Python
    plain = getattr(value, "value", value)
    return (type(plain), plain)


def _choice(choices: Mapping[tuple[type, Any], Any], strict: bool, value: Any) -> Any:
    """One of a Literal's or an Enum's values; any other is left to pydantic, whose error names the choices."""
    if _is_hashable(value) and (found := choices.get(_token(value))) is not None:
        return found
    if not strict and isinstance(value, str | int | float) and not isinstance(value, bool):
        for kind, convert in ((str, text_of), (int, integer_of)):
            try:
                token = (kind, convert(value))
            except PydanticCustomError:
                continue
            if token in choices:
                return choices[token]
    if isinstance(value, bool) and (bool, value) not in choices:
        raise PydanticCustomError(Reason.INVALID_VALUE, "expected one of the choices")
    return value


def _is_hashable(value: Any) -> bool:
    return isinstance(value, str | int | float | bool) or value is None


def _built(schema: Any) -> SchemaValidator:
    """A validator of exactly this schema: the models' own, which pydantic would reuse, know nothing of conversions."""
    try:
        return SchemaValidator(schema, _use_prebuilt=False)
    except TypeError as error:
        if "_use_prebuilt" not in str(error):
            raise
    # before pydantic 2.13, which the constraints of Airflow 3.1 have, only a model that is not complete is not reused
    models = {each["cls"] for each in _models(schema)}
    complete = [model for model in models if vars(model).get("__pydantic_complete__")]
    try:
        for model in complete:
            model.__pydantic_complete__ = False
        return SchemaValidator(schema)
    finally:
        for model in complete:
            model.__pydantic_complete__ = True


def _models(schema: Any) -> Iterator[Any]:
    """The schemas of models in a schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "model":
            yield schema
        for each in schema.values():
            yield from _models(each)
    elif isinstance(schema, list | tuple):
        for each in schema:
            yield from _models(each)
