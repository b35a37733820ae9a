"""A dataset with nested fields, headers and a key of two fields: staged once, replayed and verified."""

import json

import pytest

from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.repair.replay import replay
from headrace.verify import verify
from tests.support import topics
from tests.support.jobs import servers, topic_of
from tests.support.stage import Stage

DECLARATION = """
from typing import Annotated
from pydantic import BaseModel, Field
from headrace.contract import Header, Identifier, Integer, Key, Path, Text
from headrace.dataset import Dataset, KafkaTopic

class Order(BaseModel):
    tenant: Annotated[Identifier, Key("$.tenant")]
    id: Integer
    city: Annotated[Text, Path("$.customer.address.city")] | None = None
    age: Annotated[Integer, Field(ge=0), Path("$.customer.age")]
    trace: Annotated[Text, Header("trace")] | None = None

DATASET = Dataset(name="orders", contract=Order, key=("tenant", "id"), source=KafkaTopic(topic="TOPIC"))
"""
COUNT = 40
TOMBSTONES = {9, 19, 29, 39}
NEGATIVE = {n for n in range(COUNT) if n % 7 == 6} - TOMBSTONES


@pytest.fixture
def orders(stage: Stage) -> Stage:
    path = stage.deployment.settings.datasets_dir / "orders.py"
    path.write_text(DECLARATION.replace("TOPIC", topic_of(stage)))
    initialise(stage.deployment)
    with topics.producer(servers(stage)) as producer:
        for n in range(COUNT):
            key = json.dumps({"tenant": f"t{n % 3}", "id": n}).encode()
            document = {"id": n, "customer": {"address": {"city": f"c{n}"}, "age": 5 - n % 7, "x": n}}
            value = None if n in TOMBSTONES else json.dumps(document).encode()
            headers = [("trace", b"%d" % n)]
            producer.send(topic_of(stage), key=key, value=value, headers=headers, partition=n % 3)
        producer.flush()
    return stage


def test_orders_are_staged_replayed_and_proven(orders: Stage) -> None:
    drain_dataset(orders.deployment, "orders")

    assert verify(orders.deployment, "orders", deep=True).is_clean
    columns = "select tenant, id, city, age, trace, _extra, _deleted from staging.orders where id = %s"
    assert orders.query(columns, 0) == [("t0", 0, "c0", 5, "0", {"customer": {"x": 0}}, False)]
    assert orders.query(columns, 9) == [("t0", 9, None, None, None, None, True)]
    dead = orders.query("select reason, json_path, count(*) from headrace.dead_letters group by 1, 2")
    assert dead == [("out_of_range", "$.customer.age", len(NEGATIVE))]
    index = orders.value("select indexdef from pg_indexes where indexname = '_key_orders'")
    assert index.endswith("(tenant, id)")

    path = orders.deployment.settings.datasets_dir / "orders.py"
    path.write_text(path.read_text().replace("Field(ge=0), ", ""))
    done = replay(orders.deployment, orders.deployment.dataset("orders"))

    assert done.passed == len(NEGATIVE)
    assert orders.value("select count(*) from staging.orders") == COUNT
    assert verify(orders.deployment, "orders", deep=True).is_clean
