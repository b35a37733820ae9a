"""Topics for tests: exact partitions, aborted transactions, deleted records, recreation."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.record.memory_records import MemoryRecordsBuilder

from headrace.exceptions import TopicMissing
from headrace.sources.kafka import KafkaSource

CODECS = (None, "gzip", "snappy", "lz4", "zstd")
Message = tuple[int, bytes | None, bytes | None]  # partition, key, value


@contextmanager
def admin(servers: str) -> Iterator[Any]:
    """An admin client that is closed at the end."""
    client = KafkaAdminClient(bootstrap_servers=servers)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def producer(servers: str, **config: Any) -> Iterator[Any]:
    """A producer that is closed at the end."""
    client = KafkaProducer(
        bootstrap_servers=servers,
        acks="all",
        linger_ms=5,
        max_request_size=32 * 1024 * 1024,
        metrics_enabled=False,
        **config,
    )
    try:
        yield client
    finally:
        client.close(timeout=5)


def send(servers: str, topic: str, messages: Iterable[Message], *, codec: str | None = None) -> list[tuple[int, int]]:
    """Send messages; return their coordinates, as the broker acknowledged them."""
    with producer(servers, compression_type=codec) as client:
        futures = [client.send(topic, partition=p, key=key, value=value) for p, key, value in messages]
        client.flush()
        metadata = [future.get(10) for future in futures]
    return [(found.partition, found.offset) for found in metadata]


def send_batch(servers: str, topic: str, partition: int, batch: bytes) -> None:
    """Send a record batch as it is."""
    with pytest.MonkeyPatch.context() as patch, producer(servers, enable_idempotence=False) as client:
        patch.setattr(MemoryRecordsBuilder, "buffer", lambda _: batch)
        client.send(topic, partition=partition, value=b"in its place").get(60)


def send_in_transaction(servers: str, topic: str, messages: Iterable[Message], *, commit: bool) -> None:
    """Send messages in one transaction, which is committed or aborted."""
    with producer(servers, transactional_id=f"{topic}-{time.monotonic_ns()}") as client:
        client.init_transactions()
        client.begin_transaction()
        for p, key, value in messages:
            client.send(topic, partition=p, key=key, value=value)
        client.flush()
        if commit:
            client.commit_transaction()
        else:
            client.abort_transaction()


def create(servers: str, topic: str, partitions: int, **configs: str) -> None:
    """Create a topic; configs are Kafka's, with _ for every dot."""
    with admin(servers) as client:
        dotted = {name.replace("_", "."): value for name, value in configs.items()}
        client.create_topics({topic: {"num_partitions": partitions, "configs": dotted}}, wait_for_metadata=True)


def delete(servers: str, topic: str) -> None:
    """Delete a topic and wait until it is gone."""
    with admin(servers) as client:
        client.delete_topics([topic])
    source = KafkaSource(topic, {"bootstrap_servers": servers})
    try:
        while True:
            try:
                source.topic_id()
            except TopicMissing:
                return
            time.sleep(0.05)
    finally:
        source.close()


def delete_records(servers: str, topic: str, starts: dict[int, int]) -> None:
    """Let partitions begin at the given offsets, as retention would."""
    with admin(servers) as client:
        client.delete_records({TopicPartition(topic, p): offset for p, offset in starts.items()})


def wait_for_end(servers: str, topic: str, ends: Sequence[int]) -> None:
    """Wait until the partitions' last stable offsets are what they should be: markers are written late."""
    source = KafkaSource(topic, {"bootstrap_servers": servers})
    try:
        for _ in range(200):
            found = [state.end_offset for state in source.describe().partitions.values()]
            if found == list(ends):
                return
            time.sleep(0.02)
        raise AssertionError(f"{topic}: ends are {found}, expected {list(ends)}")
    finally:
        source.close()
