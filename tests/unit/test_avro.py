"""Avro values: exact, whole, and never more than their bytes can hold."""

import io
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from pydantic import create_model

from headrace.contract import (
    Contract,
    Date,
    EpochMilliseconds,
    EpochSeconds,
    Identifier,
    Integer,
    Numeric,
    TimeOfDay,
    Timestamp,
)
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic, RedisStream
from headrace.exceptions import DatasetError, RegistryRefused, RegistryUnavailable
from headrace.formats import Avro, Json
from headrace.formats.base import Fault, Undecodable
from headrace.formats.registry import PROTOBUF, SchemaText
from tests.support.schemas import Schemas, wire

NANOS = 1_700_000_000_123_456_789
AT = datetime(2023, 11, 14, 22, 13, 20, 123_456, tzinfo=UTC)


def record(**types: Any) -> Any:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": of} for name, of in types.items()]}


def written(schema: Any, document: Any) -> bytes:
    """What another writer makes of a document; of logical types it gets the bytes and numbers that they stand on."""
    data = io.BytesIO()
    fastavro.schemaless_writer(data, fastavro.parse_schema(_physical(schema)), document)
    return data.getvalue()


def _physical(node: Any) -> Any:
    if isinstance(node, list):
        return [_physical(item) for item in node]
    if isinstance(node, dict):
        return {name: _physical(item) for name, item in node.items() if name != "logicalType"}
    return node


def decoded(schema: Any, document: Any) -> Any:
    return Avro(schemas=Schemas({1: schema})).decoder().decode(wire(1, written(schema, document)), ()).document


