"""Fields from schemas of a registry."""

import json
from typing import Any

import pytest

from headrace.exceptions import DatasetError
from headrace.formats.registry import AVRO, JSON_SCHEMA, PROTOBUF, SchemaText
from headrace.infer.subjects import schema_fields, subject_fields, topic_of
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


PROTO = """\
syntax = "proto3";
import "confluent/type/decimal.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
message Order {
  int64 a = 1;
  uint64 b = 2;
  optional string c = 3;
  google.protobuf.Timestamp d = 4;
  confluent.type.Decimal e = 5;
  Colour f = 6;
  repeated Buyer g = 7;
  map<string, int32> h = 8;
  Buyer i = 9;
  google.protobuf.StringValue j = 10;
  google.protobuf.Value k = 11;
  bytes l = 12;
  float m = 13;
  oneof either { bool n = 14; sint32 o = 15; }
}
message Buyer { string name = 1; }
enum Colour { RED = 0; }
"""


def test_fields_of_a_protobuf_message_may_be_absent_if_it_knows_so_or_an_older_version_lacks_them() -> None:
    older = PROTO.replace("  uint64 b = 2;\n", "")
    found = subject_fields([SchemaText(PROTOBUF, text, {}) for text in (older, "no schema", PROTO)], "orders-value")
    assert {field.source_name: shown(field) for field in found} == {
        "a": "Integer", "b": "Numeric?", "c": "str?", "d": "Timestamp?", "e": "Numeric?", "f": "Text", "g": "list[Any]",
        "h": "dict[str, Any]", "i": "dict[str, Any]?", "j": "str?", "k": "Any?", "l": "bytes", "m": "Float",
        "n": "Boolean?", "o": "Integer?",
    }  # fmt: skip
    with pytest.raises(
        DatasetError, match=r"subject orders-value is no Protobuf schema: .*expected the text of a \.pro"
    ):
        subject_fields([SchemaText(PROTOBUF, "no schema", {})], "orders-value")


@pytest.mark.parametrize(
    ("kind", "schema", "expected"),
    [
        (AVRO, "long", "a schema without fields"),
        (JSON_SCHEMA, {}, "without"),
    ],
)
def test_schema_that_is_no_records_is_refused(kind: str, schema: Any, expected: str) -> None:
    with pytest.raises(DatasetError, match=expected):
        fields(kind, schema)


def test_topic_of_a_subject() -> None:
    assert topic_of("orders-value") == "orders"
