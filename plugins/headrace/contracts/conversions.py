"""Lossless conversions: "5" for 5, 98770148834.0 for a whole number, 5 for a text; never true for 1, nothing rounded.

pydantic says how a contract is validated, in its core schema; every leaf of it (a number, a text, a time) gets a
conversion in front of it, and itself becomes exact. So validators, aliases, defaults and nested models keep pydantic's
meaning, and no value is ever looked up a second time.
https://docs.pydantic.dev/latest/api/pydantic_core_schema/ lists the types and what they may hold.
"""

import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Context, Decimal
from functools import partial
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from pydantic_core import PydanticCustomError, SchemaValidator

from headrace.contracts.columns import InvalidColumn
from headrace.contracts.reasons import Reason
from headrace.contracts.strict_json import NUMBER_LENGTH_MAX, Number
from headrace.contracts.times import parse_date, parse_epoch_ms, parse_epoch_s, parse_time, parse_timestamp

# Bounds of numbers whose declaration names none: no sum, average or variance of ours overflows, and psql, Python and
# Airflow can all read them. Two readings of 1.7e308 stopped a mart.
FLOAT_MAX = 1e100
NUMERIC_DIGITS_MAX = 30  # before the point
NUMERIC_PLACES_MAX = 60  # behind it: the shortest text of a double of 1e-40 has 57

_MANY_DIGITS = Context(prec=NUMBER_LENGTH_MAX + 10)

Convert = Callable[[Any], Any]
Schema = dict[str, Any]

# JSON's numbers as text, where CSV files and Redis entries write zeros in front
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,4})?").fullmatch


def validator(model: type[BaseModel], *, strict: bool) -> SchemaValidator:
    """A validator of a document as `strict_json.parse` gives it; returns an instance of the model.

    strict: accept JSON's own types alone. Raises Fault for a model that does not validate by its schema.
    """
    schema = _converting(model.__pydantic_core_schema__, strict=strict)
    # the models' own validators, which pydantic would reuse, know nothing of conversions
    return SchemaValidator(schema, _use_prebuilt=False)


def field_validators(model: type[BaseModel]) -> Mapping[str, SchemaValidator]:
    """A validator for each field alone, that takes text as well: for keys, which are bytes of text."""
    schema = _converting(model.__pydantic_core_schema__, strict=False)
    definitions = schema["definitions"] if schema["type"] == "definitions" else []
    found = schema["schema"] if definitions else schema
    if found["type"] == "definition-ref":
        found = next(item for item in definitions if item.get("ref") == found["schema_ref"])
    while found["type"].startswith("function"):
        found = found["schema"]
    return {name: _one_field(field["schema"], definitions) for name, field in found["schema"]["fields"].items()}


def _one_field(schema: Schema, definitions: list[Any]) -> SchemaValidator:
    if definitions:
        schema = {"type": "definitions", "schema": schema, "definitions": definitions}
    return SchemaValidator(schema, _use_prebuilt=False)


# where a core schema holds others
_INNER = (
    "schema", "schemas", "items_schema", "keys_schema", "values_schema", "extras_schema", "definitions", "choices",
    "fields", "lax_schema", "strict_schema", "json_schema", "python_schema", "steps",
)  # fmt: skip
_EXACT = frozenset({"int", "float", "decimal", "bool", "str", "date", "time", "datetime", "uuid", "bytes"})
# one item that is wrong is enough: an array of 1 MB has half a million, whose errors are 300 MB
_FAILS_FAST = frozenset({"list", "tuple", "set", "frozenset"})
_EMPTY_IS_NULL = frozenset({"int", "float", "decimal", "bool", "date", "time", "datetime", "uuid"})
_PARSERS: Mapping[Any, tuple[type, ...]] = {
    parse_timestamp: (str,),
    parse_date: (str,),
    parse_time: (str,),
    parse_epoch_ms: (int,),
    parse_epoch_s: (int, float),
}


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
    if kind in _EXACT:
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
    """The type that a schema comes down to, behind functions and defaults."""
    while True:
        kind: str = schema["type"]
        if kind == "function-plain":
            return "datetime" if schema["function"].get("function") in _PARSERS else kind
        if "schema" not in schema or kind in ("model", "dict", "list"):
            return kind
        schema = schema["schema"]


def _conversion(node: Schema, *, strict: bool, config: Mapping[str, Any]) -> Convert | None:
    kind = node["type"]
    if kind == "function-plain" and strict:
        accepted = _PARSERS.get(node["function"].get("function"))
        return partial(_only, accepted) if accepted else None
    if kind == "literal":
        return partial(_choice, {_token(value): value for value in node["expected"]}, strict)
    if kind == "enum":
        return partial(_choice, {_token(member.value): member for member in node["members"]}, strict)
    if kind == "bytes":
        return partial(_bytes, config.get("val_json_bytes", "utf8"))
    return _CONVERSIONS_STRICT.get(kind) if strict else _CONVERSIONS.get(kind)


def _empty_to_null(value: Any) -> Any:
    return None if value == "" and isinstance(value, str) else value


def _only(accepted: tuple[type, ...], value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, accepted):
        names = {int: "a whole number", float: "a number", str: "text"}
        raise _wrong(" or ".join(names[kind] for kind in accepted))
    return value


