"""Nested models whose fields are columns: values, absent objects, undeclared fields, refused declarations."""

import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, model_validator

from headrace.contract import Flatten, Header, Identifier, Integer, Masked, Numeric, Path, Rejection, Text
from headrace.dataset import Dataset, KafkaTopic
from headrace.exceptions import DatasetError
from headrace.monitor.rules import fields


class Money(BaseModel):
    amount: Numeric
    currency_code: Text


class MoneySet(BaseModel):
    shop_money: Annotated[Money, Flatten(prefix="shop_")]
    presentment_money: dict[str, Any] | None = None


class Address(BaseModel):
    city: Text
    zip: Identifier | None = Field(None, validation_alias="postal code")

    @model_validator(mode="after")
    def _is_known(self) -> "Address":
        if self.city == "Nowhere":
            raise ValueError("no such city")
        return self


class Order(BaseModel):
    """As the webhook orders/create of Shopify nests them."""

    id: Integer
    total: Annotated[MoneySet, Flatten()]
    billing: Annotated[Address, Flatten()] | None = Field(None, validation_alias="billing_address")
    shipping: Annotated[Address | None, Path("$.fulfillment.address"), Flatten(prefix="to_")] = None


def dataset(contract: Any = Order, **options: Any) -> Dataset:
    return Dataset(name="orders", contract=contract, source=KafkaTopic(topic="orders"), **options)


def decoded(document: Any, contract: type[BaseModel] = Order) -> Any:
    return dataset(contract).compiled.decode(None, json.dumps(document).encode())


TOTAL = {"shop_money": {"amount": "10.50", "currency_code": "EUR"}}


def test_fields_of_nested_models_are_columns() -> None:
    columns = dataset().compiled.columns

    assert [(column.name, column.sql_type, column.required) for column in columns] == [
        ("id", "bigint", True),
        ("shop_amount", "numeric", True),
        ("shop_currency_code", "text", True),
        ("total_presentment_money", "jsonb", False),
        ("billing_city", "text", False),
        ("billing_zip", "text", False),
        ("to_city", "text", False),
        ("to_zip", "text", False),
    ]


def test_values_are_stored_and_what_the_models_do_not_name_is_kept() -> None:
    row = decoded(
        {
            "id": 1,
            "total": {"shop_money": {"amount": 0.1, "currency_code": "EUR", "exact": 1.10}, "other": None},
            "billing_address": {"city": "Ulm", "postal code": "89073", "phone": "1"},
            "fulfillment": {"address": {"city": "Bonn", "floor": 2}, "by": "x"},
        }
    )

    assert list(map(str, row[:3])) == ["1", "0.1", "EUR"]
    assert row[3:8] == [None, "Ulm", "89073", "Bonn", None]
    assert json.loads(row[8]) == {
        "total": {"other": None, "shop_money": {"exact": 1.1}},
        "billing_address": {"phone": "1"},
        "fulfillment": {"by": "x", "address": {"floor": 2}},
    }
    assert b'"exact":1.1' in row[8]


def test_an_absent_object_is_null_in_all_of_its_columns() -> None:
    assert decoded({"id": 1, "total": TOTAL, "billing_address": None})[4:] == [None] * 5


@pytest.mark.parametrize(
    ("document", "reason", "path"),
    [
        ({"id": 1}, "missing_field", "$.total"),
        (
            {"id": 1, "total": {"shop_money": {"amount": "x", "currency_code": ""}}},
            "wrong_type",
            "$.total.shop_money.amount",
        ),
        ({"id": 1, "total": TOTAL, "billing_address": {}}, "missing_field", "$.billing_address.city"),
        ({"id": 1, "total": TOTAL, "billing_address": "Ulm"}, "wrong_type", "$.billing_address"),
        ({"id": 1, "total": TOTAL, "billing_address": {"city": "Nowhere"}}, "business_rule", "$.billing_address"),
        ({"id": 1, "total": TOTAL, "fulfillment": {"address": {}}}, "missing_field", "$.fulfillment.address.city"),
    ],
)
def test_a_breach_inside_names_its_place(document: Any, reason: str, path: str) -> None:
    found = decoded(document)

    assert isinstance(found, Rejection)
    assert (found.reason, found.json_path) == (reason, path)


def test_what_a_validator_left_in_a_nested_model_is_checked() -> None:
    class Inner(BaseModel):
        n: Integer

        @model_validator(mode="after")
        def _too_much(self) -> "Inner":
            self.n = 2**70
            return self

    class Outer(BaseModel):
        inner: Annotated[Inner, Flatten()]

    found = decoded({"inner": {"n": 1}}, Outer)

    assert (found.reason, found.json_path) == ("out_of_range", "$.inner.n")


class _Tree(BaseModel):
    child: "Annotated[_Tree | None, Flatten()]" = None


class _Masked(BaseModel):
    email: Annotated[Text, Masked("hmac")]


class _InHeader(BaseModel):
    trace: Annotated[Text, Header("trace")]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (Annotated[int, Flatten()], "field 'f' is flattened, expected one model"),
        (Annotated[Address | Money, Flatten()], "field 'f' is flattened, expected one model"),
        (Annotated[_Tree, Flatten()], "field 'f.child' is flattened and is inside a _Tree itself; leave Flatten"),
        (Annotated[_Masked, Flatten()], "field 'f' has a Masked inside it"),
        (Annotated[_InHeader, Flatten()], "field 'f.trace' has Header inside a flattened model, expected none"),
        (Annotated[Money, Flatten(), Masked("drop")], "field 'f' is flattened, expected an object that is not masked"),
        (Annotated[Money, Flatten(prefix="")], "field 'f.amount' cannot be a column: in lower case it is 'amount'"),
    ],
)
def test_declarations_that_cannot_be_flattened_are_refused(annotation: Any, message: str) -> None:
    contract = type("C", (BaseModel,), {"__annotations__": {"amount": Numeric, "f": annotation}})

    with pytest.raises(DatasetError) as refused:
        _ = dataset(contract).compiled

    assert message in str(refused.value)


def test_keys_and_times_are_not_flattened() -> None:
    for option in ("key", "time_column"):
        with pytest.raises(DatasetError, match="'total' is flattened"):
            _ = dataset(**{option: "total"}).compiled


def test_describe_names_the_place() -> None:
    found = {field.column: field for field in fields(dataset())}

    assert found["shop_amount"].name == "total.shop_money.amount"
    assert found["shop_amount"].constraints[-1] == "at $.total.shop_money.amount"
    assert found["to_zip"].constraints[-1] == "at $.fulfillment.address.zip"
