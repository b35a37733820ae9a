"""A topic with gaps, an aborted transaction, tombstones and dead letters, and the stage that drained it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from kafka import KafkaProducer

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.settings import Settings
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_topics import ensure_topic
from headrace.verify import verify
from headrace.verify.report import Finding, Verification
from tests.support.databases import passing_database
from tests.support.jobs import job
from tests.support.stage import Stage

# partition 0: 10 jobs and their marker, 3 aborted records and theirs, a dead letter, a tombstone, 10 jobs, a marker
DEAD, TOMBSTONE, END = 15, 16, 28
ONE_ROW = "_generation = 1 and _partition = 0 and _offset = %d"


@dataclass(frozen=True, slots=True)
class Drained:
    """A stage whose topic was drained, in batches of at most 8 records."""

    stage: Stage
    topic: str
    bootstrap_servers: str

    def execute(self, statement: str, *parameters: Any) -> None:
        """Change the database as no loader would: constraints by trigger are off."""
        with psycopg.connect(self.stage.dsn, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            connection.execute(statement, parameters or None)

    def verify(self, *, deep: bool = False, **options: Any) -> Verification:
        """`headrace verify jobs`."""
        return verify(self.stage.deployment, "jobs", deep=deep, **options)

    def assert_found(self, check: str, offset: int | None, *, partition: int | None = 0, deep: bool = False) -> Finding:
        """The check has a finding, and its first one names this offset."""
        verification = self.verify(deep=deep)
        lines = list(verification.lines())
        assert not verification.is_clean
        found = [finding for finding in verification.findings if finding.check == check]
        assert found, lines
        assert (found[0].partition, found[0].offset) == (partition, offset), lines
        return found[0]


def drained_topic(name: str, postgres_dsn: str, bootstrap_servers: str, home: Path, folder: Path) -> Iterator[Drained]:
    """Fill a topic of this name and drain it into a database of this name, which is dropped at the end."""
    declared = Settings().datasets_dir
    (folder / "users.py").write_text((declared / "users.py").read_text())
    (folder / "jobs.py").write_text((declared / "jobs.py").read_text().replace('topic="jobs"', f'topic="{name}"'))
    ensure_topic({"bootstrap_servers": bootstrap_servers}, name, 3)
    with passing_database(postgres_dsn, name) as dsn:
        settings = Settings(
            home=home,
            postgres_dsn=dsn,
            kafka_bootstrap_servers=bootstrap_servers,
            datasets_dir=folder,
            batch_rows=8,
        )
        deployment = Deployment.from_settings(settings)
        initialise(deployment)
        drained = Drained(Stage(deployment, dsn), name, bootstrap_servers)
        _produce(drained)
        drain_dataset(deployment, "jobs")
        yield drained


def _produce(drained: Drained) -> None:
    producer, topic = open_producer(drained, transactional_id=drained.topic), drained.topic
    producer.init_transactions()
    _send(producer, topic, [verified_job(n) for n in range(10)])
    _send(producer, topic, [verified_job(n) for n in range(90, 93)], abort=True)
    _send(producer, topic, [(b"999", b'{"JOBIDENTIFIER": 999}'), (b"3", None), *map(verified_job, range(20, 30))])
    _send(producer, topic, [verified_job(n, CHANNEL="web", RATE=1.50, ZERO=-0.0) for n in range(30, 50)], partition=1)
    _send(producer, topic, [verified_job(n) for n in range(50, 55)], partition=2)
    producer.close()
    _wait_until_stable(drained)


def _wait_until_stable(drained: Drained) -> None:
    # a commit returns before its markers are written: a drain that is quick stops before the last transaction
    source = KafkaSource(drained.topic, {"bootstrap_servers": drained.bootstrap_servers})
    deadline = time.monotonic() + 10
    while any(p.end_offset < p.high_watermark for p in source.describe().partitions.values()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    source.close()


def open_producer(drained: Drained, **options: Any) -> KafkaProducer:
    """A producer that waits for all replicas."""
    return KafkaProducer(bootstrap_servers=drained.bootstrap_servers, acks="all", **options)


def verified_job(number: int, **extra: Any) -> tuple[bytes, bytes]:
    """Key and value of a job; `extra` is added to its fields."""
    fields = {"JOBDATE": "2019-03-01T11:00:00.123456+02:00", "REVENUE": 12.50 + number, "USERID": number}
    return b"%d" % number, job(number, **fields, **extra)


def _send(
    producer: KafkaProducer,
    topic: str,
    records: list[tuple[bytes, bytes | None]],
    *,
    partition: int = 0,
    abort: bool = False,
) -> None:
    producer.begin_transaction()
    for key, value in records:
        producer.send(topic, key=key, value=value, partition=partition, headers=[("trace", key), ("raw", b"\xff\x00")])
    producer.flush()
    if abort:
        producer.abort_transaction()
    else:
        producer.commit_transaction()
