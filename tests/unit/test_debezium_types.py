"""The values of Debezium's semantic types: by the schema part, by an Avro schema, and by a declaration alone."""

from base64 import b64encode
from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import BytesIO
from typing import Annotated, Any
from uuid import UUID

import fastavro
import pytest
from pydantic import BaseModel

from headrace.contract import (
    Contract,
    Date,
    EpochDate,
    Integer,
    JsonText,
    MicroTime,
    MicroTimestamp,
    MilliTime,
    MilliTimestamp,
    NanoTime,
    NanoTimestamp,
    Numeric,
    Rejection,
    Text,
    TimeOfDay,
    Timestamp,
    scaled,
)
from headrace.formats import Avro, Debezium
from tests.support.change_events import envelope, text, with_schema
from tests.support.schemas import Schemas

TIME, DATA, CONNECT = "io.debezium.time", "io.debezium.data", "org.apache.kafka.connect.data"
MOMENT = datetime(2018, 6, 20, 13, 37, 3, 123456)
MICROS = 1_529_501_823_123_456
MILLIS = MOMENT.replace(microsecond=123000)
CLOCK = time(17, 51, 4, 777000)
UNSCALED = (-123_456).to_bytes(3, "big", signed=True)


def base64(data: bytes) -> str:
    return b64encode(data).decode()


