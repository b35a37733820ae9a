"""The second Kafka client, librdkafka: the truth that is not the loader's own."""

import time
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from tests.faults.loaders import TimedOut
from tests.faults.traffic import Log, PartitionOffset, digest


class SecondClient:
    """Reads a topic with confluent-kafka, read_committed: the second independent list of records."""

    def __init__(self, bootstrap_servers: str, log: Log) -> None:
        self._log = log
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "faults-checker",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "check.crcs": True,
                "log_level": 0,
            }
        )
        self._ends: dict[int, int] = {}
        self._seen: dict[PartitionOffset, str] = {}
        self._partitions = 0

    def read(self, ends: dict[int, int] | None) -> dict[PartitionOffset, str]:
        """Read up to these stable ends; None: the topic is deleted, and what was read is complete."""
        if ends is None:
            return self._seen
        if self._partitions != self._log.partitions:
            self._partitions = self._log.partitions
            starts = {p: self._ends.get(p, self._log.starts.get(p, 0)) for p in range(self._partitions)}
            self._consumer.assign([TopicPartition(self._log.topic, p, start) for p, start in starts.items()])
        deadline = time.monotonic() + 60
        while any(self._ends.get(p, 0) < end for p, end in ends.items()):
            if time.monotonic() > deadline:
                raise TimedOut(f"the second client read {self._log.topic} up to {self._ends}, expected {ends}")
            for message in self._consumer.consume(1_000, 0.05):
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                error = message.error()
                if error is None:
                    headers: Any = message.headers() or ()
                    raw = digest(message.key(), message.value(), headers, message.timestamp()[1])
                    self._seen[partition, offset] = raw
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._ends[partition] = offset
                elif not error.retriable() and error.code() not in (
                    KafkaError._ALL_BROKERS_DOWN,
                    KafkaError._TRANSPORT,
                ):
                    raise RuntimeError(f"{self._log.topic}[{partition}]: {error}")
        return self._seen

    def close(self) -> None:
        self._consumer.close()
