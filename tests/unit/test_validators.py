"""Validators of a declaration: what they return is stored, what they raise is a dead letter."""

from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, BaseModel, BeforeValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from headrace.contract import Contract, Float, Identifier, Integer, Numeric, Rejection, Text, Timestamp
from tests.support.one_field import one_field, reason, value


class Redacted(BaseModel):
    id: Identifier
    person: dict[str, Any]

    @field_validator("person")
    @classmethod
    def _without_an_address(cls, person: dict[str, Any]) -> dict[str, Any]:
        return {name: item for name, item in person.items() if name != "e_mail"}


def test_value_that_a_validator_returns_is_the_value_stored() -> None:
    decoded = Contract(Redacted).decode(None, b'{"id":"1","person":{"e_mail":"a@b.example","age":41.50}}')
    assert decoded == ["1", b'{"age":41.50}', None]


class Enveloped(BaseModel):
    id: int

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, document: Any) -> Any:
        return document["payload"]


def test_model_validator_may_unwrap_an_envelope() -> None:
    decoded = Contract(Enveloped).decode(None, b'{"schema":{},"payload":{"id":"5","more":1.50}}')
    assert decoded == [5, b'{"more":1.50}']


class Remembering(BaseModel):
    id: int
    name: str

    @cached_property
    def shout(self) -> str:
        """What a validator computes once."""
        return self.name.upper()

    @model_validator(mode="after")
    def _shouted(self) -> "Remembering":
        assert self.shout
        return self


def test_cached_property_is_no_column() -> None:
    assert Contract(Remembering).decode(None, b'{"id":1,"name":"a"}') == [1, "a", None]


@pytest.mark.parametrize(
    "error", [IndexError("list index out of range"), KeyError("x"), ZeroDivisionError(), SystemExit(3)]
)
@pytest.mark.parametrize("where", [AfterValidator, BeforeValidator])
def test_any_exception_of_a_validator_is_a_dead_letter_with_its_text(error: BaseException, where: Any) -> None:
    def fail(_value: Any) -> Any:
        raise error

    decoded = one_field(Annotated[int, where(fail)]).decode(None, b'{"v":1}')
    assert isinstance(decoded, Rejection)
    assert decoded.reason == "business_rule"
    assert decoded.detail.startswith(type(error).__name__)
    assert str(error) in decoded.detail


def test_exception_whose_own_text_fails_is_a_dead_letter_too() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail(_value: int) -> int:
        raise Mute

    decoded = one_field(Annotated[int, AfterValidator(fail)]).decode(None, b'{"v":1}')
    assert isinstance(decoded, Rejection)
    assert (decoded.reason, decoded.detail) == ("business_rule", "Mute")


def test_validators_own_error_type_is_the_reason() -> None:
    def known(zone: str) -> str:
        raise PydanticCustomError("unknown_zone", "expected a zone of ours")

    assert reason(one_field(Annotated[str, AfterValidator(known)]), '"z"') == "unknown_zone"


@pytest.mark.parametrize(
    ("kind", "returned", "expected"),
    [
        (Integer, 2**63, "out_of_range"),
        (Integer, "seven", "business_rule"),
        (Integer, None, "business_rule"),
        (Integer, True, "business_rule"),
        (Text, "a\0b", "nul_character"),
        (Text, 7, "business_rule"),
        (Numeric, Decimal("Infinity"), "out_of_range"),
        (Float, float("nan"), "out_of_range"),
        (dict[str, Any], {"a": object()}, "business_rule"),
        (dict[str, Any], {"a": float("inf")}, None),
        (dict[str, Any], {"a": "\0"}, "nul_character"),
        (Timestamp, datetime(9999, 12, 31, 23, tzinfo=UTC), "out_of_range"),
        (list[int], [2**63], "out_of_range"),
    ],
)
def test_value_of_a_validator_that_no_column_holds_is_a_dead_letter(
    kind: Any, returned: Any, expected: str | None
) -> None:
    good = {Text: '"x"', Timestamp: '"2019-03-01"', dict[str, Any]: "{}", list[int]: "[1]"}
    made = one_field(Annotated[kind, AfterValidator(lambda _value: returned)])
    text = good.get(kind, "1")
    if expected is None:  # orjson writes null for it
        assert value(made, text) == b'{"a":null}'
    else:
        assert reason(made, text) == expected


def test_validator_that_returns_another_model_is_a_dead_letter() -> None:
    class Lost(BaseModel):
        v: int

        @model_validator(mode="wrap")
        @classmethod
        def _lost(cls, _document: Any, _handler: Any) -> Any:
            return None

    rejection = Contract(Lost).decode(None, b'{"v":1}')
    assert isinstance(rejection, Rejection)
    assert "expected Lost" in rejection.detail


def test_number_that_a_validator_computes_with_is_a_float_to_it() -> None:
    def doubled(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "twice": document["a"] * 2}

    made = one_field(Annotated[dict[str, Any], AfterValidator(doubled)])
    assert value(made, '{"a":1.50}') == b'{"a":1.50,"twice":3.0}'
