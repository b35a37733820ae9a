"""Which declarations have a line of COPY text, and what it holds for a column of each kind."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    create_model,
    field_validator,
    model_validator,
)

from headrace.contract import Contract, Float, Identifier, Integer, Money, Text, Timestamp
from headrace.contracts.annotations import SqlType
from headrace.contracts.copy_text import compile_lines
from headrace.dataset import CONTRACT_CONFIG
from headrace.formats import KeyedJson
from tests.support.contracts import contract
from tests.support.ids import stable_id

BATCH_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")


class Odd(BaseModel):
    model_config = CONTRACT_CONFIG

    n: Integer

    @model_validator(mode="after")
    def is_odd(self) -> "Odd":
        """A rule about the whole record."""
        assert self.n % 2
        return self


class Shouted(BaseModel):
    model_config = ConfigDict(**CONTRACT_CONFIG, str_to_upper=True)

    name: Text


class Early(BaseModel):
    model_config = CONTRACT_CONFIG

    n: Integer

    @field_validator("n", mode="before")
    @classmethod
    def strip(cls, value: object) -> object:
        """Changes what is validated."""
        return value


class Started(BaseModel):
    model_config = CONTRACT_CONFIG

    n: Integer

    def model_post_init(self, _context: object) -> None:
        """Does more than validate."""
        self.n += 1


@pytest.mark.parametrize("model", [Odd, Shouted, Early, Started])
def test_model_that_does_more_than_validate_its_fields_has_no_fast_way(model: type[BaseModel]) -> None:
    assert compile_lines(Contract(model)) is None


@pytest.mark.parametrize(
    "field",
    [
        (Annotated[str, Field(pattern="^a")], ...),
        (Annotated[str, StringConstraints(to_lower=True)], ...),
        (Annotated[int, Field(multiple_of=2)], ...),
        (Annotated[float, SqlType("real")], ...),
        (Annotated[int, SqlType("numeric")], ...),
        (Annotated[Decimal, Field(max_digits=5, decimal_places=2), SqlType("numeric")], ...),
        (list[int], ...),
        (bytes, ...),
        (Timestamp, datetime(2019, 3, 1, tzinfo=UTC)),
        (Text, Field(default_factory=str)),
        (Text, Field(validation_alias=AliasChoices("other", "another"))),
        (Text, "a\tb"),
        (Integer, "text"),
        (Annotated[Money, AfterValidator(lambda value: value)], ...),
        (dict[str, int], ...),
    ],
    ids=stable_id,
)
def test_field_that_the_fast_way_does_not_know_has_none(field: Any) -> None:
    assert compile_lines(contract(known=(Text, ...))) is not None
    assert compile_lines(contract(known=(Text, ...), unknown=field)) is None


def _first_cell(made: Contract, value: bytes) -> str | None:
    bind = compile_lines(made)
    assert bind is not None
    line = bind(1, 0, BATCH_ID)(0, "", None, value, "")
    return None if line is None else line.split("\t")[0]


@pytest.mark.parametrize(("value", "cell"), [(b'{"n":3}', "3"), (b'{"n":4}', None), (b'{"n":5}', None)])
def test_validator_of_a_field_is_asked(value: bytes, cell: str | None) -> None:
    def small(number: int) -> int:
        if number > 4:
            raise ValueError("too large")
        return 0 if number == 4 else number  # another value is left to the slow way

    assert _first_cell(contract(n=(Annotated[Integer, AfterValidator(small)], ...)), value) == cell


@pytest.mark.parametrize("field", [(Text, "a\\b"), (Text | None, "a\\b")])
def test_default_is_written_as_copy_wants_it(field: Any) -> None:
    assert _first_cell(contract(name=field), b"{}") == r"a\\b"


@pytest.mark.parametrize(
    ("field", "cell"), [((bool, True), "t"), ((Integer, 7), "7"), ((Float, 0.1), "0.1"), ((Text | None, None), r"\N")]
)
def test_default_of_every_kind_is_written(field: Any, cell: str) -> None:
    assert _first_cell(contract(name=field), b"{}") == cell


@pytest.mark.parametrize(
    ("text", "is_fast"),
    [
        ('{"a":{"b":[1,2.50,"x",null,true]}}', True),
        ('{"a":1,"a":1}', False),
        ('{"a":{"b":1,"b":1}}', False),
        ('{"a" :1,"a":1}', False),
        ('{"a":1e2}', True),
        ('{"a":1e-1001}', False),
        ('{"a":{"b":"\\u0022\\u0022","b":1}}', False),
        ('{"a":NaN}', False),
        ('{"a":' + "9" * 4_000 + "}", False),
        ('{"a":0.' + "0" * 2_200 + "e" + "0" * 2_200 + "1}", False),
        ('{"a":' + "[" * 201 + "]" * 201 + "}", False),
        ("[1]", False),
        ("null", False),
    ],
)
def test_json_column_is_copied_where_it_is_plain(text: str, is_fast: bool) -> None:
    cell = _first_cell(contract(p=(dict[str, Any], ...)), f'{{"p":{text}}}'.encode())
    assert cell == (text if is_fast else None)


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("1", "1.0"),
        ("-0.0", "-0.0"),
        ("0.1000000000000000055511151231257827", None),
        ("1.50e+2", "150.0"),
        ("4.9e-99", "4.9e-99"),
        ("1e-1001", None),  # an exponent beyond what the contract takes, though a double would be 0
        ("1e308", None),
        ("01", None),
        ('"1"', "1.0"),
        ('"1" ', "1.0"),
        ('""', None),
        ("null", None),
    ],
)
def test_double_is_copied_where_it_is_plain(text: str, cell: str | None) -> None:
    assert _first_cell(contract(n=(Float, ...)), f'{{"n":{text}}}'.encode()) == cell


def test_limits_of_a_whole_number_are_the_columns_too() -> None:
    made = contract(n=(Annotated[int, Field(gt=-5, lt=2**40), SqlType("smallint")], ...))
    found = {n: _first_cell(made, b'{"n":%d}' % n) for n in (-5, -4, 2**15 - 1, 2**15)}
    assert found == {-5: None, -4: "-4", 2**15 - 1: "32767", 2**15: None}


@pytest.mark.parametrize(
    ("value", "is_fast"),
    [
        (b'{"name":"x"}', True),
        (b'7|{"name":"x"}', True),
        (b'|{"name":"x"}', True),
        (b' {"name":"|{"name":"x"}', False),  # no JSON, though what follows the separator is
        (b'\n7|{"name":"x"}', False),
        (b"7|", False),
        (b"7", False),
        (b"", False),
    ],
)
def test_key_in_front_of_a_document_is_taken_off(value: bytes, is_fast: bool) -> None:
    contract = Contract(create_model("Made", __config__=CONTRACT_CONFIG, name=(Text, ...)), format=KeyedJson())
    assert _first_cell(contract, value) == ("x" if is_fast else None)
    assert isinstance(contract.decode(None, value), list) or not is_fast


def test_value_beyond_the_limit_has_no_line() -> None:
    contract = Contract(create_model("Made", __config__=CONTRACT_CONFIG, name=(Identifier, ...)), max_value_bytes=12)
    assert _first_cell(contract, b'{"name":"x"}') == "x"
    assert _first_cell(contract, b'{"name":"x"} ') is None
