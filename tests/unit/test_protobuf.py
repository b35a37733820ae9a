"""Protobuf values by the text of their schema: imports, indexes, well-known types, and bytes that are none of it."""

from base64 import b64encode
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.timestamp_pb2 import DESCRIPTOR as TIMESTAMP
from pydantic import create_model

from headrace.contract import Contract, Integer, Numeric, Timestamp
from headrace.dataset import CONTRACT_CONFIG
from headrace.formats import Protobuf
from headrace.formats.base import Fault, Undecodable
from headrace.formats.registry import AVRO, PROTOBUF, SchemaText
from headrace.formats.values import Nanoseconds
from tests.support.schemas import Schemas, wire

MONEY = SchemaText(
    PROTOBUF,
    'syntax = "proto3"; package money; import "stamp.proto"; message Money { int64 cents = 1; stamp.Stamp at = 2; }',
    {"stamp.proto": SchemaText(PROTOBUF, 'syntax = "proto3"; package stamp; message Stamp { sint32 day = 1; }', {})},
)
ORDER = """
syntax = "proto3";
package shop.orders;
import "lib/money.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/empty.proto";
import "confluent/type/decimal.proto";
enum Kind { NONE = 0; BIG = 1; }
message Other { int32 x = 1; message Inner { string y = 1; } }
message Order {
  int64 id = 1;
  optional string note = 2;
  money.Money price = 3;
  repeated money.Money tips = 4;
  map<int32, money.Money> by = 5;
  map<string, int64> counts = 6;
  Kind kind = 7;
  bytes raw = 8;
  oneof choice { string text = 9; int32 number = 10; }
  google.protobuf.Timestamp at = 11;
  google.protobuf.Duration took = 12;
  google.protobuf.Int64Value wrapped = 13;
  google.protobuf.Struct more = 14;
  google.protobuf.Empty nothing = 15;
  confluent.type.Decimal amount = 16;
  Order child = 17;
  uint64 big = 18;
  double ratio = 19;
  repeated sint64 numbers = 20;
  map<bool, string> flags = 21;
}
"""
SCHEMAS = Schemas(
    {
        1: SchemaText(PROTOBUF, ORDER, {"lib/money.proto": MONEY}),
        2: SchemaText(AVRO, '"long"', {}),
        3: SchemaText(PROTOBUF, "message {", {}),
        4: SchemaText(PROTOBUF, 'syntax = "proto3"; import "gone.proto"; message A {}', {}),
        5: SchemaText(PROTOBUF, 'syntax = "proto3"; message A {}', {"../a.proto": MONEY}),
        6: SchemaText(PROTOBUF, b64encode(TIMESTAMP.serialized_pb).decode(), {}),
    }
)
DECODER = Protobuf(schemas=SCHEMAS).decoder()
ALWAYS = {
    "tips": [],
    "by": {},
    "counts": {},
    "kind": "NONE",
    "raw": b"",
    "big": 0,
    "ratio": 0.0,
    "numbers": [],
    "flags": {},
}


def order(payload: bytes) -> Any:
    document = DECODER.decode(wire(1, b"\x02\x02" + payload), ()).document
    return {name: value for name, value in document.items() if name not in ALWAYS or value != ALWAYS[name]}


def field(number: int, payload: bytes) -> bytes:
    """A field of variable length."""
    tag = number << 3 | 2
    return (bytes((tag & 0x7F | 0x80, tag >> 7)) if tag > 0x7F else bytes((tag,))) + bytes((len(payload),)) + payload


@pytest.mark.parametrize(
    ("payload", "document"),
    [
        (b"", {"id": 0}),
        (b"\x08\x05" + field(2, b"") + field(9, b"a"), {"id": 5, "note": "", "text": "a"}),
        (b"\x50\x00", {"id": 0, "number": 0}),
        (field(3, b"\x08\x05" + field(2, b"\x08\x01")), {"id": 0, "price": {"cents": 5, "at": {"day": -1}}}),
        (field(4, b"\x08\x01") + field(4, b""), {"id": 0, "tips": [{"cents": 1}, {"cents": 0}]}),
        (field(5, b"\x08\x07" + field(2, b"\x08\x09")), {"id": 0, "by": {"7": {"cents": 9}}}),
        (field(6, field(1, b"a") + b"\x10\x05"), {"id": 0, "counts": {"a": 5}}),
        (field(21, b"\x08\x01" + field(2, b"yes")), {"id": 0, "flags": {"true": "yes"}}),
        (b"\x38\x01", {"id": 0, "kind": "BIG"}),
        (b"\x38\x07", {"id": 0, "kind": 7}),
        (field(8, b"\xff\0"), {"id": 0, "raw": b"\xff\0"}),
        (field(11, b"\x08\x01\x10\x02"), {"id": 0, "at": Nanoseconds(1_000_000_002)}),
        (field(12, b"\x08\x01\x10\x01"), {"id": 0, "took": Decimal("1.000000001")}),
        (field(13, b"\x08\x05"), {"id": 0, "wrapped": 5}),
        (field(13, b""), {"id": 0, "wrapped": 0}),
        (field(14, field(1, field(1, b"a") + field(2, b"\x20\x01"))), {"id": 0, "more": {"a": True}}),
        (field(15, b""), {"id": 0, "nothing": {}}),
        (b"\x82\x01\x08" + field(1, b"\xfe\xd4") + b"\x10\x04\x18\x02", {"id": 0, "amount": Decimal("-3.00")}),
        (b"\x90\x01" + b"\xff" * 9 + b"\x01", {"id": 0, "big": 2**64 - 1}),
        (b"\xa2\x01\x02\x01\x02", {"id": 0, "numbers": [-1, 1]}),
    ],
)
def test_protobuf_message_becomes_its_document(payload: bytes, document: Any) -> None:
    found = order(payload)
    assert found == document
    assert {name: type(value) for name, value in found.items()} == {n: type(value) for n, value in document.items()}


