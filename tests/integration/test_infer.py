"""`headrace infer` on a topic, a stream, a file and a table, and what it does to files that exist."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from kafka import KafkaProducer
from redis import Redis

from headrace.catalog import load_declaration
from headrace.cli import main
from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.local import services
from headrace.sample.generate import generate_records
from headrace.settings import Settings
from tests.support.known_producers import clickstream, github, stripe
from tests.support.ledger_checks import environment
from tests.support.order_schemas import NAMES
from tests.support.orders import Orders, orders
from tests.support.protobuf_orders import protobuf_writer
from tests.support.stage import Stage


@pytest.fixture
def variables(stage: Stage, tmp_path: Path, redis_url: str) -> dict[str, str]:
    """The settings of a deployment that has no datasets and no models."""
    (tmp_path / "none").mkdir()
    return environment(stage.deployment.settings) | {
        "HEADRACE_DATASETS_DIR": str(tmp_path / "none"),
        "HEADRACE_DBT_DIR": str(tmp_path / "dbt"),
        "HEADRACE_REDIS_URL": redis_url,
    }


@pytest.fixture
def registry_url(local_settings: Settings) -> str:
    """The address of a real schema registry."""
    return str(services.up(local_settings, only=("registry",), print_line=lambda _line: None)["registry"]["address"])


def infer(variables: dict[str, str], *arguments: str) -> Result:
    return CliRunner().invoke(main, ["infer", *arguments], env=variables)


def test_infer_a_topic_reads_starts_and_ends_and_writes_once(
    variables: dict[str, str], topic: str, bootstrap_servers: str, tmp_path: Path
) -> None:
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    made = list(generate_records("jobs", 3_000, 3, 0, Settings().data_dir))
    for number, record in enumerate(made):
        producer.send(topic, key=record.key, value=record.value, partition=number % 3)
    producer.send(topic, key=b"1", value=None, partition=0)
    producer.close()

    shown = infer(variables, topic, "--name", "work", "--records", "600", "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert "600 of 3,001 records" in shown.output
    assert "599 staged, 1 tombstones, 0 dead letters" in shown.output  # the tombstone is the last of its partition
    assert 'key="JOBIDENTIFIER"' in shown.output
    assert list((tmp_path / "none").iterdir()) == []

    written = infer(variables, topic, "--name", "work")
    assert written.exit_code == 0, written.output
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*work*")) == [
        "dbt/models/marts/work.sql",
        "dbt/models/marts/work.yml",
        "dbt/models/staging/stg_kafka__work.sql",
        "dbt/models/staging/stg_kafka__work.yml",
        "none/work.py",
    ]
    contract = load_declaration(tmp_path / "none", "work").compiled
    assert all(isinstance(contract.decode(record.key, record.value), list) for record in made)
    assert infer(variables, topic, "--name", "work").exit_code == 0  # the same again replaces nothing

    declaration = tmp_path / "none" / "work.py"
    declaration.write_text("# mine\n")
    refused = infer(variables, topic, "--name", "work")
    assert refused.exit_code == 1
    assert f"found {declaration}, expected new files; nothing was written; `--yes` replaces them" in refused.stderr
    assert declaration.read_text() == "# mine\n"
    assert infer(variables, topic, "--name", "work", "--yes").exit_code == 0
    assert "class Work(" in declaration.read_text()


@pytest.mark.parametrize("name", ["events", "rides", "stripe", "github", "clickstream"])
def test_inferred_declaration_stages_all_good_records_of_its_topic(
    variables: dict[str, str], topic: str, bootstrap_servers: str, stage: Stage, tmp_path: Path, name: str
) -> None:
    make = {"stripe": stripe, "github": github, "clickstream": clickstream}.get(name)
    if make is None:
        made = [(r.key, r.value, r.reason is None) for r in generate_records(name, 1_200, 5, 1, Settings().data_dir)]
    else:
        made = [(None, json.dumps(make(number)).encode(), True) for number in range(300)]
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    for number, (key, value, _) in enumerate(made):
        producer.send(topic, key=key, value=value, partition=number % 3)
    producer.close()
    written = infer(variables, topic, "--name", name)
    assert written.exit_code == 0, written.output
    settings = replace(stage.deployment.settings, datasets_dir=tmp_path / "none")
    drain_dataset(Deployment.from_settings(settings), name)
    rows = set(stage.query(f"select _partition, _offset from staging.{name}"))
    good = {(number % 3, number // 3) for number, (_, _, is_good) in enumerate(made) if is_good}
    assert good <= rows
    dead = set(stage.query('select partition, "offset" from headrace.dead_letters'))
    assert rows | dead == {(number % 3, number // 3) for number in range(len(made))}
    assert not rows & dead


def test_infer_a_stream_reads_text_as_numbers(
    variables: dict[str, str], stream: str, redis_url: str, tmp_path: Path
) -> None:
    with Redis.from_url(redis_url) as redis:
        for record in generate_records("telemetry", 300, 3, 0, Settings().data_dir):
            redis.xadd(stream, json.loads(record.value))
    written = infer(variables, stream, "--name", "readings")
    assert written.exit_code == 0, written.output
    assert "300 staged, 0 tombstones, 0 dead letters" in written.output
    columns = {c.name: c.sql_type for c in load_declaration(tmp_path / "none", "readings").compiled.columns}
    assert columns == {
        "event_id": "uuid", "device_id": "text", "zone": "text", "ts": "timestamptz", "kpi": "text", "value": "numeric",
    }  # fmt: skip


def test_infer_the_users_file_and_a_csv(variables: dict[str, str], tmp_path: Path) -> None:
    users = infer(variables, "users.ndjson")
    assert users.exit_code == 0, users.output
    assert "10000 staged, 0 tombstones, 0 dead letters" in users.output
    dataset = load_declaration(tmp_path / "none", "users")
    assert (dataset.key, dataset.source.name) == ("USERID", "users.ndjson")

    csv = tmp_path / "orders.csv"
    csv.write_text("order,zip,amount,at\n" + "".join(f"o{i},0{i:04},{i}.50,2026-03-01\n" for i in range(20)))
    outside = infer(variables, str(csv))
    assert outside.exit_code == 1
    assert "expected one below it; copy it there, or name the topic" in outside.stderr
    named = infer(variables, str(csv), "--topic", "shop.orders")
    assert named.exit_code == 0, named.output
    assert "20 staged" in named.output
    dataset = load_declaration(tmp_path / "none", "shop_orders")
    columns = {column.name: column.sql_type for column in dataset.compiled.columns}
    assert columns == {"order_": "text", "zip": "text", "amount": "numeric", "at": "date"}


def test_infer_a_table_takes_its_columns_and_its_key(variables: dict[str, str], stage: Stage, tmp_path: Path) -> None:
    stage.execute(
        "create schema shop",
        """create table shop."Orders" (
            id bigint primary key, "order" text not null, amount numeric(12, 2), paid boolean not null,
            placed_at timestamptz not null, due date, tags text[], body jsonb, address inet, token uuid not null
        )""",
        """insert into shop."Orders"
        select i, 'o' || i, i + 0.25, true, '2026-03-01 10:00+00', null, '{a}', '{"b": 1}', '10.0.0.1',
            gen_random_uuid()
        from generate_series(1, 50) as i""",
    )
    written = infer(variables, "shop.Orders", "--topic", "orders")
    assert written.exit_code == 0, written.output
    assert "50 staged, 0 tombstones, 0 dead letters" in written.output
    dataset = load_declaration(tmp_path / "none", "orders")
    assert (dataset.key, dataset.time_column) == ("id", "placed_at")
    assert {c.name: (c.sql_type, c.required) for c in dataset.compiled.columns} == {
        "id": ("bigint", True), "order_": ("text", True), "amount": ("numeric", False), "paid": ("boolean", True),
        "placed_at": ("timestamptz", True), "due": ("date", False), "tags": ("jsonb", False), "body": ("jsonb", False),
        "address": ("text", False), "token": ("uuid", True),
    }  # fmt: skip


def test_infer_a_subject_and_its_topic(
    variables: dict[str, str], topic: str, bootstrap_servers: str, registry_url: str, tmp_path: Path
) -> None:
    schema = {"type": "record", "name": "Order", "fields": [
        {"name": "id", "type": "long"},
        {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}},
        {"name": "placed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "buyer", "type": {"type": "record", "name": "Buyer", "fields": [{"name": "city", "type": "string"}]}},
    ]}  # fmt: skip
    registry = SchemaRegistryClient({"url": registry_url})
    serializer = AvroSerializer(registry, json.dumps(schema))
    context = SerializationContext(topic, MessageField.VALUE)
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    for number in range(40):
        order = {
            "id": number, "amount": Decimal(number) + Decimal("0.25"), "placed_at": datetime.now(UTC), "note": None,
            "buyer": {"city": "Bern"},
        }  # fmt: skip
        producer.send(topic, key=b"%d" % number, value=serializer(order, context))
    producer.close()
    variables["HEADRACE_REGISTRY_URL"] = registry_url
    expected = {"id": "bigint", "amount": "numeric", "placed_at": "timestamptz", "note": "text", "buyer": "jsonb"}
    for argument, name in ((topic, "by_topic"), (f"{topic}-value", "by_subject")):
        written = infer(variables, argument, "--name", name)
        assert written.exit_code == 0, written.output
        assert "40 staged, 0 tombstones, 0 dead letters" in written.output
        dataset = load_declaration(tmp_path / "none", name)
        assert (dataset.key, dataset.time_column, dataset.format.name) == ("id", "placed_at", "avro")
        found = {column.name: column.sql_type for column in dataset.compiled.columns}
        assert found == expected | ({"note": "jsonb"} if name == "by_topic" else {})  # only null in the sample


def test_infer_a_subject_of_messages_stages_all_of_its_topic(
    variables: dict[str, str], stage: Stage, topic: str, registry_url: str, tmp_path: Path
) -> None:
    made = Orders(stage, topic, SchemaRegistryClient({"url": registry_url}))
    writers = [protobuf_writer(made, *NAMES), protobuf_writer(made, "id", "amount", "at")]  # the newest has all
    sent = [order | {"nanos": 1_700_000_000_123_456_789} for order in orders(60, 24)]
    made.send((str(order["id"]).encode(), writers[order["id"] % 2](order)) for order in sent)
    variables["HEADRACE_REGISTRY_URL"] = registry_url
    written = infer(variables, f"{topic}-value", "--name", "paid")
    assert written.exit_code == 0, written.output
    assert "60 staged, 0 tombstones, 0 dead letters" in written.output
    dataset = load_declaration(tmp_path / "none", "paid")
    assert (dataset.key, dataset.format.name) == ("id", "protobuf")
    found = {column.name: (column.sql_type, column.required) for column in dataset.compiled.columns}
    assert found == {
        "id": ("bigint", True), "amount": ("numeric", False), "at": ("timestamptz", False),
        "nanos": ("timestamptz", False), "seen": ("timestamptz", False), "day": ("text", False),
        "clock": ("text", False), "uid": ("text", False), "raw": ("bytea", False), "ratio": ("double precision", False),
        "tags": ("jsonb", False), "attributes": ("jsonb", False), "note": ("text", False), "status": ("text", False),
    }  # fmt: skip


def test_infer_what_is_not_there_or_empty_is_refused(variables: dict[str, str], topic: str) -> None:
    for name, expected in ((topic, "found no record in the sample"), ("nowhere", "found no topic, stream, subject"),
                           ("shop.nothing", "found no such table")):  # fmt: skip
        refused = infer(variables, name)
        assert refused.exit_code == 1
        assert expected in refused.stderr, refused.stderr
        assert refused.stderr.count("\n") == 1
