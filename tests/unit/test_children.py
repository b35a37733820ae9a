"""Children: arrays of objects whose elements are rows; what is an element, and what rejects its record."""

import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from headrace.contract import Header, Identifier, Integer, Masked, Money, Path, Rejection, Text
from headrace.dataset import Child, Dataset, KafkaTopic
from headrace.exceptions import DatasetError
from headrace.monitor.describe import lines
from headrace.monitor.rules import reasons
from headrace.postgres.staged_tables import child_tables, records_table

KEY = b"a key of many characters"


class Item(BaseModel):
    """A line item as the webhook orders/create of Shopify has it."""

    item_id: Integer = Field(validation_alias="id")
    quantity: Annotated[Integer, Field(ge=1)] = 1
    price: Annotated[Money, Path("$.price_set.shop_money.amount")]


class Order(BaseModel):
    id: Integer
    note: Text | None = None


ITEMS = Child(name="items", contract=Item, explode="$.line_items")


def dataset(*children: Child, contract: type[BaseModel] = Order, **options: Any) -> Dataset:
    source = KafkaTopic(topic="orders")
    return Dataset(name="orders", contract=contract, source=source, children=children or (ITEMS,), **options)


def decoded(document: Any, declared: Dataset | None = None) -> Any:
    return (declared or dataset()).compiled.decode(None, json.dumps(document).encode())


def item(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "price_set": {"shop_money": {"amount": "1.50", "code": "EUR"}}} | more


def test_elements_are_rows_in_their_order_and_the_array_is_not_in_extra() -> None:
    row = decoded({"id": 1, "line_items": [item(7, quantity="2", sku="x"), item(5)], "other": 1})

    assert row == [1, None, b'{"other":1}']
    ((first, second),) = row.elements
    assert (first[:2], str(first[2]), json.loads(first[3])) == (
        [7, 2], "1.50", {"price_set": {"shop_money": {"code": "EUR"}}, "sku": "x"},
    )  # fmt: skip
    assert second[:2] == [5, 1]


@pytest.mark.parametrize("document", [{"id": 1}, {"id": 1, "line_items": None}, {"id": 1, "line_items": []}])
def test_a_record_without_elements_has_none(document: Any) -> None:
    assert decoded(document).elements == [()] or decoded(document).elements == [[]]


@pytest.mark.parametrize(
    ("array", "reason", "path", "detail"),
    [
        (
            [item(1), {"id": 2}],
            "missing_field",
            "$.line_items[1].price_set.shop_money.amount",
            "element 1 of line_items",
        ),
        ([item(1, quantity=0)], "out_of_range", "$.line_items[0].quantity", "quantity: found 0"),
        ([item(1), 5], "wrong_type", "$.line_items[1]", "found 5, expected an object"),
        ("x", "wrong_type", "$.line_items", "line_items: found 'x', expected an array"),
        ({"id": 1}, "wrong_type", "$.line_items", "expected an array"),
    ],
)
def test_one_bad_element_rejects_the_whole_record(array: Any, reason: str, path: str, detail: str) -> None:
    found = decoded({"id": 1, "line_items": array})

    assert isinstance(found, Rejection)
    assert (found.reason, found.json_path) == (reason, path)
    assert detail in found.detail


def test_a_field_of_the_arrays_own_name_is_named_in_full() -> None:
    class Box(BaseModel):
        boxes: Integer

    found = decoded({"id": 1, "boxes": [{"boxes": "x"}]}, dataset(Child(name="b", contract=Box, explode="$.boxes")))

    assert found.json_path == "$.boxes[0].boxes"


def test_a_required_array_is_missing() -> None:
    declared = dataset(Child(name="items", contract=Item, explode="$.cart['line items']", required=True))

    found = decoded({"id": 1, "cart": {}}, declared)

    assert (found.reason, found.json_path) == ("missing_field", "$.cart['line items']")
    assert decoded({"id": 1, "cart": {"line items": [item(3)]}}, declared).elements[0][0][0] == 3


def test_a_field_of_the_array_keeps_it_too() -> None:
    class Both(Order):
        line_items: list[Any]

    row = decoded({"id": 1, "line_items": [item(7)]}, dataset(contract=Both))

    assert len(row.elements[0]) == 1
    assert json.loads(row[2]) == [item(7)]


