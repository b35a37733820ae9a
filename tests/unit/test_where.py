"""Conditions on the records of a topic that several datasets share."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from headrace.contract import Integer, Text
from headrace.dataset import Dataset, File, KafkaTopic
from headrace.exceptions import DatasetError
from headrace.formats import Avro, JsonSchema, Protobuf
from headrace.formats.registry import JSON_SCHEMA, PROTOBUF, SchemaText
from headrace.ingest.batch import Batch
from headrace.postgres.ledger import LedgerKind, RunContext
from headrace.record import KafkaRecord
from tests.support.schemas import Schemas, wire


class Order(BaseModel):
    id: Integer
    type: Text = ""


def dataset(where: str, **options: Any) -> Dataset:
    return Dataset(name="orders", contract=Order, source=KafkaTopic(topic="all"), key="id", where=where, **options)


@pytest.mark.parametrize(
    ("where", "document", "belongs"),
    [
        ("$.type = 'order'", {"type": "order"}, True),
        ("$.type = 'order'", {"type": "Order"}, False),
        ("$.type = 'order'", {}, False),
        ("$.type='it''s'", {"type": "it's"}, True),
        ("$.type != 'order'", {}, True),
        ("$.type != 'order'", {"type": "order"}, False),
        ("$.type in ('a', 'b')", {"type": "b"}, True),
        ("$.type in ('a','b', 3)", {"type": 3}, True),
        ("$.type in ('a', 'b')", {"type": "c"}, False),
        ("$.meta['the kind'] = 2", {"meta": {"the kind": 2}}, True),
        ("$.meta.kind = 1", {"meta": {"kind": True}}, False),
        ("$.meta.kind = true", {"meta": {"kind": True}}, True),
        ("$.meta.kind = null", {"meta": 5}, True),
        ("$.meta.kind != null", {"meta": {"kind": []}}, True),
    ],
)
def test_condition_on_a_document(where: str, document: Any, belongs: bool) -> None:
    declared = dataset(where).filter
    assert declared is not None
    assert declared.ignores(b"1", json.dumps(document).encode(), ()) is not belongs


def test_condition_on_a_header_takes_the_last() -> None:
    declared = dataset("header.type = 'order'").filter
    assert declared is not None
    headers = [("type", b"x"), ("type", b"order")]

    assert not declared.ignores(None, b"no JSON", headers)
    assert not declared.ignores(None, None, headers)
    assert declared.ignores(None, b"{}", headers[:1])
    assert declared.ignores(None, b"{}", ())
    assert declared.ignores(None, b"{}", [("type", b"\xff")])


@pytest.mark.parametrize("value", [b"{", b"\xff", b"[1]", b""])
def test_value_that_is_no_document_is_not_ignored(value: bytes) -> None:
    declared = dataset("$.type = 'order'").filter
    assert declared is not None
    assert not declared.ignores(b"1", value, ())


SHOP = 'syntax = "proto3"; package com.acme; message Order { message Line {} } message Client {}'
SCHEMAS = Schemas(
    {
        1: {"type": "record", "name": "Order", "namespace": "com.acme", "fields": []},
        2: {"type": "record", "name": "com.acme.Client", "fields": []},
        3: ["null", {"type": "record", "name": "com.acme.Order", "fields": []}],
        4: "string",
        5: SchemaText(JSON_SCHEMA, '{"title": "com.acme.Order"}', {}),
        6: SchemaText(JSON_SCHEMA, '{"title": 5}', {}),
        7: SchemaText(PROTOBUF, SHOP, {}),
    }
)
NAMES: dict[Any, dict[bytes, str | None]] = {  # by format, the names of values
    Avro(schemas=SCHEMAS): {
        wire(1, b""): "com.acme.Order",
        wire(2, b"damaged"): "com.acme.Client",
        wire(3, b""): None,
        wire(4, b""): "string",
    },
    JsonSchema(schemas=SCHEMAS): {wire(5, b"{}"): "com.acme.Order", wire(6, b"{"): None},
    Protobuf(schemas=SCHEMAS): {  # behind the id stand a message's indexes: one zero byte, [0, 0], [1]
        wire(7, b"\0"): "com.acme.Order",
        wire(7, b"\4\0\0"): "com.acme.Order.Line",
        wire(7, b"\2\2damaged"): "com.acme.Client",
    },
}


@pytest.mark.parametrize("format", NAMES, ids=lambda format: str(format.name))
def test_name_of_a_schema(format: Any) -> None:
    decoder = format.decoder()
    assert {value: decoder.schema_name(value, ()) for value in NAMES[format]} == NAMES[format]


def test_condition_on_the_name_of_a_schema() -> None:
    format = Avro(schemas=SCHEMAS)
    for value, name in NAMES[format].items():
        for where, belongs in (
            ("schema = 'com.acme.Order'", name == "com.acme.Order"),
            ("schema in ('com.acme.Order.Line', 'string')", name == "string"),
            ("schema != 'com.acme.Client'", name != "com.acme.Client"),
            ("schema = null", name is None),
        ):
            found = dataset(where, format=format, max_value_bytes=6).filter  # of a large value it is known, too
            assert found is not None
            assert found.ignores(b"1", value, ()) is not belongs, where
    declared = dataset("schema = 'com.acme.Order'", format=format).filter
    assert declared is not None
    for foreign in (b"{}", b"", wire(99, b""), wire(5, b"")):  # of no schema, or of one that cannot be read
        assert not declared.ignores(b"1", foreign, ())  # a dead letter
    assert not declared.ignores(b"1", None, ())
    assert declared.ignores(b"client-1", None, ())


def test_condition_on_a_schema_asks_for_a_format_that_has_them() -> None:
    with pytest.raises(DatasetError, match="expected a format with schemas: values of this one name none"):
        dataset("schema = 'com.acme.Order'")


def test_tombstone_belongs_to_the_dataset_whose_key_it_has() -> None:
    declared = dataset("$.type = 'order'").filter
    assert declared is not None

    assert not declared.ignores(b"5", None, ())
    assert declared.ignores(b"customer-5", None, ())
    assert not declared.ignores(None, None, ())  # a dead letter: missing_key


@pytest.mark.parametrize(
    "where",
    [
        "type = 'order'",
        "$.type",
        "$.type = order",
        "$.type in 'a'",
        "$.type = 'a', 'b'",
        "$ = 1",
        "$.n = 1.5",
        "",
        "schemas = 'a'",
    ],
)
def test_condition_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(DatasetError, match=r"expected"):
        dataset(where)


def test_condition_on_a_file_is_refused() -> None:
    declared = Dataset(name="orders", contract=Order, source=File(path="x.ndjson"), where="$.type = 'a'")
    with pytest.raises(DatasetError, match="where is set, expected none: a file is not shared"):
        _ = declared.compiled


def record(offset: int, type_: str) -> KafkaRecord:
    value = json.dumps({"id": offset, "type": type_}).encode()
    return KafkaRecord(offset, 0, b"%d" % offset, value, ())


def test_batch_counts_what_it_ignores() -> None:
    declared = dataset("$.type = 'order'")
    batch = Batch(declared, 1, 0, 10)
    records = [record(10, "x"), record(11, "order"), record(13, "x"), record(14, "order"), record(15, "x")]

    assert batch.fill(iter(records), 4, 1_000_000)  # ignored records fill a batch, too: its checkpoint moves on

    line = batch.line(LedgerKind.DRAIN, RunContext())
    assert (line.start_offset, line.end_offset) == (10, 15)
    assert (line.staged, line.dead, line.tombstones, line.ignored, line.empty) == (2, 0, 0, 2, 1)
