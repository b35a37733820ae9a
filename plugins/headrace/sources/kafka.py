"""Records from a Kafka topic, read by offset and without a consumer group."""

import sys
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from kafka import (
    IsolationLevel,
    KafkaAdminClient,
    KafkaConsumer,
    OffsetAndMetadata,
    OffsetSpec,
    TopicPartition,
)
from kafka.admin import OffsetTimestamp
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    UnknownTopicOrPartitionError,
    for_code,
)

from headrace.exceptions import HeadraceError, SourceUnavailable, TopicMissing
from headrace.sources.base import Chunk, PartitionState, Range, SourcePosition, SourceState
from headrace.sources.bounds import Bounds, is_kept
from headrace.sources.kafka_batches import UnreadableBatch, tolerate
from headrace.sources.kafka_errors import address, as_source_error, no_answer
from headrace.sources.kafka_metered import Metered, judged
from headrace.sources.kafka_records import Meter, PollIsFull, replace_unpacking

BOOTSTRAP_TIMEOUT_MS = 8_000
REQUEST_TIMEOUT_MS = 15_000
# Polls of 10-20 thousand records read fastest: smaller ones pay more position() look-ups. Answers of 50 MiB, and 8 MiB
# per partition, are no faster than these and cost 60 to 190 MB more.
MAX_POLL_RECORDS = 10_000
FETCH_MAX_BYTES = 8 * 1024 * 1024  # two answers may be held at once: the next is fetched while one is read
MAX_PARTITION_FETCH_BYTES = 4 * 1024 * 1024
POLL_BYTES = 16 * 1024 * 1024  # unpacked by one poll, plus at most one record
# At the end of a range in transaction markers poll() returns nothing and waits this long: with 1 s a drain of 120
# records
# took 1.3 s, with 50 ms 0.3 s.
POLL_TIMEOUT_MS = 50
# poll() sleeps this long while positions are not yet validated: three times at the start of every range
RETRY_BACKOFF_MS = 10
# The interval at which a waiting source asks again; with 100 ms twenty idle topics took 0.4 of a core.
WAIT_AT_BROKER_MS = 1_000
# poll() returns nothing both for a deleted topic and for a dead broker. So silence has a limit.
SILENT_POLLS_MAX = 400