def _wrong(expected: str) -> PydanticCustomError:
    return PydanticCustomError(Reason.WRONG_TYPE, "expected {expected}", {"expected": expected})


def _beyond(expected: str) -> PydanticCustomError:
    return PydanticCustomError(Reason.OUT_OF_RANGE, "expected {expected}", {"expected": expected})


def exact(value: Any) -> Decimal | None:
    """The exact value of a JSON number or of its text; None for anything else."""
    if isinstance(value, Number):
        return value.exact()
    if isinstance(value, bool):
        return None
    if isinstance(value, int | Decimal):
        return Decimal(value)
    if isinstance(value, float):
        return Decimal(repr(value))
    if isinstance(value, str) and len(value) <= NUMBER_LENGTH_MAX and _NUMBER(value):
        return Decimal(value)
    return None


def _integer(value: Any) -> int:
    if type(value) is int:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    number = exact(value)
    if number is None or not number.is_finite():
        raise _wrong("a whole number")
    if number.adjusted() > 40:
        raise _beyond("a whole number of at most 40 digits")
    if number != number.to_integral_value():
        raise _wrong("a whole number")
    return int(number)


def _integer_strictly(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise _wrong("a whole number")


def _numeric(value: Any) -> Decimal:
    number = exact(value)
    if number is None:
        raise _wrong("a number")
    return bounded(number)


def _numeric_strictly(value: Any) -> Decimal:
    if isinstance(value, str):
        raise _wrong("a number")
    return _numeric(value)


def bounded(number: Decimal) -> Decimal:
    """A decimal that Postgres, psql and Python can all show; raises PydanticCustomError for another."""
    if not number.is_finite() or (number and number.adjusted() >= NUMERIC_DIGITS_MAX):
        raise _beyond(f"a number below 1e{NUMERIC_DIGITS_MAX}")
    exponent = number.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -NUMERIC_PLACES_MAX:
        shorter = number.normalize(_MANY_DIGITS)  # 1.50000... is no more than 1.5
        if shorter.as_tuple().exponent < -NUMERIC_PLACES_MAX:  # type: ignore[operator]
            raise _beyond(f"a number of at most {NUMERIC_PLACES_MAX} decimals")
        return shorter
    return number


def _double(value: Any) -> float:
    number = exact(value)
    if number is None:
        raise _wrong("a number")
    found = float(number)
    if not abs(found) <= FLOAT_MAX:
        raise _beyond(f"a number of at most {FLOAT_MAX:g}")
    if (not found and number) or (isinstance(value, int) and int(found) != value):
        raise _beyond("a number that a double holds")
    return found


def _double_strictly(value: Any) -> float:
    if isinstance(value, str):
        raise _wrong("a number")
    return _double(value)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise _wrong("true or false")


def _boolean_strictly(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong("true or false")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Number) and value.text[-1].isdigit():  # not NaN or Infinity, which are no JSON
        return value.text
    if isinstance(value, int) and not isinstance(value, bool):
        return str(int(value))
    raise _wrong("text")


def _text_strictly(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _wrong("text")


def _uuid(value: Any) -> UUID:
    if isinstance(value, UUID):
        return value
    if not isinstance(value, str):
        raise _wrong("a UUID as text")
    try:
        return UUID(value)
    except ValueError as error:
        raise PydanticCustomError(Reason.INVALID_VALUE, "expected a UUID") from error


def _bytes(encoding: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise _wrong("bytes as text")
    try:
        if encoding == "base64":
            return b64decode(value.replace("-", "+").replace("_", "/") + "=" * (-len(value) % 4), validate=True)
        return bytes.fromhex(value) if encoding == "hex" else value.encode()
    except ValueError as error:
        raise PydanticCustomError(Reason.INVALID_VALUE, "expected {encoding} text", {"encoding": encoding}) from error


def _token(value: Any) -> tuple[type, Any]:
    # told apart by type: 1 == True in Python
    plain = getattr(value, "value", value)
    return (type(plain), plain)


def _choice(choices: Mapping[tuple[type, Any], Any], strict: bool, value: Any) -> Any:
    """One of a Literal's or an Enum's values; any other is left to pydantic, which says what was expected."""
    if _is_hashable(value) and (found := choices.get(_token(value))) is not None:
        return found
    if not strict and isinstance(value, str | int | float) and not isinstance(value, bool):
        for kind, convert in ((str, _text), (int, _integer)):
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


def _timestamp(value: Any) -> datetime:
    return parse_timestamp(value)


_CONVERSIONS: Mapping[str, Convert] = {
    "int": _integer,
    "float": _double,
    "decimal": _numeric,
    "bool": _boolean,
    "str": _text,
    "datetime": _timestamp,
    "date": parse_date,
    "time": parse_time,
    "uuid": _uuid,
}
_CONVERSIONS_STRICT: Mapping[str, Convert] = {
    **_CONVERSIONS,
    "int": _integer_strictly,
    "float": _double_strictly,
    "decimal": _numeric_strictly,
    "bool": _boolean_strictly,
    "str": _text_strictly,
}
