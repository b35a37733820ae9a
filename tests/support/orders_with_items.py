"""Orders with line items and refunds in the shape of Shopify's webhook orders/create, and their declaration."""

import json

# https://shopify.dev/docs/api/webhooks: line_items and refunds are arrays of objects, prices nest
DECLARATION = """
from typing import Annotated, Any
from pydantic import BaseModel, Field
from headrace.contract import Identifier, Integer, Money, Path, Text, Timestamp
from headrace.dataset import Child, Dataset, File, KafkaTopic

class Item(BaseModel):
    sku: Identifier
    quantity: Annotated[Integer, Field(ge=1)]
    price: Annotated[Money, Path("$.price_set.amount")]
    made_at: Timestamp | None = None
    tags: list[Any] = []

class Refund(BaseModel):
    amount: Integer
    note: str = ""

class Order(BaseModel):
    id: Integer
    note: Text | None = None

DATASET = Dataset(
    name="orders", contract=Order, key="id", source=SOURCE,
    children=(
        Child(name="items", contract=Item, explode="$.line_items"),
        Child(name="refunds", contract=Refund, explode="$.refunds"),
    ),
)
"""


def order(number: int, items: int, **more: object) -> bytes:
    """An order with so many items, and a refund if its number is odd."""
    each = [
        {
            "sku": f"s{number}-{n}",
            "quantity": n + 1,
            "price_set": {"amount": "1.50", "code": "EUR"},
            "made_at": "2026-01-02T03:04:05.678901+01:00",
            "tags": [1.10, {"a": "\\"}],
        }
        for n in range(items)
    ]
    return json.dumps(
        {"id": number, "line_items": each, "refunds": [{"amount": number}] * (number % 2)} | more
    ).encode()
