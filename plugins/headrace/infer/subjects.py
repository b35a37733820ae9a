"""The fields of a subject's newest schema in a registry: Avro, JSON Schema and Protobuf."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.exceptions import DatasetError
from headrace.formats.registry import AVRO, JSON_SCHEMA, PROTOBUF, Registry, SchemaText
from headrace.infer.draft import FieldDraft
from headrace.infer.messages import message_fields
from headrace.infer.names import name_fields

_AVRO = {
    "boolean": "Boolean", "int": "Integer", "long": "Integer", "float": "Float", "double": "Float", "string": "str",
    "bytes": "bytes", "fixed": "bytes", "enum": "Text", "record": "dict[str, Any]", "map": "dict[str, Any]",
    "array": "list[Any]",
}  # fmt: skip
_AVRO_LOGICAL = {
    "decimal": "Numeric", "uuid": "UUID", "date": "Date", "time-millis": "TimeOfDay", "time-micros": "TimeOfDay",
    "timestamp-millis": "Timestamp", "timestamp-micros": "Timestamp", "timestamp-nanos": "Timestamp",
    "local-timestamp-millis": "Timestamp", "local-timestamp-micros": "Timestamp", "local-timestamp-nanos": "Timestamp",
}  # fmt: skip
_JSON = {
    "boolean": "Boolean", "integer": "Integer", "number": "Numeric", "string": "str", "object": "dict[str, Any]",
    "array": "list[Any]",
}  # fmt: skip
_JSON_FORMATS = {"date-time": "Timestamp", "date": "Date", "uuid": "UUID"}

VERSIONS_MAX = 20  # of a subject that are compared: each Protobuf schema takes 0.2 s


def versions(registry: Registry, subject: str) -> list[SchemaText]:
    """The schemas of a subject, the newest last; none if there is no such subject."""
    return [schema for _, schema in registry.versions(subject)]


def topic_of(subject: str) -> str:
    """The topic whose values a subject describes: Confluent's TopicNameStrategy."""
    return subject.removesuffix("-value")


def subject_fields(schemas: Sequence[SchemaText], subject: str) -> list[FieldDraft]:
    """The fields of the newest schema. One that an older version lacks may be absent: records keep their schema."""
    fields = schema_fields(schemas[-1], subject)
    for older in schemas[-VERSIONS_MAX:-1]:
        try:
            names = {field.source_name for field in schema_fields(older, subject)}
        except DatasetError:  # records of a schema that cannot be read are dead letters anyhow
            continue
        for field in fields:
            field.is_optional = field.is_optional or field.source_name not in names
    return fields


def schema_fields(schema: SchemaText, subject: str) -> list[FieldDraft]:
    """The fields of a record; raises DatasetError for a schema that is no record's."""
    if schema.kind == PROTOBUF:
        fields = message_fields(schema, subject)
    else:
        read = {AVRO: _avro_fields, JSON_SCHEMA: _json_fields}[schema.kind]
        fields = read(json.loads(schema.text))
    if not fields:
        raise DatasetError(f"subject {subject}: found a schema without fields, expected that of a record")
    name_fields(fields)
    return fields


def _avro_fields(schema: Any) -> list[FieldDraft]:
    if not isinstance(schema, Mapping):
        return []
    named: dict[str, str] = {}
    _collect(schema, named)
    return [_avro_field(field, named) for field in schema.get("fields", ())]


def _collect(node: Any, named: dict[str, str]) -> None:
    """The kinds of the types that a schema names, by their names with and without a namespace."""
    if isinstance(node, list):
        for item in node:
            _collect(item, named)
    elif isinstance(node, Mapping):
        if "name" in node and node.get("type") in ("record", "enum", "fixed", "error"):
            kind = _AVRO_LOGICAL.get(str(node.get("logicalType"))) or _AVRO.get(node["type"], "dict[str, Any]")
            named[node["name"]] = named[f"{node.get('namespace')}.{node['name']}"] = kind
        for item in node.values():
            _collect(item, named)


def _avro_field(field: Mapping[str, Any], named: Mapping[str, str]) -> FieldDraft:
    declared = field["type"]
    branches = declared if isinstance(declared, list) else [declared]
    kinds = sorted({_avro_type(branch, named) for branch in branches if branch != "null"})
    is_optional = "null" in branches or "default" in field
    if len(kinds) == 1:
        return FieldDraft(field["name"], kinds[0], is_optional)
    return FieldDraft(
        field["name"], "Any", is_optional, f"a union of {', '.join(kinds)}: any JSON" if kinds else "null"
    )


def _avro_type(node: Any, named: Mapping[str, str]) -> str:
    if isinstance(node, str):
        return _AVRO.get(node) or named.get(node, "dict[str, Any]")
    return _AVRO_LOGICAL.get(str(node.get("logicalType"))) or _avro_type(node["type"], named)


def _json_fields(schema: Any) -> list[FieldDraft]:
    if not isinstance(schema, Mapping):
        return []
    required = set(schema.get("required", ()))
    return [_json_field(name, node, name in required) for name, node in schema.get("properties", {}).items()]


def _json_field(name: str, node: Any, is_required: bool) -> FieldDraft:
    node = node if isinstance(node, Mapping) else {}
    branches = node.get("oneOf") or node.get("anyOf") or [node]
    kinds, is_null = set(), False
    for branch in branches:
        declared = branch.get("type", "object" if "$ref" in branch or "properties" in branch else None)
        for kind in declared if isinstance(declared, list) else [declared]:
            is_null = is_null or kind == "null"
            if kind != "null":
                formatted = _JSON_FORMATS.get(str(branch.get("format"))) if kind == "string" else None
                kinds.add(formatted or _JSON.get(str(kind), "Any"))
    found = kinds.pop() if len(kinds) == 1 else "Any"
    return FieldDraft(name, found, is_null or not is_required, "of several types" if found == "Any" else "")