class KafkaSource:
    """A topic. `client_config` holds kafka-python's options for bootstrap servers and security."""

    def __init__(
        self,
        topic: str,
        client_config: Mapping[str, Any],
        *,
        max_poll_records: int = MAX_POLL_RECORDS,
        max_partition_fetch_bytes: int = MAX_PARTITION_FETCH_BYTES,
        poll_bytes: int = POLL_BYTES,
        bounds: Bounds | None = None,
    ) -> None:
        self.topic = topic
        self._max_poll_records = min(max_poll_records, MAX_POLL_RECORDS)
        self._max_partition_fetch_bytes = min(max_partition_fetch_bytes, MAX_PARTITION_FETCH_BYTES)
        self._poll_bytes = min(poll_bytes, POLL_BYTES)
        self._bounds = bounds or Bounds()
        self._config = {
            "bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "metrics_enabled": False,
            **client_config,
        }
        self._admin: KafkaAdminClient | None = None
        self._waiting: KafkaConsumer | None = None

    def describe(self) -> SourceState:
        """The cluster's id, KIP-516's topic id, log starts, last stable offsets and high watermarks."""
        try:
            cluster_id = self._cluster_id()
            described = self._describe_topic()
            states = self._states([TopicPartition(self.topic, p["partition_index"]) for p in described["partitions"]])
        except KafkaError as error:
            self._raise(error)
        return SourceState(
            topic=self.topic,
            topic_id=str(described["topic_id"]),
            partitions={tp.partition: states[tp] for tp in sorted(states)},
            cluster_id=cluster_id,
        )

    def seen_from(
        self, state: SourceState, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]
    ) -> SourceState:
        """The unchanged state: topic id and offsets identify a topic."""
        return state

    def topic_id(self) -> str:
        """The current topic id (KIP-516)."""
        try:
            return str(self._describe_topic()["topic_id"])
        except KafkaError as error:
            self._raise(error)

    def cluster_id(self) -> str | None:
        """The cluster's id, which is set when its storage is formatted."""
        try:
            return self._cluster_id()
        except KafkaError as error:
            self._raise(error)

    def offsets_at(self, partitions: Iterable[int], timestamp_ms: int) -> dict[int, int | None]:
        """Per partition the first offset whose record time is at or after timestamp_ms; None if there is none.

        The broker finds it by record timestamps: if these are out of order, later records may have earlier times.
        """
        wanted = {self._place(p): OffsetTimestamp(max(timestamp_ms, 0)) for p in partitions}
        try:
            found = self._admin_client().list_partition_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED)
        except KafkaError as error:
            self._raise(error)
        return {self._number(tp): found[tp].offset if found[tp].offset >= 0 else None for tp in wanted}

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield each range's records as polls bring them; see `Source.read`."""
        wanted = {self._place(p): bounds for p, bounds in ranges.items() if bounds[0] < bounds[1]}
        if not wanted:
            return
        try:
            yield from self._poll_until_read(wanted)
        except KafkaError as error:
            self._raise(error)

    def _poll_until_read(self, wanted: dict[TopicPartition, Range]) -> Generator[Chunk]:
        positions = {tp: bounds[0] for tp, bounds in wanted.items()}
        silent_polls = 0
        unreadable: UnreadableBatch | None = None
        meter = Meter(self._poll_bytes, self._bounds)
        consumer, goes_on = self._consumer(positions, meter)
        try:
            while positions:
                meter.start()
                polled: dict[TopicPartition, Sequence[Any]] = {}
                try:
                    polled = consumer.poll(timeout_ms=POLL_TIMEOUT_MS)
                except PollIsFull:
                    pass
                except UnreadableBatch as error:
                    # the other partitions first: an unreadable batch must not block them
                    unreadable = unreadable or error
                    del positions[TopicPartition(error.topic, error.partition)]
                    consumer.close(autocommit=False)  # after such an error its poll() may spin
                    if positions:
                        consumer, goes_on = self._consumer(positions, meter)
                    continue
                silent_polls += 1
                for tp in sorted(positions):
                    end = wanted[tp][1]
                    records = polled.pop(tp, ())
                    # The position, not the last record's offset + 1: it passes markers, aborted records and compaction
                    # gaps at the end of a range, which never appear as records.
                    position = min(consumer.position(tp, timeout_ms=REQUEST_TIMEOUT_MS) or positions[tp], end)
                    if position <= positions[tp]:
                        continue
                    silent_polls = 0
                    positions[tp] = position
                    records = _below(end, records)
                    if not goes_on and not all(is_kept(record.headers) for record in records):
                        records = [judged(record) for record in records]
                    if position == end:
                        del positions[tp]
                        consumer.pause(tp)
                    yield Chunk(self._number(tp), records, position)
                    del records
                yield from self._silence(silent_polls, positions)
                if not goes_on and self._is_full(meter, silent_polls) and positions:
                    consumer.close(autocommit=False)
                    meter.start()
                    consumer, goes_on = self._consumer(positions, meter)
            if unreadable is not None:
                raise unreadable
        finally:
            consumer.close(autocommit=False)

    def _is_full(self, meter: Meter, silent_polls: int) -> bool:
        """Whether the poll reached its limit, so that the consumer cannot go on; sets the limit of the next one."""
        if not meter.is_full:
            if not silent_polls:
                meter.limit = self._poll_bytes
            return False
        if silent_polls:  # a compressed batch holds more than the limit before the position
            meter.limit *= 2
        return True

    def _silence(self, silent_polls: int, positions: Mapping[TopicPartition, int]) -> Iterator[Chunk]:
        """Chunks without records, while nothing comes; raises SourceUnavailable when it takes too long."""
        if silent_polls and positions and silent_polls % (WAIT_AT_BROKER_MS // POLL_TIMEOUT_MS) == 0:
            waiting, position = next(iter(positions.items()))
            yield Chunk(self._number(waiting), (), position)
        if silent_polls >= SILENT_POLLS_MAX:
            stuck = ", ".join(f"{tp.topic}[{tp.partition}] at {at}" for tp, at in sorted(positions.items()))
            raise SourceUnavailable(
                f"{stuck}: no record and no progress for {SILENT_POLLS_MAX * POLL_TIMEOUT_MS // 1000} s; "
                f"expected to reach the pinned end; check the broker at {address(self._config)} and retry",
                cause=no_answer(self._config),
            )

    def wait(self, source_positions: Mapping[int, SourcePosition], seconds: float) -> bool:
        """Wait with a consumer that is kept until `close`; its records are discarded."""
        wanted = {self._place(p): offset for p, (offset, _) in source_positions.items()}
        try:
            if self._waiting is None or self._waiting.assignment() != set(wanted):
                self._stop_waiting()
                self._waiting, _ = self._consumer(
                    wanted,
                    Meter(sys.maxsize, self._bounds),
                    max_partition_fetch_bytes=1,
                    max_poll_records=1,
                    fetch_max_wait_ms=WAIT_AT_BROKER_MS,
                )
            for tp, offset in wanted.items():
                self._waiting.seek(tp, offset)
            with suppress(PollIsFull):
                if self._waiting.poll(timeout_ms=int(seconds * 1000)):
                    return True
            return any(self._waiting.position(tp) != offset for tp, offset in wanted.items())
        except KafkaError as error:
            self._stop_waiting()
            self._raise(error)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.close(autocommit=False)
            self._waiting = None

    def mirror(self, group: str, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]) -> None:
        """Commit the group's offsets, for kafka-consumer-groups and the like."""
        offsets = {self._place(p): OffsetAndMetadata(o, "", -1) for p, o in next_offsets.items()}
        try:
            self._admin_client().alter_group_offsets(group, offsets)
        except KafkaError as error:
            self._raise(error)

    def close(self) -> None:
        """Close the admin client and the waiting consumer; `read` closes its own."""
        self._stop_waiting()
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _cluster_id(self) -> str | None:
        found: str | None = self._admin_client().describe_cluster().get("cluster_id")
        return found or None

    def _describe_topic(self) -> dict[str, Any]:
        return self._checked(self._admin_client().describe_topics([self.topic])[0])

    def _checked(self, described: dict[str, Any]) -> dict[str, Any]:
        """A topic's metadata; raises the error that the broker gave instead."""
        topic = described["name"]
        if described["error_code"] == UnknownTopicOrPartitionError.errno:
            raise TopicMissing(
                f"{topic}: no such topic at {address(self._config)}; create it, or `headrace produce` into it, "
                "or correct the dataset's topic"
            )
        if issubclass(for_code(described["error_code"]), AuthorizationError):
            raise for_code(described["error_code"])(f"to describe topic {topic}")
        if described["error_code"]:
            raise SourceUnavailable(f"{topic}: describing the topic gave error {described['error_code']}; retry")
        return described

    def _admin_client(self) -> KafkaAdminClient:
        if self._admin is None:
            config = {key: value for key, value in self._config.items() if key != "metrics_enabled"}
            self._admin = KafkaAdminClient(**config)
        return self._admin

    def _consumer(
        self, positions: Mapping[TopicPartition, int], meter: Meter, **differently: Any
    ) -> tuple[KafkaConsumer, bool]:
        """A consumer at these positions, and whether it can continue after a full poll; if not, close it.

        Without this module's unpacking a deserializer counts every key and value, and its exception ends the poll. The
        consumer cannot be used after that, because it never leaves its half-read record batch.
        """
        options = {
            "group_id": None,
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            "auto_offset_reset": "none",
            "allow_auto_create_topics": False,
            "check_crcs": True,
            "max_poll_records": self._max_poll_records,
            "fetch_max_bytes": FETCH_MAX_BYTES,
            "max_partition_fetch_bytes": self._max_partition_fetch_bytes,
            "fetch_max_wait_ms": 100,
            "retry_backoff_ms": RETRY_BACKOFF_MS,
            "key_deserializer": Metered(meter),
            "value_deserializer": Metered(meter),
        }
        consumer = KafkaConsumer(**self._config, **(options | differently))
        with suppress(AttributeError):  # kafka-python 3.0 keeps 100 ms here, which every range's first poll would wait
            consumer._cluster.config["retry_backoff_ms"] = RETRY_BACKOFF_MS
        consumer.assign(list(positions))
        for tp, position in positions.items():
            consumer.seek(tp, position)
        goes_on = replace_unpacking(consumer, meter)
        if not goes_on:
            tolerate(consumer, self._bounds)
        return consumer, goes_on

    def _offsets(
        self, partitions: list[TopicPartition], spec: OffsetSpec, isolation: IsolationLevel
    ) -> dict[TopicPartition, int]:
        found = self._admin_client().list_partition_offsets(dict.fromkeys(partitions, spec), isolation_level=isolation)
        return {tp: found[tp].offset for tp in partitions}

    def _states(self, partitions: list[TopicPartition]) -> dict[TopicPartition, PartitionState]:
        starts = self._offsets(partitions, OffsetSpec.EARLIEST, IsolationLevel.READ_UNCOMMITTED)
        # watermarks first: records that arrive in between must not count as part of an open transaction
        watermarks = self._offsets(partitions, OffsetSpec.LATEST, IsolationLevel.READ_UNCOMMITTED)
        ends = self._offsets(partitions, OffsetSpec.LATEST, IsolationLevel.READ_COMMITTED)
        return {
            tp: PartitionState(starts[tp], max(ends[tp], starts[tp]), max(watermarks[tp], ends[tp], starts[tp]))
            for tp in partitions
        }

    def _place(self, partition: int) -> TopicPartition:
        """Where a partition of the source is."""
        return TopicPartition(self.topic, partition)

    def _number(self, place: TopicPartition) -> int:
        """The partition of the source that is there."""
        return int(place.partition)

    def _raise(self, error: KafkaError) -> NoReturn:
        raise self._as_ours(error) from error

    def _as_ours(self, error: KafkaError) -> HeadraceError:
        return as_source_error(error, self._config, self.topic)


def _below(end: int, records: Sequence[Any]) -> Sequence[Any]:
    """The records before a range's end: the last batch may go on behind it."""
    if records and records[-1].offset >= end:
        return [record for record in records if record.offset < end]
    return records
