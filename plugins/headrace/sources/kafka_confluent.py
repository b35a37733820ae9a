"""Records from a Kafka topic by librdkafka, through the package confluent-kafka: an optional extra.

HEADRACE_KAFKA_CLIENT=confluent selects it. It only reads records: identity, offsets, waiting and consumer groups use
kafka-python, whose source stays the default and the reference. Both pass the same conformance suite.
"""

import logging
from collections import defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from operator import methodcaller
from typing import Any, NoReturn

from kafka import errors

from headrace.exceptions import SettingError
from headrace.record import KafkaRecord, Record, kafka_record
from headrace.sources.base import Chunk, Range
from headrace.sources.bounds import NotKept, OversizedRecord, header_count
from headrace.sources.kafka import FETCH_MAX_BYTES, POLL_TIMEOUT_MS, WAIT_AT_BROKER_MS, KafkaSource
from headrace.sources.kafka_security import OPTIONS, TOKENS

try:
    import confluent_kafka
    from confluent_kafka import KafkaError, KafkaException, TopicPartition
except ModuleNotFoundError as error:
    raise SettingError(
        "HEADRACE_KAFKA_CLIENT: found confluent, expected the package confluent-kafka beside it; install "
        "`headrace[confluent]`, or unset HEADRACE_KAFKA_CLIENT"
    ) from error

logger = logging.getLogger(__name__)

# The memory for librdkafka's prefetched records; by default 64 MiB per partition
QUEUED_MAX_KBYTES = 16 * 1024
# The size limit of a broker's answer, and of an unpacked zstd batch; librdkafka's own default
UNPACKED_MAX_BYTES = 100_000_000
FIRST_RECORDS = 1  # of the first request; doubled each time, up to the size of a chunk
TIMESTAMP_NONE = 0
# librdkafka silently repeats its request if a batch unpacks to less than expected: it reads only the first of several
# gzip members. kafka-python then takes over: it reads the others, or reports the error.
SILENT_POLLS_MAX = 60

# options of kafka-python without a counterpart: timeouts and metrics
IGNORED = {"bootstrap_timeout_ms", "request_timeout_ms", "metrics_enabled"}

# librdkafka's own errors as kafka-python's; errors of brokers have the same numbers in both
_LOCAL_ERRORS = {
    KafkaError._AUTO_OFFSET_RESET: errors.OffsetOutOfRangeError,
    KafkaError._LOG_TRUNCATION: errors.LogTruncationError,
    KafkaError._UNKNOWN_TOPIC: errors.UnknownTopicOrPartitionError,
    KafkaError._UNKNOWN_PARTITION: errors.UnknownTopicOrPartitionError,
    KafkaError._AUTHENTICATION: errors.SaslAuthenticationFailedError,
    KafkaError._ALL_BROKERS_DOWN: errors.KafkaConnectionError,
    KafkaError._TRANSPORT: errors.KafkaConnectionError,
    KafkaError._TIMED_OUT: errors.KafkaConnectionError,
}

# librdkafka looks for the coordinator of the group that it needs the name of; no offset is committed to it
_OF_GROUP = {KafkaError.GROUP_AUTHORIZATION_FAILED}

# errors of batches: a missing codec, data that cannot be unpacked, a wrong CRC
UNREADABLE = {
    KafkaError._BAD_COMPRESSION,
    KafkaError._BAD_MSG,
    KafkaError._NOT_IMPLEMENTED,
    KafkaError._UNKNOWN_PROTOCOL,
    KafkaError.INVALID_MSG,
}


# For a name that is not UTF-8 the wrapper returns a list with a pending error, which Python may raise as a SystemError
# at the next call into C. A methodcaller checks for it at once.
_headers = methodcaller("headers")


class _Unreadable(Exception):
    """The place where librdkafka or its wrapper stops; kafka-python reads on, or reports the exact error."""