def logical(kind: str, of: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": of, **more}


@pytest.mark.parametrize(
    ("kind", "stored", "value"),
    [
        (logical("bytes", "decimal", precision=4, scale=2), (-1_234_567).to_bytes(3, "big", signed=True), "-12345.67"),
        (logical("bytes", "decimal", precision=60), (10**59 + 7).to_bytes(32, "big"), str(10**59 + 7)),
        (logical("fixed", "decimal", name="F", size=2, precision=4, scale=3), b"\x00\x01", "0.001"),
    ],
)
def test_avro_decimal_keeps_every_digit(kind: Any, stored: bytes, value: str) -> None:
    found = decoded(record(v=kind), {"v": stored})["v"]
    assert (type(found), str(found)) == (Decimal, value)


@pytest.mark.parametrize(
    ("kind", "stored", "value"),
    [
        (logical("long", "timestamp-micros"), NANOS // 1000, AT),
        (logical("long", "timestamp-millis"), -1, datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)),
        (logical("long", "local-timestamp-micros"), NANOS // 1000, AT.replace(tzinfo=None)),
        (logical("long", "time-micros"), 86_399_999_999, time(23, 59, 59, 999_999)),
        (logical("int", "time-millis"), 3_600_001, time(1, 0, 0, 1_000)),
        (logical("int", "date"), -1, date(1969, 12, 31)),
        (logical("string", "uuid"), str(UUID(int=5)), UUID(int=5)),
        (logical("fixed", "uuid", name="U", size=16), UUID(int=7).bytes, UUID(int=7)),
        (logical("long", "unheard-of"), 5, 5),
    ],
)
def test_avro_logical_types_are_exact(kind: Any, stored: Any, value: Any) -> None:
    found = decoded(record(v=kind), {"v": stored})["v"]
    assert (type(found), found) == (type(value), value)


def row(value: bytes, schemas: Schemas, **fields: Any) -> Any:
    model = create_model("Made", __config__=CONTRACT_CONFIG, **fields)
    return Contract(model, format=Avro(schemas=schemas)).decode(None, value)


@pytest.mark.parametrize("name", ["timestamp-nanos", "local-timestamp-nanos"])
def test_avro_nanoseconds_are_kept_whole_in_numbers_texts_and_extra(name: str) -> None:
    schema = record(number=logical("long", name), text=logical("long", name), at=logical("long", name),
                    more=logical("long", name))  # fmt: skip
    value = wire(1, written(schema, dict.fromkeys(("number", "text", "at", "more"), NANOS)))
    found = row(value, Schemas({1: schema}), number=(Integer, ...), text=(Identifier, ...), at=(Timestamp, ...))
    text = "2023-11-14T22:13:20.123456789" + ("+00:00" if name.startswith("t") else "")
    assert found == [NANOS, text, AT, json.dumps({"more": text}, separators=(",", ":")).encode()]


MILLIS = logical("long", "timestamp-millis")


def test_avro_record_becomes_a_row_with_lossless_conversions() -> None:
    kinds = {"id": "int", "amount": "int", "name": "bytes", "day": MILLIS, "ms": MILLIS, "s": MILLIS}
    schema = record(**kinds, more={"type": "map", "values": ["null", "bytes", "double"]})
    millis = 1_700_006_400_000
    more = {"a": b"\xff\0", "b": float("nan"), "c": None, "d": float("-inf")}
    document = {"id": 5, "amount": 7, "name": "ä".encode(), "day": millis, "ms": millis, "s": millis, "more": more}
    at = datetime(2023, 11, 15, tzinfo=UTC)
    found = row(
        wire(1, written(schema, document)), Schemas({1: schema}), id=(Identifier, ...), amount=(Numeric, ...),
        name=(Identifier, ...), day=(Date, ...), ms=(EpochMilliseconds, ...), s=(EpochSeconds, ...), later=(Integer, 3),
    )  # fmt: skip
    extra = b'{"more":{"a":"/wA=","b":"NaN","c":null,"d":"-Infinity"}}'
    assert found == ["5", Decimal(7), "ä", at.date(), at, at, 3, extra]


def test_avro_record_in_a_contract_of_strict_types_is_accepted() -> None:
    schema = record(at=logical("long", "timestamp-micros"), id="long")
    model = create_model("Made", __config__=CONTRACT_CONFIG, at=(Timestamp, ...), id=(Integer, ...))
    contract = Contract(model, format=Avro(schemas=Schemas({1: schema})), strict=True)
    assert contract.decode(None, wire(1, written(schema, {"at": NANOS // 1000, "id": 5}))) == [AT, 5, None]


ORDER = record(id="long", name="string")
VALID = written(ORDER, {"id": 5, "name": "abc"})
NODE = {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}


@pytest.mark.parametrize(
    ("value", "fault", "detail"),
    [
        (b"", Fault.UNDECODABLE, "begins with b'', expected a zero byte"),
        (b"\0\0\0\0", Fault.UNDECODABLE, "expected a zero byte and a schema's id in four bytes"),
        (b'{"id":5}', Fault.UNDECODABLE, "begins with b'{\"id\"'"),
        (wire(1, VALID[:-1]), Fault.UNDECODABLE, "by schema 1: "),
        (wire(1, VALID + b"\0\0"), Fault.UNDECODABLE, "by schema 1: ends 2 bytes before the value"),
        (wire(1, b"\x0a\x06\xff\xff\xff"), Fault.UNDECODABLE, "by schema 1: 'utf-8'"),
        (wire(1, b"\x0a\xfe\xff\xff\xff\xff\xff\xff\x7f"), Fault.UNDECODABLE, "by schema 1: "),
        (wire(9, VALID), Fault.UNKNOWN_SCHEMA, "schema 9 is not registered"),
        (wire(2, VALID), Fault.INCOMPATIBLE_SCHEMA, "schema 2 is of type PROTOBUF, expected AVRO"),
        (wire(3, VALID), Fault.INCOMPATIBLE_SCHEMA, "schema 3 is no Avro schema: "),
        (wire(4, VALID), Fault.INCOMPATIBLE_SCHEMA, "schema 4 is not JSON: "),
        (wire(5, b"\xfe\xff\xff\xff\x7f\0"), Fault.INCOMPATIBLE_SCHEMA, "an array of values that take no bytes"),
        (wire(6, b"\x02" * 1_000_000 + b"\0"), Fault.UNDECODABLE, "recursion"),
        (wire(7, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"), Fault.OUT_OF_RANGE, "by schema 7: "),
    ],
)
def test_avro_value_that_is_none_says_why(value: bytes, fault: Fault, detail: str) -> None:
    schemas = Schemas(
        {
            1: ORDER,
            2: SchemaText(PROTOBUF, 'syntax = "proto3";', {}),
            3: {"type": "record"},
            4: SchemaText("AVRO", "{", {}),
            5: record(v={"type": "array", "items": {"type": "record", "name": "E", "fields": []}}),
            6: NODE,
            7: record(at=logical("long", "timestamp-micros")),
        }
    )
    with pytest.raises(Undecodable) as caught:
        Avro(schemas=schemas).decoder().decode(value, ())
    assert caught.value.fault is fault
    assert detail in caught.value.detail


def test_avro_is_read_the_same_by_its_second_reader() -> None:
    kinds: dict[str, Any] = {
        "amount": logical("bytes", "decimal", precision=4, scale=2), "nanos": logical("long", "timestamp-nanos"),
        "at": logical("long", "timestamp-micros"), "uid": logical("string", "uuid"), "day": logical("int", "date"),
        "tags": {"type": "array", "items": ["null", "string"]}, "ratio": "double",
    }  # fmt: skip
    document = {"amount": b"\x7f\xff\xff", "nanos": NANOS, "at": NANOS // 1000, "uid": str(UUID(int=5)), "day": 5,
                "tags": ["a", None], "ratio": 0.1}  # fmt: skip
    first = Avro(schemas=Schemas({1: record(**kinds)}))
    value = wire(1, written(record(**kinds), document))
    found = [each.decoder().decode(value, ()).document for each in (first, first.second())]
    assert found[0] == found[1]
    assert [type(item) for item in found[0].values()] == [type(item) for item in found[1].values()]
    assert str(found[1]["amount"]) == "83886.07"


def test_avro_recursive_value_of_some_depth_is_read() -> None:
    assert decoded(NODE, {"next": {"next": {"next": None}}}) == {"next": {"next": {"next": None}}}


def test_avro_schema_is_asked_for_once_and_an_unknown_one_again() -> None:
    schemas = Schemas({1: ORDER})
    decoder = Avro(schemas=schemas).decoder()
    for _ in range(3):
        decoder.decode(wire(1, VALID), ())
        with pytest.raises(Undecodable):
            decoder.decode(wire(2, VALID), ())
    assert schemas.asked == [1, 2, 2, 2]  # the registry's client knows for how long an id is unknown
    schemas.schemas[2] = ORDER
    assert decoder.decode(wire(2, VALID), ()).document == {"id": 5, "name": "abc"}


def test_avro_with_imports_reads_named_types_of_other_schemas() -> None:
    money = SchemaText("AVRO", json.dumps({**record(cents="long"), "name": "Money"}), {})
    price = SchemaText("AVRO", json.dumps({**record(money="Money"), "name": "Price"}), {"Money": money})
    order = SchemaText("AVRO", json.dumps(record(price="Price", tip="Money")), {"Price": price, "Money": money})
    decoder = Avro(schemas=Schemas({1: order})).decoder()
    assert decoder.decode(wire(1, b"\x0a\x0c"), ()).document == {"price": {"money": {"cents": 5}}, "tip": {"cents": 6}}


def test_avro_single_object_is_read_by_the_schema_of_its_fingerprint() -> None:
    schemas = Schemas({7: ORDER})
    decoder = Avro("single_object", subject="orders-value", schemas=schemas).decoder()
    # fingerprint of "int", by Avro's own test (share/test/data/schema-tests.txt): 0x7275d51a3f395c8f
    schemas.schemas[8] = SchemaText("AVRO", '"int"', {})
    value = b"\xc3\x01" + bytes.fromhex("8f5c393f1ad57572") + b"\x0a"
    assert decoder.schema_id(value, ()) is None
    assert decoder.decode(value, ()).document == 5
    assert decoder.schema_id(value, ()) == 8
    for damaged, fault in ((value[1:], Fault.UNDECODABLE), (b"\xc3\x01" + bytes(9), Fault.UNKNOWN_SCHEMA)):
        with pytest.raises(Undecodable) as caught:
            decoder.decode(damaged, ())
        assert caught.value.fault is fault
    with pytest.raises(Undecodable, match=r"no version of subject orders-value has fingerprint 0000000000000000"):
        decoder.decode(b"\xc3\x01" + bytes(9), ())
    assert schemas.asked.count("orders-value") == 1


def test_contract_with_a_registry_that_does_not_answer_raises_and_rejects_nothing() -> None:
    schemas = Schemas({1: ORDER})
    schemas.failure = RegistryUnavailable("registry: does not answer")
    model = create_model("Made", __config__=CONTRACT_CONFIG, id=(Integer, ...))
    contract = Contract(model, key="id", format=Avro(schemas=schemas), key_format=Avro(schemas=schemas))
    for key, value in ((b"5", wire(1, VALID)), (wire(1, b"\x0a"), None)):
        with pytest.raises(RegistryUnavailable):
            contract.decode(key, value)


def test_contract_with_avro_keys_compares_them_with_the_field() -> None:
    schemas = Schemas({1: ORDER, 2: "long", 3: record(id="string"), 4: "string", 5: record(a="long", b="long")})
    model = create_model("Made", __config__=CONTRACT_CONFIG, id=(Integer, ...), name=(Identifier | None, None))
    contract = Contract(model, key="id", format=Avro(schemas=schemas), key_format=Avro(schemas=schemas))
    for key in (wire(2, b"\x0a"), wire(3, b"\x025"), wire(4, b"\x025")):
        assert contract.decode(key, wire(1, VALID)) == [5, "abc", None]
        assert contract.decode(key, None) == [5, None, None]
    for key, reason in (
        (wire(2, b"\x0c"), Reason.KEY_MISMATCH),
        (wire(5, b"\x0a\x0a"), Reason.KEY_MISMATCH),
        (wire(9, b""), Reason.UNKNOWN_SCHEMA),
        (b"5", Reason.UNDECODABLE),
    ):
        found = contract.decode(key, wire(1, VALID))
        assert isinstance(found, Rejection)
        assert found.reason == reason
    primitive = contract.decode(wire(2, b"\x0a"), wire(4, b"\x025"))
    assert isinstance(primitive, Rejection)
    assert (primitive.reason, primitive.detail) == (Reason.WRONG_TYPE, "expected a record, found '5'")


def test_avro_of_a_declaration_that_no_deployment_connected_refuses() -> None:
    with pytest.raises(RegistryRefused, match=r"expected a dataset of Deployment\.dataset"):
        Avro().decoder().decode(wire(1, VALID), ())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Avro("object"), "encoding is 'object', expected 'confluent' or 'single_object'"),  # type: ignore[arg-type]
        (lambda: Avro("single_object"), "expected the subject whose schemas are looked for"),
        (lambda: Avro(subject="a"), "with subject 'a', expected none"),
    ],
)
def test_avro_with_parameters_that_contradict_is_refused(make: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make()


def test_dataset_of_a_stream_with_a_registry_is_refused() -> None:
    model = create_model("Made", __config__=CONTRACT_CONFIG, id=(Integer, ...))
    with pytest.raises(DatasetError, match="format is avro, expected one without a registry: only topics have others"):
        Dataset(name="orders", contract=model, source=RedisStream(stream="orders"), format=Avro())
    with pytest.raises(DatasetError, match="key_format is set, expected a key"):
        Dataset(name="orders", contract=model, source=KafkaTopic(topic="orders"), key_format=Json())


def test_avro_time_of_a_far_year_is_out_of_range() -> None:
    schema = record(at=logical("long", "timestamp-nanos"))
    far = int((datetime(9999, 12, 31, 23, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(seconds=1)) + 7200
    found = row(wire(1, written(schema, {"at": 2**63 - 1})), Schemas({1: schema}), at=(Timestamp, ...))
    assert found[0].year == 2262  # the last that 64 bits hold
    micros = record(at=logical("long", "timestamp-micros"))
    rejection = row(wire(1, written(micros, {"at": far * 1_000_000})), Schemas({1: micros}), at=(Timestamp, ...))
    assert rejection.reason == Reason.OUT_OF_RANGE


@pytest.mark.parametrize("stored", [-1, 86_400_000_000, 2**62])
def test_avro_time_beyond_a_day_is_out_of_range(stored: int) -> None:
    schema = record(clock=logical("long", "time-micros"))
    rejection = row(wire(1, written(schema, {"clock": stored})), Schemas({1: schema}), clock=(TimeOfDay, ...))
    assert rejection.reason == Reason.OUT_OF_RANGE
    assert f"a time of {stored} microseconds after midnight" in rejection.detail
