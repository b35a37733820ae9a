"""Fields from schemas of a registry."""

import json
from typing import Any

import pytest

from headrace.exceptions import DatasetError
from headrace.formats.registry import AVRO, JSON_SCHEMA, PROTOBUF, SchemaText
from headrace.infer.subjects import schema_fields, topic_of
from tests.support.inferred import shown


def fields(kind: str, schema: Any) -> dict[str, str]:
    found = schema_fields(SchemaText(kind, json.dumps(schema), {}), "orders-value")
    return {field.source_name: shown(field) for field in found}


def test_fields_of_an_avro_record() -> None:
    colour = {"type": "enum", "name": "Colour", "symbols": ["RED"]}
    types = {
        "a": "long", "b": ["null", "string"], "c": {"type": "string", "logicalType": "uuid"},
        "d": colour, "e": "Colour",
        "f": {"type": "fixed", "name": "Money", "size": 8, "logicalType": "decimal", "precision": 9},
        "g": ["null", "Money"],
        "h": {"type": "int", "logicalType": "date"}, "i": {"type": "array", "items": "int"}, "j": ["int", "string"],
        "k": {"type": "map", "values": "int"}, "l": "bytes", "m": "double",
        "n": {"type": "long", "logicalType": "timestamp-nanos"},
    }  # fmt: skip
    schema = {"type": "record", "name": "Order", "fields": [{"name": n, "type": t} for n, t in types.items()]}
    assert fields(AVRO, schema) == {
        "a": "Integer", "b": "str?", "c": "UUID", "d": "Text", "e": "Text", "f": "Numeric", "g": "Numeric?",
        "h": "Date",
        "i": "list[Any]", "j": "Any", "k": "dict[str, Any]", "l": "bytes", "m": "Float", "n": "Timestamp",
    }  # fmt: skip


def test_fields_of_a_json_schema() -> None:
    properties = {
        "a": {"type": "integer"}, "b": {"type": ["null", "number"]}, "c": {"type": "string", "format": "date-time"},
        "d": {"oneOf": [{"type": "null"}, {"type": "boolean"}]}, "e": {"$ref": "#/definitions/E"}, "f": {},
        "g": {"type": "array"}, "h": {"type": "string"}, "i": {"type": ["string", "integer"]},
    }  # fmt: skip
    schema = {"type": "object", "properties": properties, "required": [name for name in properties if name != "h"]}
    assert fields(JSON_SCHEMA, schema) == {
        "a": "Integer", "b": "Numeric?", "c": "Timestamp", "d": "Boolean?", "e": "dict[str, Any]", "f": "Any",
        "g": "list[Any]", "h": "str?", "i": "Any",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "schema", "expected"),
    [
        (PROTOBUF, "", "infer from its topic's records"),
        (AVRO, "long", "a schema without fields"),
        (JSON_SCHEMA, {}, "without"),
    ],
)
def test_schema_that_is_no_records_is_refused(kind: str, schema: Any, expected: str) -> None:
    with pytest.raises(DatasetError, match=expected):
        fields(kind, schema)


def test_topic_of_a_subject() -> None:
    assert topic_of("orders-value") == "orders"
