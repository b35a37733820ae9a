"""The dead-letter topic: without repeats it equals the dead-letter table; read by another client."""

import json
import logging
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import confluent_kafka
import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.exceptions import SourceUnavailable
from headrace.ingest.parallel import drain_dataset
from headrace.publish import dead_letter_topic as outbox
from headrace.publish.dead_letter_topic import publish, publish_after_drain
from headrace.publish.publishers import open_publisher
from headrace.settings import ROOT
from headrace.verify import verify
from headrace.verify.readers import is_compacted
from tests.support import topics
from tests.support.airflow_environment import airflow_environment
from tests.support.command_line import assert_refused, run
from tests.support.declarations import allow_refunds, change_contract
from tests.support.interrupts import at, killed_at
from tests.support.jobs import job, servers, topic_of
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.replays import HEADERS, refund, replayed
from tests.support.stage import Stage

Found = dict[str, tuple[bytes | None, dict[str, bytes]]]  # message key to value and headers


def dead_letter_topic(stage: Stage) -> str:
    return f"{topic_of(stage)}_dlq"


@pytest.fixture
def declared(stage: Stage) -> Stage:
    """A stage whose jobs declare a dead-letter topic that does not exist yet."""
    change_contract(stage, ("partitions=3", f'partitions=3, dead_letter_topic="{dead_letter_topic(stage)}"'))
    return stage


def published(stage: Stage, **options: Any) -> int:
    return publish(stage.deployment, stage.deployment.dataset("jobs"), **options)


def drain_bad(stage: Stage, count: int, first: int = 0) -> None:
    """Dead letters of every partition, and rows between them."""
    numbers = range(first, first + count)
    bad: list[topics.Message] = [(n % 3, b"bad-%d" % n, b"bad %d" % n) for n in numbers]
    topics.send(servers(stage), topic_of(stage), [*bad, *((n % 3, b"%d" % n, job(n)) for n in numbers)])
    drain_dataset(stage.deployment, "jobs")


