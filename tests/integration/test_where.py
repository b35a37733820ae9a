"""Two datasets that share a topic: each counts what it ignores, and both are proven."""

import json
from dataclasses import replace

import psycopg
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient, record_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.ingest.totals import update_totals
from headrace.monitor.status import read_status
from headrace.repair.reload import reload_range
from headrace.verify import verify
from tests.support import topics
from tests.support.jobs import servers, topic_of
from tests.support.stage import Stage

DECLARATION = """
from pydantic import BaseModel
from headrace.contract import Integer, Text
from headrace.dataset import Dataset, KafkaTopic

class Entity(BaseModel):
    id: {kind}
    type: Text

DATASET = Dataset(
    name="{name}", contract=Entity, key="id", where="$.type = '{name}'", source=KafkaTopic(topic="{topic}")
)
"""
COUNT = 60


@pytest.fixture
def shared(stage: Stage) -> Stage:
    for name, kind in (("orders", "Integer"), ("clients", "Text")):
        path = stage.deployment.settings.datasets_dir / f"{name}.py"
        path.write_text(DECLARATION.format(name=name, kind=kind, topic=topic_of(stage)))
    initialise(stage.deployment)
    sent: list[topics.Message] = []
    for n in range(COUNT):
        name = ("orders", "clients", "others")[n % 3]
        key = f"c{n}" if name == "clients" else str(n)
        value: bytes | None = json.dumps({"id": n if name == "orders" else key, "type": name}).encode()
        if n % 10 == 9:
            value = None
        if n % 20 == 0:
            value = b"{"
        sent.append((n % 2, key.encode(), value))
    topics.send(servers(stage), topic_of(stage), sent)
    return stage


def counts(stage: Stage, name: str) -> tuple[int, ...]:
    return stage.query(
        "select sum(staged), sum(dead), sum(tombstones), sum(ignored), sum(empty), sum(end_offset - start_offset) "
        "from headrace.batches where dataset = %s and kind = 'drain'",
        name,
    )[0]


def test_each_dataset_counts_what_it_ignores(shared: Stage) -> None:
    for name in ("orders", "clients"):
        drain_dataset(shared.deployment, name)
    broken, deleted = {0, 20, 40}, {n for n in range(COUNT) if n % 10 == 9}
    orders, clients = ({n for n in range(COUNT) if n % 3 == kind} - broken - deleted for kind in (0, 1))
    tombstones = {n for n in deleted if n % 3 != 1}  # a client's key is no whole number

    ignored = COUNT - len(orders) - len(broken) - len(tombstones)
    assert counts(shared, "orders") == (len(orders), len(broken), len(tombstones), ignored, 0, COUNT)
    ignored = COUNT - len(clients) - len(broken) - len(deleted)  # any key is a text
    assert counts(shared, "clients") == (len(clients), len(broken), len(deleted), ignored, 0, COUNT)
    for lines in (1_000, 0):  # summed by the status, then by the totals
        with psycopg.connect(shared.dsn, autocommit=True) as connection:
            update_totals(connection, ["clients"], lines)
        status = read_status(shared.deployment.connect("test"))
        assert {each.dataset: each.ignored for each in status.datasets}["clients"] == ignored
    for name in ("orders", "clients"):
        report = verify(shared.deployment, name, deep=True)
        assert report.is_clean, report
        assert report.reports[0].counts["ignored records"] == counts(shared, name)[3]
    reload_range(shared.deployment, shared.deployment.dataset("orders"), "1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z")
    assert verify(shared.deployment, "orders", deep=True).is_clean


def test_verify_names_a_record_that_was_not_ignored_when_it_was_read(shared: Stage) -> None:
    drain_dataset(shared.deployment, "orders")
    path = shared.deployment.settings.datasets_dir / "orders.py"
    path.write_text(path.read_text().replace("$.type = 'orders'", "$.type in ('orders', 'others')"))

    found = verify(shared.deployment, "orders", deep=True).findings

    assert {finding.check for finding in found} == {"records", "empty"}


def test_records_of_several_subjects_are_told_apart_by_the_names_of_their_schemas(
    stage: Stage, registry_url: str
) -> None:
    stage = Stage(Deployment.from_settings(replace(stage.deployment.settings, registry_url=registry_url)), stage.dsn)
    topic, registry = topic_of(stage), SchemaRegistryClient({"url": registry_url})
    for name in ("orders", "clients"):
        text = DECLARATION.format(name=name, kind="Integer", topic=topic)
        text = text.replace(f"$.type = '{name}'", f"schema = 'com.acme.{name.title()}'").replace(
            "source=", "format=Avro(), source="
        )
        path = stage.deployment.settings.datasets_dir / f"{name}.py"
        path.write_text(f"from headrace.formats import Avro\n{text}")
    initialise(stage.deployment)
    producer = Producer({"bootstrap.servers": servers(stage)})
    context = SerializationContext(topic, MessageField.VALUE)
    for kind, numbers in (("Orders", range(10)), ("Clients", range(10, 16)), ("Others", range(16, 20))):
        fields = [{"name": "id", "type": "long"}, {"name": "type", "type": "string"}]
        schema = {"type": "record", "name": kind, "namespace": "com.acme", "fields": fields}
        write = AvroSerializer(
            registry, json.dumps(schema), conf={"subject.name.strategy": record_subject_name_strategy}
        )
        for n in numbers:
            value = write({"id": n, "type": kind}, context)
            producer.produce(topic, key=str(n), value=value[:-1] if n % 8 == 0 else value)  # 0, 8, 16 are cut off
    producer.produce(topic, key="20", value=b"{}")
    assert producer.flush(30) == 0
    assert {"com.acme.Orders", "com.acme.Clients"} <= set(registry.get_subjects())
    for name, staged, dead in (("orders", 8, 3), ("clients", 6, 1)):  # the last one names no schema
        drain_dataset(stage.deployment, name)
        assert counts(stage, name) == (staged, dead, 0, 21 - staged - dead, 0, 21)
        report = verify(stage.deployment, name, deep=True)
        assert report.is_clean, report