def test_protobuf_message_that_holds_itself_is_read_to_a_depth_that_is_bounded() -> None:
    payload = b"\x08\x05"
    for _ in range(3):
        payload = b"\x8a\x01" + bytes((len(payload),)) + payload
    assert order(payload)["child"]["child"]["child"]["id"] == 5
    deep = b""
    for _ in range(200):
        size = len(deep)
        deep = b"\x8a\x01" + bytes((size & 0x7F | 0x80, size >> 7)) + deep
    with pytest.raises(Undecodable) as caught:
        order(deep)
    assert caught.value.fault is Fault.UNDECODABLE


@pytest.mark.parametrize(
    ("value", "fault", "detail"),
    [
        (b"", Fault.UNDECODABLE, "expected a zero byte and a schema's id"),
        (wire(1, b""), Fault.UNDECODABLE, "ends in the indexes of its message"),
        (wire(1, b"\x04\x02"), Fault.UNDECODABLE, "ends in the indexes of its message"),
        (wire(1, b"\xff" * 5000), Fault.UNDECODABLE, "ends in the indexes of its message"),
        (wire(1, b"\x01\x02"), Fault.UNDECODABLE, "names its message by -1 indexes"),
        (wire(1, b"\x02\x0a"), Fault.UNDECODABLE, "names message [5] of schema 1, which has no such message"),
        (wire(1, b"\x04\x02\x08"), Fault.UNDECODABLE, "names message [1, 4] of schema 1"),
        (wire(1, b"\x02\x02\x0a"), Fault.UNDECODABLE, "by schema 1: Error parsing message"),
        (wire(1, b"\x02\x02\xa0\x06\x05"), Fault.UNDECODABLE, "field 100 is not in message shop.orders.Order"),
        (wire(1, b"\x02\x02" + field(9, b"\xff")), Fault.UNDECODABLE, "by schema 1: "),
        (wire(1, b"\x02\x02" + field(11, b"\x10\xff\xff\xff\xff\x07")), Fault.OUT_OF_RANGE, "2147483647 nanoseconds"),
        (wire(2, b"\0"), Fault.INCOMPATIBLE_SCHEMA, "schema 2 is of type AVRO, expected PROTOBUF"),
        (wire(3, b"\0"), Fault.INCOMPATIBLE_SCHEMA, "schema 3 is no Protobuf schema: "),
        (wire(4, b"\0"), Fault.INCOMPATIBLE_SCHEMA, "gone.proto"),
        (wire(5, b"\0"), Fault.INCOMPATIBLE_SCHEMA, "schema 5 imports '../a.proto', expected a relative path"),
        (wire(9, b"\0"), Fault.UNKNOWN_SCHEMA, "schema 9 is not registered"),
    ],
)
def test_protobuf_value_that_is_none_says_why(value: bytes, fault: Fault, detail: str) -> None:
    with pytest.raises(Undecodable) as caught:
        DECODER.decode(value, ())
    assert caught.value.fault is fault
    assert detail in caught.value.detail


def test_protobuf_nested_message_is_found_by_its_indexes() -> None:
    assert DECODER.decode(wire(1, b"\0\x08\x05"), ()).document == {"x": 5}
    assert DECODER.decode(wire(1, b"\x02\0\x08\x05"), ()).document == {"x": 5}
    assert DECODER.decode(wire(1, b"\x04\0\0\x0a\x01a"), ()).document == {"y": "a"}


def test_protobuf_schema_that_a_client_registered_as_a_descriptor_is_read() -> None:
    assert FileDescriptorProto.FromString(TIMESTAMP.serialized_pb).name == "google/protobuf/timestamp.proto"
    document = DECODER.decode(wire(6, b"\0\x08\x05"), ()).document
    assert document == Nanoseconds(5_000_000_000)


def test_protobuf_message_becomes_a_row() -> None:
    fields: Any = {"id": (Integer, ...), "at": (Timestamp, ...), "amount": (Numeric, ...), "raw": (bytes, b"")}
    model = create_model("Made", __config__=CONTRACT_CONFIG, **fields)
    contract = Contract(model, format=Protobuf(schemas=SCHEMAS))
    amount = b"\x82\x01\x05" + field(1, b"\x05") + b"\x18\x03"
    row = contract.decode(None, wire(1, b"\x02\x02\x08\x05" + field(11, b"\x08\x01") + amount + field(2, b"n")))
    assert isinstance(row, list)
    assert (row[0], row[1].isoformat(), str(row[2]), row[3]) == (5, "1970-01-01T00:00:01+00:00", "0.005", b"")
    assert b'"note":"n"' in row[-1] and b'"numbers":[]' in row[-1]
