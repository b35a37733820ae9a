"""Second readers of the sources, independent of the loader's.

The drain uses sources.kafka, sources.redis and sources.file; a verification with them would share their mistakes.
"""

import gzip
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from headrace.exceptions import FileSourceError, SourceError, SourceUnavailable
from headrace.optional import needs
from headrace.origin import Origin
from headrace.record import Headers
from headrace.sources import file_lines
from headrace.sources.bounds import Bounds, oversized_entry
from headrace.sources.kafka_security import refusal

# offset, key, value, headers, timestamp in milliseconds
VisibleRecord = tuple[int, bytes | None, bytes | None, Headers, int | None]

SILENCE_MAX_S = 20.0
POLL_TIMEOUT_MS = 500
REQUEST_TIMEOUT_MS = 15_000
MAX_POLL_RECORDS = 500  # a poll unpacks them all: half a gigabyte with values of 1 MB; more are no faster
UNREADABLE = (OSError, EOFError)
PAGE_ENTRIES = 500
PAGE_BYTES = 4 * 1024 * 1024  # limits the entries of a page, by the sizes in the last page


class RecordReader(Protocol):
    """An independent client of the source that yields what a read_committed consumer sees."""

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the visible records of [start, end) of a partition in offset order, then stop."""

    def close(self) -> None:
        """Close connections."""


class TopicReader:
    """A read_committed consumer of one partition at a time."""

    def __init__(self, topic: str, client_config: Mapping[str, Any], bounds: Bounds | None = None) -> None:
        self._topic = topic
        self._config = client_config
        self._bounds = bounds
        self._consumer: Any = None

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the visible records; raises SourceUnavailable after 20 s without progress."""
        if start >= end:
            return
        from kafka import TopicPartition
        from kafka.errors import KafkaError

        from headrace.sources.kafka_batches import UnreadableBatch

        topic_partition = TopicPartition(self._topic, partition)
        try:
            consumer = self._connected()
            consumer.assign([topic_partition])
            consumer.seek(topic_partition, start)
            position, moved_at = start, time.monotonic()
            while position < end:
                for record in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).get(topic_partition, ()):
                    if record.offset >= end:
                        return
                    yield record.offset, record.key, record.value, raw_names(record.headers), record.timestamp
                reached = consumer.position(topic_partition, timeout_ms=REQUEST_TIMEOUT_MS)
                if reached is not None and reached > position:
                    position, moved_at = reached, time.monotonic()
                elif time.monotonic() - moved_at > SILENCE_MAX_S:
                    raise SourceUnavailable(
                        f"{self._topic}[{partition}]: no progress at {position} for {SILENCE_MAX_S:.0f} s, expected to "
                        f"reach {end}; check the broker and run the same command again"
                    )
        except UnreadableBatch as error:
            raise error.as_ours() from error
        except KafkaError as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise refusal(error, self._config, self._topic) or SourceError(
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

            from headrace.sources.kafka_batches import tolerate

            self._consumer = KafkaConsumer(
                **{"bootstrap_timeout_ms": 8_000, "request_timeout_ms": REQUEST_TIMEOUT_MS, **self._config},
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="none",
                allow_auto_create_topics=False,
                metrics_enabled=False,
                max_poll_records=MAX_POLL_RECORDS,
                max_partition_fetch_bytes=8 * 1024 * 1024,
                fetch_max_wait_ms=100,
            )
            tolerate(self._consumer, self._bounds or Bounds())
        return self._consumer


class TopicsReader:
    """The same of several topics: a reader for each, and the partitions by their numbers in the dataset."""

    def __init__(self, origins: Mapping[int, Origin], client_config: Mapping[str, Any], bounds: Bounds) -> None:
        self._origins = origins
        self._readers = {
            topic: TopicReader(topic, client_config, bounds) for topic in {origin.topic for origin in origins.values()}
        }

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the visible records of the topic's partition that has this number."""
        origin = self._origins[partition]
        yield from self._readers[origin.topic].visible_records(origin.partition, start, end)

    def close(self) -> None:
        """Close the consumers."""
        for reader in self._readers.values():
            reader.close()


def raw_names(headers: Headers) -> Headers:
    """Headers with names that are not UTF-8 as bytes (kafka_batches.RawName); the rejection of a record not kept."""
    if hasattr(headers, "rejection"):
        return headers
    return [(getattr(name, "raw", name), value) for name, value in headers]


class FileReader:
    """The lines of a file; a line's number, from 1, is its offset, and a blank line is empty."""

    def __init__(self, path: Path, unpacked_bytes: int | None = None) -> None:
        self._path = path
        self._is_packed = path.suffix == ".gz"
        self._unpacked_bytes = unpacked_bytes

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the lines that are not blank; raises FileSourceError if the file cannot be read."""
        try:
            with self._open() as file:
                limit = file_lines.Expansion(self._path, self._unpacked_bytes)
                left = limit.bytes
                for number, line in enumerate(iter(lambda: file.readline(file_lines.LINE_BYTES_MAX + 1), b""), start=1):
                    if number >= end:
                        return
                    if len(line) > file_lines.LINE_BYTES_MAX:
                        raise file_lines.too_long(self._path, number)
                    left -= len(line)
                    if self._is_packed and left < 0:
                        raise limit.too_many_bytes()
                    if self._is_packed and number > limit.rows:
                        raise limit.too_many_rows()
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")  # a byte order mark
                    if number >= start and line.strip():
                        yield number, None, line.rstrip(b"\r\n"), (), None
        except UNREADABLE as error:
            raise FileSourceError(f"{self._path}: cannot be read: {error}; name a file that you may read") from error

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _open(self) -> BinaryIO:
        file = file_lines.open_regular(self._path)
        return cast(BinaryIO, gzip.open(file, "rb")) if self._is_packed else file


class StreamReader:
    """A Redis stream's entries by XRANGE, up to the id of the checkpoint.

    stored: offset and key of everything stored of [start, end), in offset order. An entry's offset is the number of
    entries added before it, counted from the first one that exists. After XDEL counting is impossible: then its offset
    is the one under which its id is stored, and an entry that is not stored follows the one before it.
    """

    def __init__(
        self,
        stream: str,
        url: str,
        until: str,
        stored: Callable[[int, int], Iterator[tuple[int, bytes | None]]],
        bounds: Bounds | None = None,
    ) -> None:
        self._stream = stream
        self._until = until
        self._stored = stored
        self._bounds = bounds or Bounds()
        with needs("redis"):
            from headrace.sources import redis_answers
        self._answers = redis_answers
        self._client = redis_answers.client(url, self._bounds.record_bytes, socket_connect_timeout=5, socket_timeout=30)

    def has_deletions(self) -> bool:
        """Whether entries were ever deleted one by one, by XDEL."""
        return bool(self._page("-", 1)[0]["max-deleted-entry-id"] != b"0-0")

    def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
        """Yield the entries; raises SourceUnavailable when no server answers or the stream was trimmed meanwhile."""
        info, entries = self._page("-", 1)
        counts = info["max-deleted-entry-id"] == b"0-0"
        is_whole = self._answers.is_whole
        offset = info["entries-added"] - info["length"] - 1
        ordinals = None if counts else _StoredOrdinals(self._stored(start, end), start)
        while entries:
            whole = next((i for i, (_, fields) in enumerate(entries) if not is_whole(fields)), len(entries))
            del entries[max(whole, 1) :]  # the entries that did not fit; a first one that does not fit never will
            for entry_id, fields in entries:
                offset = offset + 1 if ordinals is None else ordinals.find(entry_id)
                if offset >= end:
                    return
                if offset >= start and is_whole(fields):
                    yield offset, entry_id, self._value(fields), (), int(entry_id.split(b"-")[0])
                elif offset >= start:
                    large = oversized_entry(self._bounds, offset, entry_id, self._answers.bytes_of(fields))
                    yield offset, entry_id, None, large.headers, large.timestamp
            heaviest = max(self._answers.bytes_of(fields) for _, fields in entries)
            room = min(2 * len(entries), PAGE_ENTRIES, PAGE_BYTES // max(heaviest, 1))
            info, entries = self._page(f"({entries[-1][0].decode()}", max(room, 1))
            if counts and (
                info["max-deleted-entry-id"] != b"0-0" or info["entries-added"] - info["length"] > offset + 1
            ):
                raise SourceUnavailable(
                    f"{self._stream}: entries were trimmed or deleted while they were read again; run the same command "
                    "again"
                )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _page(self, start: str, count: int) -> tuple[dict[str, Any], list[tuple[bytes, list[bytes]]]]:
        from redis.exceptions import RedisError

        try:
            with self._client.pipeline(transaction=True) as pipeline:
                pipeline.xrange(self._stream, start, self._until, count)
                pipeline.xinfo_stream(self._stream)
                entries, info = pipeline.execute()
        except RedisError as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise SourceUnavailable(
                f"{self._stream}: {text}; check the server and run the same command again"
            ) from error
        return info, entries

    def _value(self, fields: list[bytes]) -> bytes:
        names, texts = fields[0::2], fields[1::2]
        if len(names) == 1 and texts[0].lstrip().startswith(b"{"):
            return texts[0]
        members = [_json_text(name) + b":" + _json_text(text) for name, text in zip(names, texts, strict=True)]
        return b"{%s}" % b",".join(members)


class _StoredOrdinals:
    """The stored offsets of a stream's ids, in the stream's order."""

    def __init__(self, stored: Iterator[tuple[int, bytes | None]], start: int) -> None:
        self._stored = ((offset, key) for offset, key in stored if key and re.fullmatch(rb"\d+-\d+", key))
        self._next = next(self._stored, None)
        self._last = start - 1

    def find(self, entry_id: bytes) -> int:
        """The offset of an id, or the one after the previous id's."""
        while self._next is not None and _order(self._next[1]) < _order(entry_id):
            self._last, self._next = self._next[0], next(self._stored, None)
        if self._next is not None and self._next[1] == entry_id:
            self._last, self._next = self._next[0], next(self._stored, None)
        else:
            self._last += 1
        return self._last


def _order(entry_id: bytes) -> list[int]:
    return [int(number) for number in entry_id.split(b"-")]


def _json_text(raw: bytes) -> bytes:
    return b'"%s"' % re.sub(
        rb'[\x00-\x1f"\\]',
        lambda found: b"\\" + found[0] if found[0] in b'"\\' else b"\\u00" + found[0].hex().encode(),
        raw,
    )


def is_compacted(topic: str, client_config: Mapping[str, Any]) -> bool:
    """Whether the topic's cleanup.policy lets the broker drop records that were read.

    False if the client may not ask: then every row must have its record.
    """
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(**{"bootstrap_timeout_ms": 8_000, **client_config})
        try:
            described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
        finally:
            admin.close()
    except KafkaError:
        return False
    policy = described.get("topic", {}).get(topic, {}).get("cleanup.policy", {}).get("value")
    return "compact" in str(policy)