def messages(stage: Stage) -> list[tuple[str, bytes | None, dict[str, Any]]]:
    """All that the dead-letter topic holds."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": servers(stage), "group.id": "outbox-test", "enable.partition.eof": True}
    )
    try:
        known = consumer.list_topics(dead_letter_topic(stage), timeout=10).topics[dead_letter_topic(stage)].partitions
        left = set(known)
        consumer.assign([confluent_kafka.TopicPartition(dead_letter_topic(stage), p, 0) for p in known])
        found: list[tuple[str, bytes | None, dict[str, Any]]] = []
        while left:
            message = consumer.poll(10)
            assert message is not None, "the dead-letter topic ended nowhere"
            error = message.error()
            if error is not None:
                assert error.code() == confluent_kafka.KafkaError._PARTITION_EOF, error
                left.discard(message.partition())
                continue
            key, headers = message.key(), dict(message.headers() or ())
            assert key is not None
            found.append((key.decode(), message.value(), headers))
        return found
    finally:
        consumer.close()


def expected(stage: Stage) -> Found:
    """What the table says that the topic holds."""
    rows = stage.query(
        'select generation, partition, "offset", key, value, reason, detail, json_path, '
        "(extract(epoch from \"timestamp\") * 1000)::bigint, headers from headrace.dead_letters where dataset = 'jobs'"
    )
    found: Found = {}
    for generation, partition, offset, key, value, reason, detail, json_path, timestamp, headers in rows:
        texts = {
            "reason": reason,
            "detail": detail,
            "json_path": json_path,
            "dataset": "jobs",
            "generation": generation,
            "partition": partition,
            "offset": offset,
            "original_timestamp": timestamp,
        }
        expected_headers = {name: str(text).encode() for name, text in texts.items() if text is not None}
        if key is not None:
            expected_headers["original_key"] = key
        if headers:
            expected_headers["original_headers"] = headers
        found[f"jobs/{generation}/{partition}/{offset}"] = (value, expected_headers)
    return found


def assert_published(stage: Stage, *, repeats: int = 0) -> None:
    """Assert check 7: the topic, repeats dropped, is the table; a repeat is the same message again."""
    sent = messages(stage)
    found: Found = {}
    for key, value, headers in sent:
        if "original_headers" in headers:
            headers["original_headers"] = json.loads(headers["original_headers"])
        assert found.setdefault(key, (value, headers)) == (value, headers)
    assert found == expected(stage)
    assert len(sent) - len(found) == repeats
    assert stage.value("select count(*) from headrace.dead_letters where published_at is null") == 0


def configure(stage: Stage, topic: str, **configs: str) -> None:
    with topics.admin(servers(stage)) as client:
        dotted = {name.replace("_", "."): value for name, value in configs.items()}
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, dotted)])


def test_drain_publishes_its_dead_letters_to_the_declared_topic(declared: Stage) -> None:
    configure(declared, topic_of(declared), max_message_bytes="2000000")
    huge = b"x" * 1_900_000
    with topics.producer(servers(declared)) as client:
        client.send(topic_of(declared), partition=0, key=b"k", value=b"\xff\x00", timestamp_ms=5, headers=HEADERS)
        client.send(topic_of(declared), partition=1, key=None, value=b"bad")
        client.send(topic_of(declared), partition=1, key=b"", value=None)
        client.send(topic_of(declared), partition=2, key=b"huge", value=huge)
        client.send(topic_of(declared), partition=2, key=b"902", value=job(902))
        client.flush()
    outcome = run(declared, "drain", "jobs")
    assert outcome.stdout.endswith("\njobs: 4 dead letters published\n")
    assert outcome.stderr == ""
    assert_published(declared)
    assert len(messages(declared)) == 4
    with topics.admin(servers(declared)) as client:
        described = client.describe_topics([dead_letter_topic(declared)])[0]
    assert len(described["partitions"]) == 1
    assert "published" not in run(declared, "drain", "jobs").stdout
    drain_bad(declared, 6)
    assert published(declared) == 6
    assert_published(declared)
    assert_ledger(declared)
    assert_nothing_left(declared)


def test_publisher_killed_before_it_marked_sends_again_and_nothing_else(declared: Stage) -> None:
    drain_bad(declared, 30)
    killed_at("sent", published, declared)
    assert_nothing_left(declared)
    assert declared.value("select count(published_at) from headrace.dead_letters") == 0
    assert len(messages(declared)) == 30
    assert published(declared) == 30
    assert_published(declared, repeats=30)
    assert published(declared) == 0


def test_publishers_at_once_send_each_dead_letter_once(declared: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAGE_ROWS", 10)
    drain_bad(declared, 50)
    arrived, let_go = Event(), Event()

    def waits() -> None:
        arrived.set()
        let_go.wait(20)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(
            publish,
            declared.deployment,
            declared.deployment.dataset("jobs"),
            barrier=at("sent", waits, occurrence=1),
        )
        assert arrived.wait(20)
        assert published(declared) == 40
        drain_bad(declared, 9, first=50)  # nobody waits for a publisher
        let_go.set()
        assert first.result(30) == 19
    assert_published(declared)


def test_publishing_that_fails_neither_fails_the_drain_nor_loses_a_dead_letter(
    declared: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    drain_bad(declared, 8)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed_port = listener.getsockname()[1]
    options = {"bootstrap_servers": [f"127.0.0.1:{closed_port}"], "bootstrap_timeout_ms": 500}
    unreachable = replace(declared.deployment, kafka=lambda: options)
    with caplog.at_level(logging.WARNING, "headrace"):
        assert publish_after_drain(unreachable, declared.deployment.dataset("jobs")) == 0
    logged = [record.getMessage() for record in caplog.records if record.name == "headrace.publish.dead_letter_topic"]
    assert len(logged) == 1
    assert logged[0].startswith(f"jobs: dead letters not published: kafka: 127.0.0.1:{closed_port} did not answer: ")
    assert logged[0].endswith("; the next run tries again")
    assert "\n" not in logged[0]
    assert declared.value("select count(published_at) from headrace.dead_letters") == 0
    assert_ledger(declared)
    outcome = run(declared, "drain", "jobs")
    assert outcome.stdout == "jobs: nothing new\njobs: 8 dead letters published\n"
    assert_published(declared)


def test_publishing_to_a_topic_that_takes_nothing_goes_on_once_it_does(declared: Stage) -> None:
    # any message is older than now when the broker looks at it
    topics.create(servers(declared), dead_letter_topic(declared), 2, message_timestamp_before_max_ms="0")
    drain_bad(declared, 8)
    with pytest.raises(SourceUnavailable, match=r"_dlq: dead letters were not accepted: .* out of range.*; 0 were"):
        published(declared)
    assert declared.value("select count(published_at) from headrace.dead_letters") == 0
    configure(declared, dead_letter_topic(declared), message_timestamp_before_max_ms="9999999")
    assert published(declared) == 8
    assert_published(declared)


def test_publishing_a_dead_letter_that_the_topic_does_not_hold_sends_the_others_and_names_it(declared: Stage) -> None:
    topics.create(servers(declared), dead_letter_topic(declared), 1, max_message_bytes="3000")
    topics.send(servers(declared), topic_of(declared), [(0, b"big", Random(1).randbytes(9_000))])
    drain_bad(declared, 40)
    topics.send(servers(declared), topic_of(declared), [(1, b"big", Random(2).randbytes(9_000))])
    drain_bad(declared, 3, first=40)
    with pytest.raises(SourceUnavailable) as caught:
        published(declared)
    assert str(caught.value) == (
        f"{dead_letter_topic(declared)}: 2 dead letters are larger than the topic's max.message.bytes, the first is "
        "jobs[0] 0; 43 others were published; raise it and run `headrace dead-letters jobs --publish`"
    )
    configure(declared, dead_letter_topic(declared), max_message_bytes="30000")
    outcome = run(declared, "dead-letters", "jobs", "--publish")
    assert outcome.stdout == f"jobs: 2 dead letters published to {dead_letter_topic(declared)}\n"
    assert_published(declared)


def test_publishing_without_a_declared_topic_does_nothing_until_there_is_one(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101)), (0, b"bad", b"bad")])
    assert "published" not in run(stage, "drain", "jobs").stdout
    assert published(stage) == 0
    assert_refused(run(stage, "dead-letters", "jobs", "--publish"), "jobs: declares no dead-letter topic")
    assert stage.value("select count(published_at) from headrace.dead_letters") == 0
    allow_refunds(stage)
    assert replayed(stage).staged == 1
    change_contract(stage, ("partitions=3", f'partitions=3, dead_letter_topic="{dead_letter_topic(stage)}"'))
    listed = run(stage, "dead-letters", "jobs").stdout
    assert listed.startswith("jobs: 1 dead letters, 1 more were replayed; 2 not yet published\n")
    assert published(stage) == 2
    assert_published(stage)


def test_client_options_of_a_follower_reach_every_client(declared: Stage) -> None:
    options = {"bootstrap_timeout_ms": 2_000}  # as `follow` has them
    deployment = replace(declared.deployment, kafka=lambda: options | dict(declared.deployment.kafka()))
    dataset = deployment.dataset("jobs")
    with open_publisher(deployment, dataset) as publisher:
        publisher.send(b"1|" + job(1))
        publisher.send(b"2|{")
    drain_dataset(deployment, "jobs")
    assert publish(deployment, dataset) == 1
    assert [finding.line() for finding in verify(deployment, "jobs", deep=True).findings] == []
    assert not is_compacted(topic_of(declared), deployment.kafka())


RUN_TASKS = """
import runpy, sys
from pathlib import Path
import headrace.airflow.connections as connections
from headrace.airflow.operators import DrainOperator, PlanOperator
from headrace.postgres.ledger import RunContext

