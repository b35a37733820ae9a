"""From the schema part of Kafka Connect's JSON converter to what its values are: {"schema": ..., "payload": ...}.

Types and their encodings: https://kafka.apache.org/43/javadoc/org/apache/kafka/connect/data/Schema.Type.html, and
https://debezium.io/documentation/reference/3.3/connectors/postgresql.html#postgresql-data-types for Debezium's own.
"""

from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from typing import Any

from headrace.formats import connect_values
from headrace.formats.base import Fault, Undecodable

Convert = Callable[[Any], Any]

SCHEMA_DEPTH_MAX = 50


class ConnectSchema:
    """A schema as the converter writes it; raises Undecodable where it is none."""

    def __init__(self, node: Mapping[str, Any]) -> None:
        self._node = node

    @cached_property
    def converter(self) -> Convert:
        """What makes a value of its JSON."""
        try:
            return _nullable(_converter(self._node, 0))
        except (KeyError, TypeError, AttributeError) as error:
            raise Undecodable(
                Fault.INCOMPATIBLE_SCHEMA, f"the schema part is none of Kafka Connect's: {error}"
            ) from error

    def field(self, name: str) -> "ConnectSchema | None":
        """The schema of a struct's field."""
        return self._fields.get(name)

    @cached_property
    def _fields(self) -> dict[str, "ConnectSchema"]:
        fields = self._node.get("fields")
        found = [field for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []
        return {str(field.get("field")): ConnectSchema(field) for field in found}


def _converter(node: Mapping[str, Any], depth: int) -> Convert:
    if depth > SCHEMA_DEPTH_MAX:
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"the schema nests types more than {SCHEMA_DEPTH_MAX} deep")
    kind, name = node.get("type"), node.get("name")
    logical = connect_values.READERS.get((str(kind), str(name)))
    if logical is not None:
        parameters = node.get("parameters") or {}
        if name == connect_values.DECIMAL:
            return _decimal(logical, parameters)
        return _of_bytes(logical, parameters) if kind == "bytes" else lambda value: logical(value, parameters)
    if kind == "struct":
        return _struct(node, depth)
    if kind == "array":
        return _array(_nullable(_converter(node["items"], depth + 1)))
    if kind == "map":
        key, value = (_nullable(_converter(node[part], depth + 1)) for part in ("keys", "values"))
        return _map(key, value)
    found = _PRIMITIVES.get(str(kind))
    if found is None:
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"the schema has type {kind!r}, which Kafka Connect does not know")
    return found


def _nullable(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _struct(node: Mapping[str, Any], depth: int) -> Convert:
    fields = {field["field"]: _nullable(_converter(field, depth + 1)) for field in node.get("fields") or ()}

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, found {type(value).__name__}")
        return {name: fields[name](item) if name in fields else item for name, item in value.items()}

    if node.get("name") == connect_values.VARIABLE_SCALE_DECIMAL:
        return lambda value: connect_values.variable_scale_decimal(convert(value))
    return convert


def _array(convert: Convert) -> Convert:
    return lambda value: [convert(item) for item in value]


def _map(key: Convert, value: Convert) -> Convert:
    def convert(found: dict[str, Any] | Sequence[Sequence[Any]]) -> dict[str, Any]:
        # keys that are no text come in pairs
        pairs = found.items() if isinstance(found, dict) else found
        return {str(key(name)): value(item) for name, item in pairs}

    return convert


def _of_bytes(read: connect_values.Reader, parameters: Mapping[str, str]) -> Convert:
    return lambda value: read(_bytes(value), parameters)


def _decimal(read: connect_values.Reader, parameters: Mapping[str, str]) -> Convert:
    of_bytes = _of_bytes(read, parameters)
    # bytes, or a number where the converter has decimal.format=NUMERIC
    return lambda value: Decimal(value) if type(value) in (int, float, Decimal) else of_bytes(value)


def _bytes(value: Any) -> bytes:
    return b64decode(value, validate=True)


def _float(value: Any) -> float:
    return float(value)  # also the texts NaN and Infinity


def _same(value: Any) -> Any:
    return value


_PRIMITIVES: Mapping[str, Convert] = {
    **dict.fromkeys(("int8", "int16", "int32", "int64", "boolean", "string"), _same),
    "float": _float,
    "double": _float,
    "bytes": _bytes,
}
