"""The lineage of a drain: names of sources and tables, and the fields behind each column."""

from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from headrace.airflow.lineage import Database, Lineage, Origin, of_drain
from headrace.contract import Header, Masked, Text
from headrace.contract import Path as JsonPath
from headrace.dataset import Child, Dataset, File, KafkaTopic, KafkaTopics, RedisStream
from headrace.deployment import Deployment
from headrace.settings import Settings
from headrace.sources.lineage_names import lineage_names


def deployment(servers: Any = ("one:9093", "two:9093"), redis: str = "rediss://me:secret@cache:6380/2") -> Deployment:
    settings = Settings(data_dir=Path("/data"))
    return Deployment(settings, lambda _: None, lambda: {"bootstrap_servers": servers}, lambda: redis)  # type: ignore[arg-type, return-value]


class Item(BaseModel):
    sku: Text


class Order(BaseModel):
    id: int
    city: Annotated[str, JsonPath("$.address.city")]
    email: Annotated[Text, Masked("last4")]
    trace: Annotated[str | None, Header("trace-id")] = None


ORDERS = Dataset(
    name="orders",
    contract=Order,
    key="id",
    source=KafkaTopic(topic="shop.orders"),
    children=(Child(name="items", contract=Item, explode="$.items"),),
)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (KafkaTopic(topic="a"), [("kafka://one:9093", "a")]),
        (KafkaTopics(topics=("a", "b")), [("kafka://one:9093", "a"), ("kafka://one:9093", "b")]),
        (KafkaTopics(pattern="a.*"), []),
        (RedisStream(stream="s"), [("redis://cache:6380", "s")]),
        (File(path="users.ndjson"), [("file", "/data/users.ndjson")]),
    ],
    ids=lambda each: getattr(each, "kind", ""),
)
def test_sources_have_openlineage_s_names(source: Any, expected: list[tuple[str, str]]) -> None:
    assert list(lineage_names(source, deployment())) == expected


def test_default_ports_are_named_and_another_file_too() -> None:
    assert lineage_names(KafkaTopic(topic="a"), deployment("broker")) == [("kafka://broker:9092", "a")]
    assert lineage_names(RedisStream(stream="s"), deployment(redis="redis://cache")) == [("redis://cache:6379", "s")]
    assert lineage_names(File(path="a"), deployment(), Path("/data/b")) == [("file", "/data/b")]


@pytest.mark.parametrize(
    ("parameters", "namespace", "name"),
    [
        ({"host": "db", "port": "5433", "dbname": "shop", "user": "me"}, "postgres://db:5433", "shop.marts.jobs"),
        ({"host": "/run/postgresql", "user": "me"}, "postgres://localhost:5432", "me.marts.jobs"),
        ({"host": "a,b", "port": "1,2", "dbname": "shop"}, "postgres://a:1", "shop.marts.jobs"),
    ],
)
def test_tables_have_openlineage_s_names(parameters: dict[str, str], namespace: str, name: str) -> None:
    database = Database(parameters)
    assert (database.namespace, database.table(("marts", "jobs"))) == (namespace, name)


def test_drain_leads_from_the_fields_of_a_record_to_the_columns_of_its_tables() -> None:
    lineage: Lineage = of_drain(deployment(), ORDERS, Database({"host": "db", "dbname": "shop"}), 7)
    (topic,) = lineage.inputs
    orders, items = lineage.outputs
    assert (orders.name, orders.rows, items.name, items.rows) == (
        "shop.staging.orders",
        7,
        "shop.staging.orders__items",
        None,
    )
    at = (topic.namespace, topic.name)
    assert orders.origins == {
        "id": [Origin(*at, "$.id")],
        "city": [Origin(*at, "$.address.city")],
        "email": [Origin(*at, "$.email", is_masked=True)],
        "trace": [Origin(*at, "$.headers['trace-id']")],
    }
    assert items.origins == {"sku": [Origin(*at, "$.items[*].sku")]}
    assert ("$.id", "bigint", "") in topic.fields
    assert ("email", "text", "") in orders.fields
