"""What a payload costs is linear in its bytes, whatever it holds and whatever a contract asks of it."""

from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from functools import cache, partial
from operator import mul
from typing import Annotated, Any, Literal, get_origin
from uuid import UUID

import pytest
from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, Field, create_model
from pydantic import field_validator as rule
from pydantic import model_validator as rule_of_all

from headrace import contract
from headrace.contract import Contract, Identifier, Integer
from headrace.contracts.copy_text import compile_lines
from headrace.formats import KeyedJson
from headrace.publish.publishers import split_line
from tests.cost.costs import BYTE_COST_MAX, SIZES, assert_linear
from tests.cost.payloads import DOCUMENTS, LISTS, TEXTS, Make, runs


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int = 0
    name: str = ""


def same(value: Any) -> Any:
    return value


SCALARS: dict[str, Any] = {
    **{name: getattr(contract, name) for name in contract.__all__ if get_origin(getattr(contract, name)) is Annotated},
    "text": str, "pattern": Annotated[str, Field(pattern="^(a|b)*c$")], "boolean": bool, "uuid": UUID,
    "bytes": bytes, "Literal": Literal["red", "blue"], "Enum": Colour, "numbers": Literal[1, 2],
    "nullable": Integer | None, "after": Annotated[str, AfterValidator(same)],
    "before": Annotated[str, BeforeValidator(same)],
}  # fmt: skip
ARRAYS: dict[str, Any] = {
    "texts": list[str], "decimals": list[Decimal], "choices": list[Literal["a", "b"]], "models": list[Point],
    "nullable": list[int | None],
}  # fmt: skip
OBJECTS: dict[str, Any] = {
    "model": Point, "models": dict[str, Point], "any": Any, "list": list[Any],
}  # fmt: skip


def contract_of(kind: Any, **options: Any) -> Contract:
    """A contract of one field, v, with a limit that no test reaches."""
    return Contract(create_model("Fields", v=(kind, ...)), max_value_bytes=2 * SIZES[-1], **options)


def check(contract: Contract, make: Callable[[int], str], byte_cost_max: float = BYTE_COST_MAX) -> None:
    """Both ways of a record, as a whole value."""

    @cache
    def payload(size: int) -> bytes:
        return make(size).encode()

    assert_linear(payload, partial(contract.decode, b"1"), byte_cost_max=byte_cost_max)
    if (bind := compile_lines(contract)) is not None:
        make_line = bind(1, 0, UUID(int=0))
        assert_linear(payload, lambda value: make_line(0, "", b"1", value, ""), byte_cost_max=byte_cost_max)


def field_of(make: Make, size: int) -> str:
    return f'{{"v":{make(size)}}}'


@pytest.mark.security("P2")
@pytest.mark.parametrize("name", [*TEXTS, *LISTS, *DOCUMENTS])
def test_cost_of_an_undeclared_field_is_linear(name: str) -> None:
    make = (TEXTS | LISTS | DOCUMENTS)[name]
    check(contract_of(int), lambda size: f'{{"v":1,"w":{make(size)}}}')


@pytest.mark.parametrize("kind", SCALARS)
def test_cost_of_a_field_is_linear(kind: str) -> None:
    contract, strict = contract_of(SCALARS[kind]), contract_of(SCALARS[kind], strict=True)
    for name in (
        *("plain", "escapes", "halves of pairs", "quotes", "digits", "exponent", "fraction of a time", "almost a time"),
        "zone of a time",
    ):
        check(strict if name == "digits" else contract, partial(field_of, TEXTS[name]))


@pytest.mark.parametrize("kind", ARRAYS)
def test_cost_of_an_array_is_linear(kind: str) -> None:
    byte_cost_max = 200 if kind == "decimals" else BYTE_COST_MAX  # a decimal of two bytes is made in 60 of those units
    for name in ("ones", "texts", "objects"):
        check(contract_of(ARRAYS[kind], strict=name == "texts"), partial(field_of, LISTS[name]), byte_cost_max)


@pytest.mark.parametrize("kind", OBJECTS)
def test_cost_of_a_nested_document_is_linear(kind: str) -> None:
    for name in ("names", "objects in objects", "long texts like numbers"):
        check(contract_of(OBJECTS[kind]), partial(field_of, DOCUMENTS[name]))


class Ruled(BaseModel):
    """Aliases, and rules of a contract's own over one field and over several."""

    v: str = Field(validation_alias=AliasChoices("V", "value"), default="")
    w: int = Field(alias="W", default=0)

    @rule("w")
    @classmethod
    def check_w(cls, value: int) -> int:
        if value:
            raise ValueError("expected 0")
        return value

    @rule_of_all(mode="before")
    @classmethod
    def unwrap(cls, document: Any) -> Any:
        return document.get("envelope", document)

    @rule_of_all(mode="after")
    def check_both(self) -> "Ruled":
        if len(self.v) > 2 * self.w:
            raise IndexError(self.v)
        return self


@pytest.mark.parametrize("document", ['{{"V":{}}}', '{{"value":{}}}', '{{"W":{}}}', '{{"envelope":{{"V":{}}}}}'])
def test_cost_of_aliases_and_rules_is_linear(document: str) -> None:
    contract = Contract(Ruled, max_value_bytes=2 * SIZES[-1])
    for name in ("plain", "escapes", "digits"):
        check(contract, lambda size, name=name: document.format(TEXTS[name](size)))  # type: ignore[misc]
    check(contract, lambda size: document.format(DOCUMENTS["names"](size)))


def test_cost_of_what_is_no_document_is_linear() -> None:
    contract = contract_of(int)
    for make in (
        *(DOCUMENTS[name] for name in ("nested", "never closed", "digits")),
        *map(runs, ' |\\"\0\ufeff{}[],:1-e'),
        runs(" ", behind="{"),
    ):
        check(contract, make)
    assert_linear(lambda size: b"a" * size + b"\xff", partial(contract.decode, None))
    assert_linear(lambda size: b"a" * 3 * SIZES[-1], partial(contract.decode, None))  # too large


@pytest.mark.parametrize("kind", [Identifier, Integer, UUID])
def test_cost_of_a_key_is_linear(kind: Any) -> None:
    contract = contract_of(kind, key="v")
    value = f'{{"v":{"1" if kind is Integer else f"{chr(34)}{UUID(int=1)}{chr(34)}"}}}'.encode()
    for unit in ("1", "0", "-", "\\", " ", "\xff"):
        key = partial(mul, unit.encode("latin-1"))
        assert_linear(key, lambda key: contract.decode(key, None))
        assert_linear(key, lambda key: contract.decode(key, value))


def test_cost_of_keyed_json_is_linear() -> None:
    contract = contract_of(Identifier, key="v", format=KeyedJson())
    makes = [
        runs("|"), runs("|", behind='{"v":"1"}'), runs("1", behind='|{"v":"1"}'), runs("1|"), runs(" ", behind="|{}"),
        runs(" ", behind='{"v":"1"}'), runs("{|", behind="{"), runs("\\|"), runs('"', behind="|"), runs("1"),
        runs("|", '{"v":"1","w":"', '"}'), runs(" ", '1|{"v":"1"', "}"), runs(r"\u007c", '1|{"v":"', '"}'),
    ]  # fmt: skip
    for make in makes:
        check(contract, make)
        assert_linear(lambda size, make=make: make(size).encode(), lambda line: split_line(line, "v"))  # type: ignore[misc]
