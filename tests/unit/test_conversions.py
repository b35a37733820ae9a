"""What converts to a field's type without loss is stored as what it is; anything else is a dead letter."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, create_model

from headrace.contract import (
    Contract,
    Date,
    EpochMilliseconds,
    EpochSeconds,
    Float,
    Integer,
    Numeric,
    Rejection,
    Text,
    TimeOfDay,
    Timestamp,
)
from headrace.exceptions import DatasetError
from tests.support.ids import stable_id
from tests.support.one_field import one_field, reason, value


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


LOSSLESS: list[tuple[Any, str, Any]] = [
    (Integer, '"98770148834"', 98770148834),
    (Integer, "98770148834.0", 98770148834),
    (Integer, '"98770148834.00"', 98770148834),
    (Integer, "9.877e3", 9877),
    (Integer, '"-7"', -7),
    (Integer, '"007"', 7),
    (Integer, "-0", 0),
    (Integer, "9007199254740993", 9007199254740993),
    (Integer, '"9223372036854775807"', 2**63 - 1),
    (int, "1e2", 100),
    (Text, "5", "5"),
    (Text, "5.50", "5.50"),
    (Text, "-0", "-0"),
    (Text, "98770148834123456789012345", "98770148834123456789012345"),
    (Numeric, '"71.30000000000001"', Decimal("71.30000000000001")),
    (Numeric, "71.30000000000001", Decimal("71.30000000000001")),
    (Numeric, "1e-30", Decimal("1e-30")),
    (Numeric, "123456789012345678901234567890", Decimal("123456789012345678901234567890")),
    (Decimal, "0.1234567890123456789", Decimal("0.1234567890123456789")),
    (Float, '"82.35"', 82.35),
    (Float, "7", 7.0),
    (float, "1e99", 1e99),
    (bool, '"true"', True),
    (bool, '"False"', False),
    (Timestamp, '"2019-03-01"', datetime(2019, 3, 1, tzinfo=UTC)),
    (datetime, '"2019-03-01T00:00:41Z"', datetime(2019, 3, 1, 0, 0, 41, tzinfo=UTC)),
    (Date, '"2019-03-01"', date(2019, 3, 1)),
    (date, '"2019-03-01T00:00:00Z"', date(2019, 3, 1)),
    (TimeOfDay, '"10:30"', time(10, 30)),
    (time, '"10:30:01.5"', time(10, 30, 1, 500_000)),
    (EpochSeconds, "1705312803", datetime(2024, 1, 15, 10, 0, 3, tzinfo=UTC)),
    (EpochSeconds, '"1705312803.4512"', datetime(2024, 1, 15, 10, 0, 3, 451_200, tzinfo=UTC)),
    (EpochSeconds, "1705312803.4512345", datetime(2024, 1, 15, 10, 0, 3, 451_234, tzinfo=UTC)),
    (EpochSeconds, "1.7053128034512e9", datetime(2024, 1, 15, 10, 0, 3, 451_200, tzinfo=UTC)),
    (EpochMilliseconds, '"1705312803451"', datetime(2024, 1, 15, 10, 0, 3, 451_000, tzinfo=UTC)),
    (EpochMilliseconds, "1705312803451.0", datetime(2024, 1, 15, 10, 0, 3, 451_000, tzinfo=UTC)),
    (UUID, '"A1B2C3D4-0000-4000-8000-000000000001"', UUID("a1b2c3d4-0000-4000-8000-000000000001")),
    (UUID, '"a1b2c3d4000040008000000000000001"', UUID("a1b2c3d4-0000-4000-8000-000000000001")),
    (bytes, '"h\\u00e9"', "hé".encode()),
    (Literal["1", "2"], "1", "1"),
    (Literal[1, 2], '"1"', 1),
    (Literal[1, 2], "2.0", 2),
    (Colour, '"red"', "red"),
    (Level, "2", 2),
    (Level, '"2"', 2),
    (list[int], '[1,"2",3.0]', [1, 2, 3]),
    (list[str], '["a",5]', ["a", "5"]),
    (list[str | None], '["a",null]', ["a", None]),
    (list[Colour], '["red","blue"]', ["red", "blue"]),
    (dict[str, int], '{"a":"1"}', b'{"a":1}'),
    (dict[str, Any], '{"a":1.50,"b":98770148834123456789012345}', b'{"a":1.50,"b":98770148834123456789012345}'),
    (Any, "[1.50,null]", b"[1.50,null]"),
]


@pytest.mark.parametrize(("kind", "text", "expected"), LOSSLESS, ids=lambda item: str(item)[:40])
def test_value_that_converts_without_loss_is_stored_as_what_it_is(kind: Any, text: str, expected: Any) -> None:
    found = value(one_field(kind), text)
    assert found == expected
    assert type(found) is type(expected)
    if isinstance(expected, Decimal):
        assert str(found) == str(expected)


LOSSY: list[tuple[Any, str, str]] = [
    (Integer, "true", "wrong_type"),
    (Integer, "7.5", "wrong_type"),
    (Integer, '"7.5"', "wrong_type"),
    (Integer, '"1_000"', "wrong_type"),
    (Integer, '" 7"', "wrong_type"),
    (Integer, '"+7"', "wrong_type"),
    (Integer, '"seven"', "wrong_type"),
    (Integer, '""', "wrong_type"),
    (Integer, '"\u0667"', "wrong_type"),
    (Integer, '"0x7"', "wrong_type"),
    (Integer, '"1e2000"', "out_of_range"),
    (Integer, "1e300", "out_of_range"),
    (Integer, '"9223372036854775808"', "out_of_range"),
    (Integer, "null", "wrong_type"),
    (Integer, "[7]", "wrong_type"),
    (Text, "true", "wrong_type"),
    (Text, "{}", "wrong_type"),
    (Numeric, '"12,5"', "wrong_type"),
    (Numeric, "true", "wrong_type"),
    (Numeric, "1e30", "out_of_range"),
    (Numeric, "1e-61", "out_of_range"),
    (Numeric, "1e400", "out_of_range"),
    (Numeric, "NaN", "out_of_range"),
    (Float, "1.7e308", "out_of_range"),
    (Float, "-1e101", "out_of_range"),
    (Float, "1e400", "out_of_range"),
    (Float, "0.1e-400", "out_of_range"),
    (Float, "9007199254740993", "out_of_range"),
    (Float, '"NaN"', "wrong_type"),
    (Float, "true", "wrong_type"),
    (bool, "1", "wrong_type"),
    (bool, '"1"', "wrong_type"),
    (bool, '"yes"', "wrong_type"),
    (Timestamp, "1705312803", "wrong_type"),
    (Timestamp, '"1705312803"', "invalid_timestamp"),
    (Timestamp, '"2019-03-01 24:00:00"', "invalid_timestamp"),
    (Timestamp, '"01.03.2019"', "invalid_timestamp"),
    (datetime, '"2019-02-30"', "invalid_timestamp"),
    (Date, '"2019-03-01T00:00:01"', "invalid_timestamp"),
    (TimeOfDay, '"25:00"', "invalid_timestamp"),
    (TimeOfDay, '"10:00+01:00"', "invalid_timestamp"),
    (EpochSeconds, "1705312803451", "out_of_range"),
    (EpochSeconds, "-1", "out_of_range"),
    (EpochSeconds, "true", "wrong_type"),
    (EpochSeconds, '"yesterday"', "wrong_type"),
    (EpochSeconds, "NaN", "wrong_type"),
    (EpochMilliseconds, "1705312803", "out_of_range"),
    (UUID, '"a1b2"', "invalid_value"),
    (UUID, "7", "wrong_type"),
    (bytes, "7", "wrong_type"),
    (Literal[1, 2], "true", "invalid_value"),
    (Colour, '"green"', "invalid_value"),
    (Level, "1.5", "invalid_value"),
    (list[int], '[1,"x"]', "wrong_type"),
    (list[int], '{"a":1}', "wrong_type"),
    (dict[str, Any], "[]", "wrong_type"),
]


@pytest.mark.parametrize(("kind", "text", "expected"), LOSSY, ids=lambda item: str(item)[:40])
def test_value_that_would_lose_something_is_rejected(kind: Any, text: str, expected: str) -> None:
    assert reason(one_field(kind), text) == expected


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Integer, "7", '"7"'),
        (Integer, "-7", "7.0"),
        (Text, '"7"', "7"),
        (Numeric, "7.50", '"7.50"'),
        (Float, "7", '"7"'),
        (bool, "true", '"true"'),
        (EpochSeconds, "1705312803.5", '"1705312803.5"'),
        (EpochMilliseconds, "1705312803451", '"1705312803451"'),
        (Literal[1, 2], "1", '"1"'),
        (list[int], "[1]", '["1"]'),
        (UUID, '"a1b2c3d4-0000-4000-8000-000000000001"', "7"),
        (Integer | None, "null", '""'),
    ],
    ids=stable_id,
)
def test_strict_contract_accepts_jsons_own_types_alone(kind: Any, good: str, bad: str) -> None:
    value(one_field(kind, strict=True), good)
    with pytest.raises(AssertionError):
        value(one_field(kind, strict=True), bad)
    # nothing else changes
    assert value(one_field(kind, strict=True), good) == value(one_field(kind), good)


def test_strict_model_config_means_the_same_as_a_strict_declaration() -> None:
    model = create_model("Strict", __config__=ConfigDict(strict=True), v=(int, ...), at=(UUID, ...))
    good = b'{"v":1,"at":"a1b2c3d4-0000-4000-8000-000000000001"}'
    assert isinstance(Contract(model).decode(None, good), list)
    assert isinstance(Contract(model).decode(None, good.replace(b"1,", b'"1",')), Rejection)


@pytest.mark.parametrize("kind", [Integer, Numeric, Float, bool, Timestamp, Date, UUID, EpochSeconds, datetime])
def test_empty_text_is_null_where_a_field_may_be_null(kind: Any) -> None:
    assert value(one_field(kind | None, None), '""') is None
    assert value(one_field(kind | None), "null") is None
    assert reason(one_field(kind), '""') in ("wrong_type", "invalid_timestamp", "invalid_value")


def test_empty_text_stays_text_where_a_field_is_text() -> None:
    assert value(one_field(Text | None, None), '""') == ""


class Inner(BaseModel):
    n: int
    name: str = Field("", alias="Name")


class Outer(BaseModel):
    inner: Inner
    many: list[Inner] = []


def test_nested_model_converts_its_fields_and_keeps_the_others_under_their_own_names() -> None:
    decoded = Contract(Outer).decode(None, b'{"inner":{"n":"5","Name":7,"other":1.50},"many":[{"n":6.0}]}')
    assert decoded == [b'{"n":5,"Name":"7","other":1.50}', b'[{"n":6}]', None]


def test_nested_model_says_where_it_is_broken() -> None:
    rejection = Contract(Outer).decode(None, b'{"inner":{"n":1},"many":[{"n":1},{"n":"x"}]}')
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.json_path) == ("wrong_type", "$.many[1].n")


class Aliased(BaseModel):
    order_id: Integer = Field(validation_alias="Order-Id")
    total: Numeric = Field(validation_alias=AliasChoices("total", "Total"))
    note: Text | None = Field(None, alias="the note")


def test_alias_is_what_records_call_the_field() -> None:
    made = Contract(Aliased, key="order_id")
    assert made.decode(b"7", b'{"Order-Id":"7","Total":1.50,"the note":"x"}') == [7, Decimal("1.50"), "x", None]
    # a field under the name of the column is another field
    decoded = made.decode(b"7", b'{"Order-Id":7,"total":1,"order_id":8}')
    assert decoded == [7, Decimal(1), None, b'{"order_id":8}']
    assert [column.source_names for column in made.columns] == [("Order-Id",), ("total", "Total"), ("the note",)]


def test_declaration_whose_model_has_its_own_init_is_refused() -> None:
    class Own(BaseModel):
        v: int

        def __init__(self, **data: Any) -> None:
            super().__init__(**data)

    with pytest.raises(DatasetError, match="has an __init__ of its own"):
        Contract(Own)


@pytest.mark.parametrize("depth", [200, 201, 1_000, 100_000])
@pytest.mark.parametrize("text", ["[", "[]", '{"a":', '[{"a":'], ids=str)
def test_depth_is_counted_and_not_left_to_the_interpreter(depth: int, text: str) -> None:
    count = -(-depth // 2) if text == '[{"a":' else depth
    closing = {"[": "", "[]": "]" * count, '{"a":': "1" + "}" * count, '[{"a":': "1" + "}]" * count}[text]
    payload = '{"v":' + text.removesuffix("]") * count + closing + ("" if text == "[" else "}")
    decoded = one_field(Any).decode(None, payload.encode())
    if depth > 200:
        assert isinstance(decoded, Rejection)
        assert decoded.reason == "too_deep"
    else:
        assert isinstance(decoded, Rejection) == (text == "[")


def test_brackets_inside_text_are_no_depth() -> None:
    text = json.dumps({"v": "[" * 1_000 + '"\\' + "{" * 1_000})
    assert one_field(str).decode(None, text.encode()) == [json.loads(text)["v"], None]
