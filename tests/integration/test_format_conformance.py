"""Formats with a registry, each against the second client's serializers and a real registry: one suite for all."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import pytest
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.serialization import MessageField

from headrace.deployment import Deployment
from headrace.exceptions import RegistryUnavailable
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.local import registry as local_registry
from headrace.local import services
from headrace.repair.replay import replay
from headrace.settings import Settings
from headrace.verify.verification import verify
from tests.support.fuzz_drain import run
from tests.support.fuzz_targets import FORMATS, PLAIN_FORMATS, targets
from tests.support.interrupts import drain_that_gets
from tests.support.ledger_checks import assert_ledger
from tests.support.order_schemas import NAMES, avro_schema, json_schema, json_value
from tests.support.orders import Order, Orders, declared, orders, row
from tests.support.protobuf_orders import proto, protobuf_writer
from tests.support.schemas import wire
from tests.support.stage import Stage


@dataclass(frozen=True, slots=True)
class Case:
    """A format: how it is declared, how the second client writes all of an order, and some fields of it."""

    format: str
    key_format: str
    writer: Callable[[Orders], Callable[[Order], bytes]]
    key: Callable[[Orders], Callable[[int], bytes]]
    partial: Callable[..., Callable[[Order], bytes]]
    cut: str  # the reason for a value that lacks its last byte
    register: Callable[[Orders, str], int]  # another schema of the same layout, told apart by a word


def _avro_writer(made: Orders, *names: str) -> Callable[[Order], bytes]:
    serializer = AvroSerializer(made.registry, avro_schema(*(names or NAMES)))
    return lambda order: serializer(order, made.context())


def _avro_key(made: Orders) -> Callable[[int], bytes]:
    serializer = AvroSerializer(made.registry, '"long"')
    return lambda number: serializer(number, made.context(MessageField.KEY))


def _avro_register(made: Orders, word: str) -> int:
    return made.register(json.dumps(json.loads(avro_schema("id", "amount", "at")) | {"doc": word}), "AVRO", word)


def _json_writer(made: Orders, *names: str) -> Callable[[Order], bytes]:
    names = names or NAMES
    serializer = JSONSerializer(json_schema(*names), made.registry)
    return lambda order: serializer({name: json_value(order[name]) for name in names}, made.context())


def _text_key(_made: Orders) -> Callable[[int], bytes]:
    return lambda number: str(number).encode()


def _json_register(made: Orders, word: str) -> int:
    return made.register(json_schema("id", "amount", "at", title=word), "JSON", word)


def _json_key(_made: Orders) -> Callable[[int], bytes]:
    return lambda number: json.dumps({"order": number}).encode()


def _protobuf_register(made: Orders, word: str) -> int:
    return made.register(f"// {word}\n{proto('id', 'amount', 'at')}", "PROTOBUF", word)


CASES = {
    "protobuf": Case(
        "Protobuf()", "Json()", protobuf_writer, _json_key, protobuf_writer, "undecodable", _protobuf_register
    ),
    "json_schema": Case(
        "JsonSchema()", "PlainText()", _json_writer, _text_key, _json_writer, "invalid_json", _json_register
    ),
    "avro": Case("Avro()", "Avro()", _avro_writer, _avro_key, _avro_writer, "undecodable", _avro_register),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def made(case: Case, stage: Stage, topic: str, registry_url: str) -> Orders:
    """The dataset orders, with an empty topic of its own."""
    settings = replace(stage.deployment.settings, registry_url=registry_url, batch_rows=50)
    return declared(
        Stage(Deployment.from_settings(settings), stage.dsn), topic, registry_url, case.format, case.key_format
    )


def test_values_are_the_producers_own(case: Case, made: Orders) -> None:
    sent = orders(300, 18)
    write, key = case.writer(made), case.key(made)
    made.send([*((key(order["id"]), write(order)) for order in sent), (key(7), None)])
    drain_dataset(made.stage.deployment, "orders")
    assert_ledger(made.stage, dataset="orders")
    found = made.query(", ".join(NAMES))
    tombstone = [each for each in found if each[1] is None]
    assert [each for each in found if each[1] is not None] == [row(order, NAMES) for order in sent]
    assert [each[0] for each in tombstone] == [7]
    assert made.stage.value("select count(*) from headrace.dead_letters") == 0
    numbers = made.stage.query("select distinct _schema_id, _deleted, _extra from staging.orders order by 2")
    assert [(schema_id is None, deleted, extra) for schema_id, deleted, extra in numbers] == [
        (False, False, None),
        (True, True, None),
    ]
    (report,) = verify(made.stage.deployment, "orders", deep=True).reports
    assert (report.findings, report.error, report.counts["hashes equal"]) == ([], None, 301)


def test_schemas_evolve_within_a_topic_in_both_directions(case: Case, made: Orders) -> None:
    writers = [
        case.partial(made, "id", "amount", "at"),
        case.partial(made, "id", "amount", "at", "note", "status"),
        case.partial(made, "id", "amount", "at", "note", "clock", "later"),
    ]
    key, sent = case.key(made), [order | {"later": "new"} for order in orders(90, 19)]
    made.send((key(order["id"]), writers[number % 3](order)) for number, order in enumerate(sent))
    drain_dataset(made.stage.deployment, "orders")
    expected = []
    for number, order in enumerate(sent):
        has = number % 3
        expected.append((
            *row(order, ("id", "amount", "at")), order["note"] if has else None,
            order["status"] if has == 1 else "NEW", order["clock"] if has == 2 else None,
            {"later": "new"} if has == 2 else None,
        ))  # fmt: skip
    assert made.query("id, amount, at, note, status, clock, _extra") == expected
    counts = Counter(number for (number,) in made.query("_schema_id"))
    assert sorted(counts.values()) == [30, 30, 30]


def test_record_of_an_unknown_schema_is_staged_by_a_replay_once_the_schema_arrives(case: Case, made: Orders) -> None:
    write, key, sent = case.partial(made, "id", "amount", "at"), case.key(made), orders(4, 20)
    keys, (good, late, cut, none) = [key(order["id"]) for order in sent], [write(order) for order in sent]
    unheard = case.register(made, f"{made.topic}-one") + 1  # of the schema that is registered next
    values = [good, wire(unheard, late[5:]), cut[:-1], b"{}" + none]
    made.send(zip(keys, values, strict=True))
    drain_dataset(made.stage.deployment, "orders")
    dead = made.stage.query("select reason, schema_id, value from headrace.dead_letters order by key")
    known = int.from_bytes(good[1:5], "big")
    assert dead == [
        ("unknown_schema", unheard, values[1]),
        (case.cut, known, values[2]),
        ("undecodable", None, values[3]),
    ]
    assert replay(made.stage.deployment, made.stage.deployment.dataset("orders")).passed == 0
    assert case.register(made, f"{made.topic}-two") == unheard
    result = replay(made.stage.deployment, made.stage.deployment.dataset("orders"))
    assert (result.passed, result.remaining) == (1, Counter([case.cut, "undecodable"]))
    assert made.query("id, amount, at, _schema_id") == [
        (*row(order, ("id", "amount", "at")), number) for order, number in zip(sent, (known, unheard), strict=False)
    ]
    assert_ledger(made.stage, dataset="orders")


def test_registry_that_is_down_fails_the_drain_and_stores_nothing(case: Case, made: Orders, closed_port: int) -> None:
    write, key, sent = case.writer(made), case.key(made), orders(3, 21)
    made.send((key(order["id"]), write(order)) for order in sent)
    settings = replace(made.stage.deployment.settings, registry_url=f"http://127.0.0.1:{closed_port}", max_retries=1)
    with pytest.raises(RegistryUnavailable, match=f"registry: http://127.0.0.1:{closed_port} does not answer"):
        drain_dataset(Deployment.from_settings(settings), "orders")
    counts = "select (select count(*) from staging.orders), count(*) from headrace.dead_letters"
    assert made.stage.query(counts) == [(0, 0)]
    assert made.stage.query("select distinct next_offset from headrace.checkpoints where dataset = 'orders'") == [(0,)]
    drain_dataset(made.stage.deployment, "orders")
    assert made.stage.query(counts) == [(3, 0)]


@pytest.mark.parametrize("case", ["avro"], indirect=True)  # what a kill does is the same for all
@pytest.mark.parametrize("step", ["staged", "committed"])
def test_drain_killed_stages_each_record_once(case: Case, made: Orders, step: str) -> None:
    write, key, sent = case.writer(made), case.key(made), orders(400, 22)
    made.send((key(order["id"]), write(order) if order["id"] % 50 else b"\0") for order in sent)
    with drain_that_gets(signal.SIGKILL, step, made.stage, "orders") as process:
        process.join(30)
        assert process.exitcode == -signal.SIGKILL
    drain_dataset(made.stage.deployment, "orders")
    assert_ledger(made.stage, dataset="orders")
    assert [number for (number,) in made.query("id")] == [order["id"] for order in sent if order["id"] % 50]
    assert made.stage.value("select count(*) from headrace.dead_letters") == 8


@pytest.mark.parametrize("format", [name for name in FORMATS if name not in PLAIN_FORMATS])
def test_broken_values_become_what_another_reader_makes_of_them(
    stage: Stage, topic: str, registry_url: str, format: str
) -> None:
    (target,) = targets(format, registry_url)
    target.declare(stage.deployment.settings.datasets_dir, f"{topic}-fuzzed")
    deployment = Deployment.from_settings(replace(stage.deployment.settings, registry_url=registry_url, batch_rows=500))
    initialise(deployment)
    account = run(deployment, target, f"{topic}-fuzzed", 20_261_126, 600)
    assert account.staged > 120
    assert account.dead > 120
    assert account.undecided < 30
    assert len(account.reasons) >= 3


def test_dataset_that_changes_to_a_format_with_schemas_gets_their_column(
    stage: Stage, topic: str, registry_url: str
) -> None:
    settings = replace(stage.deployment.settings, registry_url=registry_url)
    stage = Stage(Deployment.from_settings(settings), stage.dsn)
    (sent,) = orders(1, 23)
    made = declared(
        stage, topic, registry_url, "Json( )"
    )  # another size: Python may read the bytecode of the same second
    made.send([(b"1", json.dumps({name: json_value(sent[name]) for name in NAMES}).encode())])
    drain_dataset(stage.deployment, "orders")
    made = declared(stage, topic, registry_url, "Avro()")
    made.send([(b"1", CASES["avro"].writer(made)(sent))])
    drain_dataset(stage.deployment, "orders")
    (before, old), (after, new) = made.query("_schema_id, array[id, nanos]")
    assert (before, old) == (None, new)
    assert after is not None


def test_local_registry_listens_on_the_loopback_alone_and_is_printed_while_it_runs(
    local_settings: Settings, registry_url: str
) -> None:
    pid = local_registry.service(local_settings.home).pid()
    listening = [each.laddr.ip for each in psutil.Process(pid).net_connections("tcp") if each.status == "LISTEN"]
    assert set(listening) == {"127.0.0.1"}
    assert services.environment(local_settings)["HEADRACE_REGISTRY_URL"] == registry_url
    assert "HEADRACE_REGISTRY_URL" not in services.environment(Settings(home=local_settings.home / "another"))