connections.run_context = lambda: RunContext("the_dag", "the_run", "the_task", 1)
folder, dags = map(Path, sys.argv[1:])
plan = PlanOperator(task_id="plan", dataset="jobs")
for share in plan.execute({}):
    print("drained", DrainOperator(task_id="drain", dataset="jobs", share=share).execute({})["dead"])
print("planned", plan.execute({}))
with connections.deployment().connect("test")() as connection:
    connection.execute("update headrace.dead_letters set published_at = null")
print("planned", plan.execute({}))  # there is nothing to drain, and two to publish

declared = folder / "jobs.py"
declared.write_text(declared.read_text().replace("Annotated[Numeric, Field(ge=0)]", "Numeric"))
replay = runpy.run_path(str(dags / "replay_dead_letters.py"))["replay_dead_letters"]


class Events(dict):
    def __missing__(self, alias):
        self[alias] = self
        return self

    def add(self, asset):
        print("event", asset.uri)


for reason in ("", "", "wrong_type"):
    params = {"dataset": "jobs", "reason": reason, "dry_run": False}
    print("replayed", replay.get_task("replay").python_callable(params, Events())["staged"])
"""


def test_dags_publish_what_a_run_left_behind_and_announce_what_a_replay_staged(declared: Stage, tmp_path: Path) -> None:
    extra = {"cursor": "dictcursor", "sqlalchemy_scheme": "postgresql+psycopg", "iam": False, "keepalives": True}
    environ = airflow_environment(declared, tmp_path / "airflow", postgres_extra=extra)
    sent: list[topics.Message] = [(0, b"101", refund(101)), (1, b"bad", b"bad")]
    topics.send(servers(declared), topic_of(declared), sent)
    command = [sys.executable, "-c", RUN_TASKS, environ["HEADRACE_DATASETS_DIR"], str(ROOT / "dags")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith(("drained", "planned", "event", "replayed"))]
    assert told == [
        "drained 2", "planned []", "planned []", "event headrace://staging/jobs", "replayed 1", "replayed 0",
        "replayed 0",
    ]  # fmt: skip
    assert done.stdout.count("jobs: 2 dead letters published\n") == 2
    assert declared.query("select dag_id, run_id, task_id from headrace.batches where kind = 'replay'") == [
        ("the_dag", "the_run", "the_task")
    ]
    assert_published(declared, repeats=2)