# type, name, parameters, the value in JSON, the value in Avro, the field's type, the column
Case = tuple[str, str | None, dict[str, str], Any, Any, Any, Any]
CASES: list[Case] = [
    ("int32", f"{TIME}.Date", {}, 16_576, 16_576, Date, date(2015, 5, 21)),
    ("int32", f"{CONNECT}.Date", {}, -1, -1, EpochDate, date(1969, 12, 31)),
    ("int32", f"{TIME}.Time", {}, 64_264_777, 64_264_777, MilliTime, CLOCK),
    ("int64", f"{TIME}.MicroTime", {}, 64_264_777_000, 64_264_777_000, TimeOfDay, CLOCK),
    ("int64", f"{TIME}.NanoTime", {}, 64_264_777_000_999, 64_264_777_000_999, NanoTime, CLOCK),
    ("int64", f"{TIME}.Timestamp", {}, MICROS // 1_000, MICROS // 1_000, MilliTimestamp, MILLIS),
    ("int64", f"{TIME}.MicroTimestamp", {}, MICROS, MICROS, Timestamp, MOMENT),
    ("int64", f"{TIME}.NanoTimestamp", {}, MICROS * 1_000 + 7, MICROS * 1_000 + 7, NanoTimestamp, MOMENT),
    ("int64", f"{TIME}.NanoTimestamp", {}, MICROS * 1_000 + 7, MICROS * 1_000 + 7, Text,
     "2018-06-20T13:37:03.123456007"),
    ("int64", f"{TIME}.MicroTimestamp", {}, -11_676_096_000_000_001, -11_676_096_000_000_001, MicroTimestamp,
     datetime(1599, 12, 31, 23, 59, 59, 999999)),
    ("string", f"{TIME}.ZonedTimestamp", {}, "2018-06-20T13:37:03.123456Z", None, Timestamp, MOMENT),
    ("int64", f"{TIME}.MicroDuration", {}, 2_629_800_000_000, 2_629_800_000_000, Numeric, Decimal("2629800")),
    ("bytes", f"{CONNECT}.Decimal", {"scale": "3"}, base64(UNSCALED), None, Numeric, Decimal("-123.456")),
    ("bytes", f"{CONNECT}.Decimal", {"scale": "0"}, base64(b"\x7f" * 12), None, Numeric,
     Decimal(int.from_bytes(b"\x7f" * 12, "big"))),
    ("bytes", f"{CONNECT}.Decimal", {"scale": "2"}, 12.34, None, Numeric, Decimal("12.34")),
    ("bytes", f"{CONNECT}.Decimal", {"scale": "0"}, 5, None, Numeric, Decimal(5)),
    ("bytes", f"{CONNECT}.Decimal", {"scale": "2"}, 0.0, None, Numeric, Decimal(0)),
    ("bytes", f"{DATA}.Bits", {"length": "12"}, base64(b"\x05\x08"), b"\x05\x08", Text, "100000000101"),
    ("bytes", None, {}, base64(b"\xde\xad"), b"\xde\xad", bytes, b"\xde\xad"),
    ("string", f"{DATA}.Uuid", {}, "06335e84-2872-4914-8c5d-3ed07d2a2f16", None, UUID,
     UUID("06335e84-2872-4914-8c5d-3ed07d2a2f16")),
    ("string", f"{DATA}.Enum", {"allowed": "a,b"}, "a", None, Text, "a"),
    ("string", f"{DATA}.Json", {}, '{"a": 1.10}', None, JsonText, b'{"a":1.10}'),
]  # fmt: skip
AVRO_TYPES = {"int32": "int", "int64": "long", "bytes": "bytes"}


def row_of(format: Debezium, field_type: Any, value: bytes) -> Any:
    class Row(BaseModel):
        id: Integer = 0
        value: field_type

    found = Contract(Row, format=format).decode(None, value)
    assert isinstance(found, list), found
    return found[1].replace(tzinfo=None) if isinstance(found[1], datetime) else found[1]


@pytest.mark.parametrize(("kind", "name", "parameters", "in_json", "_in_avro", "field_type", "expected"), CASES)
def test_schema_part_says_what_a_value_is(
    kind: str, name: str | None, parameters: dict[str, str], in_json: Any, _in_avro: Any, field_type: Any, expected: Any
) -> None:
    field = {"type": kind, "optional": True, "name": name, "version": 1, "parameters": parameters, "field": "value"}
    event = with_schema(envelope("c", {"value": in_json}), [field])
    assert row_of(Debezium(), field_type, text(event)) == expected
    several = with_schema(envelope("c", {"value": [in_json]}), [{"type": "array", "items": field, "field": "value"}])
    if field_type in (Timestamp, Date):
        found = row_of(Debezium(), list[field_type], text(several))
        assert found[0] in (expected, expected.replace(tzinfo=UTC) if isinstance(expected, datetime) else None)


@pytest.mark.parametrize(
    ("kind", "name", "parameters", "_in_json", "in_avro", "field_type", "expected"),
    [case for case in CASES if case[4] is not None],
)
def test_name_in_an_avro_schema_says_it_too(
    kind: str, name: str | None, parameters: dict[str, str], _in_json: Any, in_avro: Any, field_type: Any, expected: Any
) -> None:
    inner = {"type": AVRO_TYPES[kind], "connect.version": 1, "connect.parameters": parameters} | (
        {"connect.name": name} if name else {}
    )
    schema = {"type": "record", "name": "Value", "fields": [{"name": "value", "type": ["null", inner]}]}
    for format in (Debezium(Avro(schemas=Schemas({1: schema}))), Debezium(Avro(schemas=Schemas({1: schema}))).second()):
        out = BytesIO()
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"value": in_avro})
        assert row_of(format, field_type, b"\0\0\0\0\1" + out.getvalue()) == expected


def test_decimal_as_a_number_keeps_digits_that_no_double_holds() -> None:
    field = {"type": "bytes", "name": f"{CONNECT}.Decimal", "parameters": {"scale": "2"}, "field": "value"}
    event = text(with_schema(envelope("c", {"value": 5}), [field])).replace(
        b'"value":5', b'"value":123456789012345678.90'
    )
    assert row_of(Debezium(), Numeric, event) == Decimal("123456789012345678.90")