def test_tables_have_the_elements_and_their_number() -> None:
    (child,) = child_tables(dataset())

    assert child.name == "orders__items"
    assert [name for name, _ in child.columns] == [
        "item_id", "quantity", "price", "_generation", "_partition", "_offset", "_index", "_extra",
    ]  # fmt: skip
    assert child.primary_key[-1] == "_index"
    assert records_table(dataset()).columns[-1] == ("_count_items", "integer")


class Secret(BaseModel):
    email: Annotated[Identifier, Masked("hmac")]
    n: Integer


def test_elements_are_masked_in_rows_and_dead_letters() -> None:
    declared = dataset(Child(name="guests", contract=Secret, explode="$.guests"), masking_key=KEY)
    assert declared.is_keyed_by_setting
    good = {"id": 1, "guests": [{"email": "a@b.example", "n": 1}]}
    row = decoded(good, declared)
    assert len(row.elements[0][0][0]) == 64

    bad = {"id": "x", "guests": [{"email": "a@b.example", "n": 1}, {"email": "b@c.example", "n": "a@b.example"}, "c"]}
    found = decoded(bad, declared)
    masks = declared.compiled.masks
    assert masks is not None
    assert masks.names == ["guests.email=hmac"]
    value = masks.value(json.dumps(bad).encode(), ())
    assert value is not None
    assert b"b@c" not in value
    held = json.loads(value)["guests"]
    assert held[0]["email"] == row.elements[0][0][0]
    assert held[2] == "*** (not valid)"
    assert "example" not in found.detail

    # masks of a dead letter are taken for the values
    again = declared.of_masked.decode(None, masks.value(json.dumps(good).encode(), ()))
    assert isinstance(again, list)
    assert again.elements == row.elements  # type: ignore[attr-defined]


def test_describe_shows_the_tables_of_elements() -> None:
    declared = dataset()
    text = "\n".join(lines(declared))

    assert "each element of $.line_items is a row of staging.orders__items; without the array a record has none" in text
    assert "at $.price_set.shop_money.amount" in text
    assert "the number of its items" in text
    assert "out_of_range" in reasons(declared)


class InHeader(BaseModel):
    trace: Annotated[Text, Header("trace")]


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ((ITEMS, Child(name="items", contract=Item, explode="$.b")), "two children are named 'items'"),
        ((ITEMS, Child(name="b", contract=Item, explode="$.line_items.x")), "are inside one another"),
        ((Child(name="b", contract=InHeader, explode="$.b"),), "field 'trace' of child 'b' is in a header"),
        ((Child(name="b", contract=Secret, explode="$.note"),), "child 'b' has masks, and a field of the record"),
        ((Child(name="b" * 31, contract=Item, explode="$.b"),) * 1, None),
    ],
)
def test_children_that_cannot_be_staged_are_refused(children: tuple[Child, ...], message: str | None) -> None:
    if message is None:
        assert dataset(*children).compiled
        return
    with pytest.raises(DatasetError, match=message):
        _ = dataset(*children).compiled


def test_a_childs_table_has_a_name_that_postgres_keeps() -> None:
    declared = Dataset(name="o" * 30, contract=Order, source=KafkaTopic(topic="orders"), children=(ITEMS,))
    assert declared.compiled

    with pytest.raises(DatasetError, match="has a table of 51 characters"):
        _ = Dataset(name="o" * 41, contract=Order, source=KafkaTopic(topic="o"), children=(
            Child(name="abcdefgh", contract=Item, explode="$.a"),
        )).compiled  # fmt: skip


def test_an_element_has_no_field_of_the_keys_name() -> None:
    child = Child(name="guests", contract=Order, explode="$.guests")

    with pytest.raises(DatasetError, match="child 'guests' has a field 'id' as the key has"):
        _ = dataset(child, key="id").compiled


@pytest.mark.parametrize(("name", "path"), [("a__b", "$.a"), ("A", "$.a"), ("a", "$.a[0]"), ("a", "$")])
def test_a_child_has_a_name_and_a_path(name: str, path: str) -> None:
    with pytest.raises(DatasetError):
        Child(name=name, contract=Item, explode=path)