def translated(client_config: Mapping[str, Any]) -> dict[str, Any]:
    """kafka-python's options as librdkafka's.

    Raises SettingError for one without a counterpart: it may be the option that encrypts the connection.
    """
    config: dict[str, Any] = {}
    for name, value in client_config.items():
        if name == "sasl_plain_username" and TOKENS in client_config:
            continue  # for messages alone; librdkafka would warn
        if name in OPTIONS:
            config[OPTIONS[name]] = ",".join(value) if isinstance(value, list | tuple) else value
        elif name == TOKENS:
            config["oauth_cb"] = value.oauth_cb
        elif name not in IGNORED:
            raise SettingError(
                f"kafka: {name} has no counterpart in librdkafka, expected one of {', '.join(OPTIONS)}; remove it, or "
                "unset HEADRACE_KAFKA_CLIENT"
            )
    return config


class ConfluentSource(KafkaSource):
    """A topic whose records librdkafka reads. `client_config` uses kafka-python's names of options.

    Two differences remain. librdkafka unpacks a broker's answer, of 8 MiB, as a whole: a zstd batch up to
    UNPACKED_MAX_BYTES, above which kafka-python takes over; batches of gzip, lz4 and snappy without a limit. And it
    ends the name of a header at U+0000.
    """

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield each range's records as librdkafka returns them; see `Source.read`."""
        wanted = {p: bounds for p, bounds in ranges.items() if bounds.start < bounds.end}
        if not wanted:
            return
        consumer = self._confluent_consumer()
        positions = {partition: bounds.start for partition, bounds in wanted.items()}
        try:
            consumer.assign([TopicPartition(self.topic, p, bounds.start) for p, bounds in wanted.items()])
            yield from self._consume_until_read(consumer, wanted, positions)
            return
        except _Unreadable as error:
            logger.info(
                "%s: %s, which confluent-kafka cannot read; kafka-python reads the rest of this run", self.topic, error
            )
        except KafkaException as error:
            self._refuse(error.args[0])
        finally:
            consumer.close()
        yield from super().read({p: wanted[p]._replace(start=position) for p, position in positions.items()})

    def _consume_until_read(
        self, consumer: Any, wanted: Mapping[int, Range], positions: dict[int, int]
    ) -> Generator[Chunk]:
        """Yield chunks; updates `positions`, and raises _Unreadable after the last chunk that could be read."""
        silent, count, record_bytes_max = 0, FIRST_RECORDS, self._bounds.record_bytes
        stopped: _Unreadable | None = None
        while positions:
            messages = self._consume(consumer, count, wanted, positions)
            silent += 1
            chunks: defaultdict[int, list[Record]] = defaultdict(list)
            reached: dict[int, int] = {}
            for message in messages:
                partition, offset = message.partition(), message.offset()
                if message.error() is not None:
                    if partition in positions and message.error().code() not in _OF_GROUP:
                        if (stopped := self._stop(message)) is not None:
                            break
                        # nothing more may be read, up to the last stable offset: what is left are markers and holes
                        reached[partition] = offset
                    continue
                if partition in positions and offset < wanted[partition].end:
                    try:
                        headers = _headers(message) or ()
                    except (UnicodeDecodeError, SystemError):
                        stopped = _Unreadable(f"[{partition}] at {offset}: a header whose name is not UTF-8")
                        break
                    kind, timestamp = message.timestamp()
                    key, value = message.key(), message.value()
                    fields = (offset, None if kind == TIMESTAMP_NONE else timestamp, key, value, headers)
                    record: Record = kafka_record(KafkaRecord, fields)
                    if headers or (len(key) if key else 0) + (len(value) if value else 0) > record_bytes_max:
                        record = self._kept(record)
                    chunks[partition].append(record)
                reached[partition] = offset + 1
            if messages:
                count = self._next_count(count, messages)
            del messages
            for partition in sorted(reached.keys() & positions.keys()):
                position = min(reached[partition], wanted[partition].end)
                if position <= positions[partition]:
                    continue
                silent = 0
                positions[partition] = position
                if position == wanted[partition].end:
                    del positions[partition]
                    consumer.pause([TopicPartition(self.topic, partition)])
                yield Chunk(partition, chunks.pop(partition, ()), position)
            if stopped is not None and positions:
                raise stopped
            yield from _while_silent(silent, positions)

    def _consume(self, consumer: Any, count: int, wanted: Mapping[int, Range], positions: Mapping[int, int]) -> Any:
        """Up to `count` messages, and no more than there can be: it would wait for them."""
        left = sum(wanted[partition].end - position for partition, position in positions.items())
        return consumer.consume(min(left, count, self._max_poll_records), POLL_TIMEOUT_MS / 1000)

    def _next_count(self, count: int, messages: Sequence[Any]) -> int:
        """How many messages to ask for next: librdkafka counts them and not their bytes, which a chunk bounds."""
        size = sum(map(len, messages))
        return min(2 * count, max(self._poll_bytes * len(messages) // max(size, 1), 1))

    def _stop(self, message: Any) -> _Unreadable | None:
        """Why reading ends at an error; None at a partition's end. Raises what kafka-python makes of all others."""
        if message.error().code() in UNREADABLE:
            return _Unreadable(f"[{message.partition()}] at {message.offset()}: {message.error().str()}")
        if message.error().code() != KafkaError._PARTITION_EOF:
            self._refuse(message.error())
        return None

    def _kept(self, record: Record) -> Record:
        """The record, or an oversized record if it is too large; librdkafka does not report its batch."""
        size = len(record.key or b"") + len(record.value or b"")
        size += sum(len(name) + len(value or b"") for name, value in record.headers)
        reason = self._bounds.record(size) or header_count(len(record.headers))
        return record if reason is None else OversizedRecord(record.offset, record.timestamp, NotKept(reason))

    def _confluent_consumer(self) -> Any:
        config = {
            **translated(self._config),
            "group.id": "headrace",  # librdkafka requires one; assign() does not join it
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "check.crcs": True,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 100,
            "fetch.max.bytes": max(FETCH_MAX_BYTES, self._max_partition_fetch_bytes),
            "max.partition.fetch.bytes": self._max_partition_fetch_bytes,
            "message.max.bytes": max(FETCH_MAX_BYTES, self._max_partition_fetch_bytes),
            "receive.message.max.bytes": UNPACKED_MAX_BYTES,
            "queued.max.messages.kbytes": QUEUED_MAX_KBYTES,
            "fetch.queue.backoff.ms": 5,  # by default a full queue is checked again after a second
        }
        try:
            return confluent_kafka.Consumer(config, logger=logger)
        except KafkaException as error:
            self._refuse(error.args[0])

    def _refuse(self, error: Any) -> NoReturn:
        """Raise the same error as kafka-python's source."""
        kind = _LOCAL_ERRORS.get(error.code()) or (
            errors.for_code(error.code()) if error.code() > 0 else errors.KafkaError
        )
        self._raise(kind(f"{error.name()}: {error.str()}"))


def _while_silent(silent_polls: int, positions: Mapping[int, int]) -> Iterator[Chunk]:
    """Chunks without records, now and then, while nothing comes; raises _Unreadable when it takes too long."""
    if silent_polls and positions and silent_polls % (WAIT_AT_BROKER_MS // POLL_TIMEOUT_MS) == 0:
        waiting, position = next(iter(positions.items()))
        yield Chunk(waiting, (), position)
    if silent_polls >= SILENT_POLLS_MAX:
        stuck = ", ".join(f"[{partition}] at {at}" for partition, at in sorted(positions.items()))
        raise _Unreadable(f"{stuck}: nothing for {silent_polls * POLL_TIMEOUT_MS // 1000} s")