@pytest.mark.parametrize("number", [b"1e999999999", b"-1E99999999999999999999"])
def test_number_that_no_double_holds_is_a_dead_letter_before_its_digits_are_written(number: bytes) -> None:
    class Row(BaseModel):
        value: Text

    event = text(with_schema(envelope("c", {"value": 5}))).replace(b'"value":5', b'"value":' + number)
    found = Contract(Row, format=Debezium()).decode(None, event)
    assert isinstance(found, Rejection)
    assert (found.reason, "is out of range" in found.detail) == ("invalid_json", True)


def test_decimal_that_brings_its_scale_is_exact_in_both() -> None:
    name = f"{DATA}.VariableScaleDecimal"
    members = [{"type": "int32", "field": "scale"}, {"type": "bytes", "field": "value"}]
    field = {"type": "struct", "fields": members, "optional": True, "name": name, "field": "value"}
    event = with_schema(envelope("c", {"value": {"scale": 3, "value": base64(UNSCALED)}}), [field])
    assert row_of(Debezium(), Numeric, text(event)) == Decimal("-123.456")
    inner = {"type": "record", "name": "VariableScaleDecimal", "namespace": DATA, "connect.name": name, "fields": [
        {"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"},
    ]}  # fmt: skip
    schema = {"type": "record", "name": "Value", "fields": [{"name": "value", "type": inner}]}
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"value": {"scale": 3, "value": UNSCALED}})
    format = Debezium(Avro(schemas=Schemas({1: schema})))
    assert row_of(format, Numeric, b"\0\0\0\0\1" + out.getvalue()) == Decimal("-123.456")


@pytest.mark.parametrize(
    ("field_type", "value", "expected"),
    [
        (EpochDate, 16_576, date(2015, 5, 21)),
        (MilliTimestamp, MICROS // 1_000, MILLIS),
        (MicroTimestamp, MICROS, MOMENT),
        (NanoTimestamp, MICROS * 1_000 + 999, MOMENT),
        (MilliTime, 64_264_777, CLOCK),
        (MicroTime, 64_264_777_000, CLOCK),
        (NanoTime, 64_264_777_000_001, CLOCK),
        (JsonText, "[1.10]", b"[1.10]"),
        (JsonText, {"a": 1}, b'{"a":1}'),
        (Annotated[Numeric, scaled(3)], base64(UNSCALED), Decimal("-123.456")),
        (Annotated[Numeric, scaled(3)], 5, Decimal(5)),
    ],
)
def test_declaration_says_what_a_value_is_where_no_schema_does(field_type: Any, value: Any, expected: Any) -> None:
    assert row_of(Debezium(), field_type, text(envelope("c", {"value": value}))) == expected


@pytest.mark.parametrize(
    ("field_type", "value", "reason"),
    [
        (EpochDate, 2**31 - 1, "out_of_range"),
        (EpochDate, "2015-05-21", "wrong_type"),
        (MicroTimestamp, 9_223_372_036_825_200_000, "out_of_range"),  # infinity
        (MicroTimestamp, True, "wrong_type"),
        (MicroTime, 86_400_000_000, "out_of_range"),  # 24:00
        (JsonText, "{", "invalid_value"),
        (Annotated[Numeric, scaled(3)], "?", "invalid_value"),
    ],
)
def test_value_that_is_none_of_its_type_is_a_dead_letter(field_type: Any, value: Any, reason: str) -> None:
    class Row(BaseModel):
        value: field_type

    found = Contract(Row, format=Debezium()).decode(None, text(envelope("c", {"value": value})))
    assert isinstance(found, Rejection)
    assert found.reason == reason


def test_time_beyond_python_is_out_of_range_by_schema() -> None:
    class Row(BaseModel):
        value: Timestamp

    field = {"type": "int64", "name": f"{TIME}.MicroTimestamp", "field": "value"}
    event = with_schema(envelope("c", {"value": 9_223_372_036_825_200_000}), [field])
    found = Contract(Row, format=Debezium()).decode(None, text(event))
    assert isinstance(found, Rejection)
    assert found.reason == "out_of_range"
