"""What goes into a topic, with the producer's own record of it: the checker's first truth.

Everything is chosen by a seeded random: valid and bad jobs, tombstones, keys and headers of every kind, in plain
sends and in transactions that commit, abort or hang.
"""

import hashlib
import itertools
import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from confluent_kafka import KafkaError, Message, Producer

from headrace.sample.generate import generate_jobs

PartitionOffset = tuple[int, int]  # partition, offset
Headers = tuple[tuple[str, bytes | None], ...]
Fate = Literal["visible", "aborted", "open"]

HEADERS: list[Headers] = [
    (),
    (("source", b"web"),),
    (("retry", b"1"), ("retry", b"2")),
    (("binary", b"\x00\xff\xfe"), ("none", None)),
    (("empty", b""), ("naïve", "größer".encode())),
]
FLUSH_S = 60


@dataclass(slots=True)
class Produced:
    """A record as it was sent."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int
    fate: Fate

    @property
    def digest(self) -> str:
        """A hash over all fields; None and empty differ."""
        return digest(self.key, self.value, self.headers, self.timestamp)


def digest(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes | None]], timestamp: int) -> str:
    """sha256 over a record."""
    parts = repr((key, value, tuple(headers), timestamp))
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


@dataclass
class Log:
    """One topic from its creation to its deletion, as its producer knows it."""

    topic: str
    partitions: int
    records: dict[PartitionOffset, Produced] = field(default_factory=dict)
    open: list[Produced] = field(default_factory=list)  # of the open transaction
    starts: dict[int, int] = field(default_factory=dict)  # where retention has moved a log's start
    lost: list[tuple[int, int, int]] = field(
        default_factory=list
    )  # ranges that retention removed before they were read

    def visible(self) -> dict[PartitionOffset, Produced]:
        """The records that a read_committed consumer sees."""
        return {coordinate: record for coordinate, record in self.records.items() if record.fate == "visible"}


class Sender:
    """Sends to topics through two confluent-kafka producers, one of them transactional."""

    def __init__(self, bootstrap_servers: str, name: str) -> None:
        common = {"bootstrap.servers": bootstrap_servers, "linger.ms": 5, "log_level": 0, "acks": "all"}
        self._plain_config = {**common, "enable.idempotence": True}
        self._transactional_config = {
            **common,
            "transactional.id": f"faults-{name}",
            "transaction.timeout.ms": 300_000,
        }
        self.renew()

    def renew(self) -> None:
        """Use new producers: the old ones continue their sequence numbers, which a recreated topic refuses."""
        self._plain = Producer(self._plain_config)
        self._transactional = Producer(self._transactional_config)
        self._transactional.init_transactions(60)
        self._known: dict[str, int] = {}  # partitions that both producers know of

    def send(self, log: Log, records: Iterable[tuple[int, Produced]], *, transaction: bool, end: Fate) -> None:
        """Send records, each to its partition, and note down what the broker acknowledged, and where.

        end: what becomes of the transaction. An open one must be ended by `end_open`.
        """
        producer = self._transactional if transaction else self._plain
        self._learn(log)
        if transaction:
            producer.begin_transaction()
        for partition, record in records:
            record.fate = end if transaction else "visible"
            if record.fate == "open":
                log.open.append(record)
            producer.produce(
                log.topic,
                key=record.key,
                value=record.value,
                partition=partition,
                timestamp=record.timestamp,
                headers=list(record.headers),
                on_delivery=_noted(log, record),
            )
            producer.poll(0)
        left = producer.flush(FLUSH_S)
        assert left == 0, f"{left} records to {log.topic} were not acknowledged in {FLUSH_S} s"
        if transaction and end == "visible":
            producer.commit_transaction(60)
        elif transaction and end == "aborted":
            producer.abort_transaction(60)

    def _learn(self, log: Log) -> None:
        """Wait until both producers know all partitions of a topic, which may just have been added."""
        deadline = time.monotonic() + FLUSH_S
        while self._known.get(log.topic, log.partitions) < log.partitions:
            found = [
                producer.list_topics(log.topic, 10).topics[log.topic] for producer in (self._plain, self._transactional)
            ]
            if all(len(topic.partitions) == log.partitions for topic in found):
                break
            assert time.monotonic() < deadline, f"{log.topic}: {log.partitions} partitions did not appear"
        self._known[log.topic] = log.partitions

    def end_open(self, log: Log, fate: Fate) -> None:
        """Commit or abort the transaction that was left open."""
        if fate == "visible":
            self._transactional.commit_transaction(60)
        else:
            self._transactional.abort_transaction(60)
        for record in log.open:
            record.fate = fate
        log.open.clear()


def _noted(log: Log, record: Produced):  # type: ignore[no-untyped-def]
    def delivered(error: KafkaError | None, message: Message) -> None:
        assert error is None, f"{log.topic}: {error}"
        partition, offset = message.partition(), message.offset()
        assert partition is not None
        assert offset is not None
        log.records[partition, offset] = record

    return delivered


class Traffic:
    """The records of one trial, by its random."""

    def __init__(self, rng: random.Random, users_file: Path) -> None:
        self._rng = rng
        self._lines = itertools.cycle(list(generate_jobs(200, rng.randrange(2**31), 14, users_file)))
        self._keys: list[bytes] = []
        self._odd_keys = itertools.cycle([b"", None, b"\xff\xfe", b"k\0"])  # in turn: each trial has the first ones

    def batch(self, count: int, partitions: int) -> list[tuple[int, Produced]]:
        """Records and the partitions that they go to."""
        rng = self._rng
        weights = rng.choice([[1] * partitions, [6, *[1] * (partitions - 1)], [*[1] * (partitions - 1), 6]])
        return [(rng.choices(range(partitions), weights)[0], self._record()) for _ in range(count)]

    def large(self, count: int, partitions: int) -> list[tuple[int, Produced]]:
        """Valid records of 2 to 60 kB, all for one partition; the producer puts several into one record batch."""
        partition = self._rng.randrange(partitions)
        records = []
        for _ in range(count):
            record = self._record()
            while not (record.value or b"").endswith(b"}"):
                record.key, _, record.value = next(self._lines).rstrip(b"\n").partition(b"|")
            assert record.value is not None
            note = b"x" * self._rng.choice([2_000, 10_000, 60_000])
            record.value = record.value[:-1] + b',"NOTES":["' + note + b'"]}'
            records.append((partition, record))
        return records

    def _record(self) -> Produced:
        rng = self._rng
        key: bytes | None
        value: bytes | None
        key, _, value = next(self._lines).rstrip(b"\n").partition(b"|")
        roll = rng.random()
        if roll < 0.06 and self._keys:
            key, value = rng.choice(self._keys), None
        elif roll < 0.07:
            key, value = next(self._odd_keys), rng.choice([None, value])
        elif roll < 0.075:
            value = value[:-1] + b',"NOTE":["' + b"x" * rng.choice([300, 20_000]) + b'"]}'
        else:
            self._keys.append(key)
        now = int(time.time() * 1000)
        timestamp = rng.choice([now, now, now, now - rng.randrange(10**9), 1, 86_400_000])
        return Produced(key, value, rng.choice(HEADERS) if rng.random() < 0.3 else (), timestamp, "visible")

    def send(self, sender: Sender, log: Log, *, least: int = 80) -> None:
        """Send at least this many visible records, in groups of which some are aborted."""
        rng = self._rng
        visible = 0
        while visible < least:
            count = rng.randint(8, 60)
            roll = rng.random()
            fate: Fate = "aborted" if roll < 0.25 else "visible"
            sender.send(log, self.batch(count, log.partitions), transaction=roll < 0.65, end=fate)
            visible += count if fate == "visible" else 0
        if rng.random() < 0.5:  # the log ends in markers of aborted or committed transactions
            fate = rng.choice(["aborted", "visible"])
            sender.send(log, self.batch(rng.randint(1, 6), log.partitions), transaction=True, end=fate)
