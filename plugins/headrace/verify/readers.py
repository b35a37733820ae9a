"""Reading the source a second time, by another path than the loader's.

The drain trusts kafka_source and file_source; a verification that did too would share their mistakes.
"""

import gzip
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from headrace.exceptions import FileSourceError, SourceError, SourceUnavailable

# offset, key, value, headers, timestamp in milliseconds
VisibleRecord = tuple[int, bytes | None, bytes | None, Sequence[tuple[str, bytes | None]], int | None]

SILENCE_MAX_S = 20.0
POLL_TIMEOUT_MS = 500
REQUEST_TIMEOUT_MS = 15_000
MAX_POLL_RECORDS = 500  # a poll unpacks them all: with values of 1 MB half a gigabyte; more read no faster
UNREADABLE = (OSError, EOFError)


class RecordReader(Protocol):
    """Another client of the source; any that yields what a read_committed consumer sees will do."""

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the visible records of [start, end) of a partition in offset order, then end."""

    def close(self) -> None:
        """Let go of connections."""


class TopicReader:
    """A read_committed consumer, one partition at a time, from an offset up to another."""

    def __init__(self, topic: str, client_config: Mapping[str, Any]) -> None:
        self._topic = topic
        self._config = client_config
        self._consumer: Any = None

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the visible records; raises SourceUnavailable after 20 s without progress."""
        if start >= end:
            return
        from kafka import TopicPartition
        from kafka.errors import KafkaError

        place = TopicPartition(self._topic, partition)
        try:
            consumer = self._connected()
            consumer.assign([place])
            consumer.seek(place, start)
            position, moved_at = start, time.monotonic()
            while position < end:
                for record in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).get(place, ()):
                    if record.offset >= end:
                        return
                    yield record.offset, record.key, record.value, record.headers, record.timestamp
                reached = consumer.position(place, timeout_ms=REQUEST_TIMEOUT_MS)
                if reached is not None and reached > position:
                    position, moved_at = reached, time.monotonic()
                elif time.monotonic() - moved_at > SILENCE_MAX_S:
                    raise SourceUnavailable(
                        f"{self._topic}[{partition}]: no progress at {position} for {SILENCE_MAX_S:.0f} s, expected to "
                        f"reach {end}; check the broker and run the same command again"
                    )
        except (KafkaError, UnicodeDecodeError) as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise SourceError(
                f"{self._topic}[{partition}]: {text}; check the broker, run the same command again"
            ) from error

    def close(self) -> None:
        """Close the consumer."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
            self._consumer = None

    def _connected(self) -> Any:
        if self._consumer is None:
            from kafka import KafkaConsumer

            self._consumer = KafkaConsumer(
                **self._config,
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                bootstrap_timeout_ms=8_000,
                request_timeout_ms=REQUEST_TIMEOUT_MS,
                metrics_enabled=False,
                max_poll_records=MAX_POLL_RECORDS,
                max_partition_fetch_bytes=8 * 1024 * 1024,
                fetch_max_wait_ms=100,
            )
        return self._consumer


class FileReader:
    """The lines of a file; a line's number, from 1, is its offset, and a blank one holds no record."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the lines that hold something; raises FileSourceError when the file cannot be read."""
        try:
            with self._open() as file:
                for number, line in enumerate(file, start=1):
                    if number >= end:
                        return
                    if number >= start and line.strip():
                        yield number, None, line.rstrip(b"\r\n"), (), None
        except UNREADABLE as error:
            raise FileSourceError(f"{self._path}: cannot be read: {error}; name a file that you may read") from error

    def close(self) -> None:
        """Nothing stays open."""

    def _open(self) -> BinaryIO:
        if self._path.suffix == ".gz":
            return cast(BinaryIO, gzip.open(self._path, "rb"))
        return self._path.open("rb")


def is_compacted(topic: str, client_config: Mapping[str, Any]) -> bool:
    """Whether the topic's cleanup.policy lets the broker drop records that the loader has read.

    False where the client may not ask: then every row has to have its record.
    """
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(**client_config, bootstrap_timeout_ms=8_000)
        try:
            described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        finally:
            admin.close()
    except KafkaError:
        return False
    policy = described.get("topic", {}).get(topic, {}).get("cleanup.policy", {}).get("value")
    return "compact" in str(policy)
