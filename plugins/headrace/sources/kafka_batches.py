"""Record batches that kafka-python cannot read, or would unpack as a whole.

These are a codec that fails, header names that are not UTF-8, and batches larger than memory. Kafka's protocol
defines header names as UTF-8, but no broker checks them, and some clients send other bytes.
"""

from contextlib import suppress
from functools import partial
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, UnsupportedCodecError
from kafka.record.default_records import ControlRecord, DefaultRecord, DefaultRecordBatch
from kafka.record.util import decode_varint
from kafka.structs import TopicPartition

from headrace.contracts.rejection import Rejection
from headrace.exceptions import CodecMissing, HeadraceError, SourceError
from headrace.sources.bounds import Bounds, NotKept, header_count
from headrace.sources.kafka_unpack import Window, check_old_batch

# a batch's attributes name its codec by number (https://kafka.apache.org/documentation/#recordbatch)
CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class UnreadableBatch(CorruptRecordError):  # type: ignore[misc]
    """A batch that cannot be unpacked.

    offset: of the first record that was not read; next_offset: after the batch; needs: the package to install, or None
    if the batch itself is damaged.
    """

    def __init__(self, topic_partition: TopicPartition, batch: Any, offset: int, error: Exception) -> None:
        codec = getattr(batch, "compression_type", None)
        self.topic, self.partition = topic_partition
        self.offset = max(offset, getattr(batch, "base_offset", offset))
        self.next_offset = max(self.offset + 1, getattr(batch, "next_offset", 0))
        self.codec = CODECS.get(codec, f"number {codec}") if codec is not None else "none"
        self.needs = None
        if isinstance(error, UnsupportedCodecError):
            self.needs = f"kafka-python[{self.codec}]" if codec in CODECS else "a kafka-python that has this codec"
        self.reason = " ".join(" ".join(map(str, error.args or [type(error).__name__])).split())
        super().__init__(self.reason)

    def as_ours(self) -> HeadraceError:
        """The error in one line; a missing codec is permanent, because every process on the machine lacks it."""
        where = f"{self.topic}[{self.partition}]: the batch at offset {self.offset} (codec {self.codec}) cannot be read"
        if self.needs is not None:
            return CodecMissing(
                f"{where}: {self.reason}; expected gzip, snappy, lz4 or zstd with its library; nothing of it was "
                f"stored; install {self.needs} where drains run, then drain again",
                partition=self.partition,
                offset=self.offset,
            )
        return SourceError(
            f"{where}: {self.reason}; nothing of it was stored; a new process may try again; if it finds the same, "
            f"restore the partition from a replica, or delete its records below {self.next_offset} "
            f"(kafka-delete-records.sh) and run `headrace accept-loss` to continue after them",
            partition=self.partition,
            offset=self.offset,
        )


def unreadable(topic_partition: TopicPartition, batch: Any, offset: int, error: Exception) -> UnreadableBatch:
    """The error with the place where it happened."""
    return error if isinstance(error, UnreadableBatch) else UnreadableBatch(topic_partition, batch, offset, error)


def tolerate(consumer: KafkaConsumer, bounds: Bounds) -> None:
    """Make a new consumer's own unpacking accept header names that are not UTF-8, as `RawName`, and locate its errors.

    A record above the bounds has neither key nor value, and `NotKept` as its headers. If kafka-python's internals have
    changed too much, the consumer is not changed.
    """
    with suppress(AttributeError):
        consumer._fetcher.PartitionRecords = partial(TolerantRecords, bounds)


class RawName(str):
    """A header's name that is not UTF-8; encode() gives its bytes, as kafka-python asks for them."""

    raw: bytes

    def __new__(cls, raw: bytes) -> "RawName":
        """Text to show, with the bytes as an attribute."""
        name = super().__new__(cls, raw.decode(errors="replace"))
        name.raw = raw
        return name

    def encode(self, *_: Any, **__: Any) -> bytes:
        """The original bytes."""
        return self.raw


class TolerantRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """kafka-python's own unpacking, with _TolerantBatch."""

    def __init__(self, bounds: Bounds, *arguments: Any, **options: Any) -> None:
        self._bounds = bounds
        super().__init__(*arguments, **options)

    def _unpack_records(self, tp: TopicPartition, records: Any, *deserializers: Any) -> Any:
        response = _FetchedRecords(records, self._bounds)
        try:
            yield from super()._unpack_records(tp, response, *deserializers)
        except (CorruptRecordError, UnsupportedCodecError) as error:
            raise unreadable(tp, response.batch, self.next_fetch_offset, error) from error


class _FetchedRecords:
    """A broker's answer, batch by batch."""

    def __init__(self, records: Any, bounds: Bounds) -> None:
        self._records = records
        self._bounds = bounds
        self.batch: Any = None

    def next_batch(self) -> Any:
        self.batch = self._records.next_batch()
        if type(self.batch) is DefaultRecordBatch:
            self.batch = _TolerantBatch(self.batch, self._bounds)
        elif self.batch is not None:
            check_old_batch(self.batch, self._bounds)
        return self.batch


class _TolerantBatch(DefaultRecordBatch):  # type: ignore[misc]
    """A batch of format 2, unpacked piece by piece."""

    _buffer: Any
    _pos: int

    def __init__(self, batch: DefaultRecordBatch, bounds: Bounds) -> None:
        for name in DefaultRecordBatch.__slots__:
            setattr(self, name, getattr(batch, name))
        self._bounds = bounds

    def __iter__(self) -> Any:
        if not self.records_count:  # compaction leaves only the header of some batches
            return
        try:
            window = Window(self, self._bounds)
            self._buffer = bytearray()
            for _ in range(self.records_count):
                size, reason = window.next_record()
                self._buffer, self._pos = window.data, window.at
                if reason is None:
                    yield self._read_msg()
                    window.at = self._pos
                else:
                    record = self._read_coordinates(size, reason)
                    window.pass_over(size)
                    yield record
            window.check_end()
        except (ValueError, IndexError) as error:
            raise CorruptRecordError(f"Found invalid record structure: {error!r}") from error

    def _read_coordinates(self, size: int, reason: Rejection) -> DefaultRecord:
        """The offset and the time of a record that is not kept, whose attributes are at `_pos`."""
        delta, at = decode_varint(self._buffer, self._pos + 1)
        offset, _ = decode_varint(self._buffer, at)
        return self._record(size, offset, delta, None, None, NotKept(reason))

    def _record(
        self, size: int, offset: int, delta: int, key: bytes | None, value: bytes | None, headers: Any
    ) -> DefaultRecord:
        is_appended = self.timestamp_type == self.LOG_APPEND_TIME
        time = self.max_timestamp if is_appended else self.first_timestamp + delta
        kind = ControlRecord if self.is_control_batch else DefaultRecord
        return kind(size, self.base_offset + offset, time, self.timestamp_type, key, value, headers)

    def _read_msg(self) -> Any:
        begin = self._pos
        try:
            if (reason := header_count(self._header_count())) is not None:
                length, self._pos = decode_varint(self._buffer, begin)
                record = self._read_coordinates(length, reason)
                self._pos += length
                return record
            return super()._read_msg()
        except UnicodeDecodeError:
            return self._read_with_raw_names()

    def _header_count(self) -> int:
        """How many headers the record at `_pos` states."""
        data = self._buffer
        length, begin = decode_varint(data, self._pos)
        _, at = decode_varint(data, begin + 1)
        _, at = decode_varint(data, at)
        for _ in range(2):  # key and value
            size, at = decode_varint(data, at)
            at += max(size, 0)
        count, at = decode_varint(data, at)
        if not 0 <= 2 * count <= begin + length - at:
            raise CorruptRecordError(f"Found invalid number of record headers {count}")
        return int(count)

    def _read_with_raw_names(self) -> Any:
        data = self._buffer
        length, begin = decode_varint(data, self._pos)
        delta, at = decode_varint(data, begin + 1)
        offset, at = decode_varint(data, at)
        key, at = _bytes(data, at)
        value, at = _bytes(data, at)
        count, at = decode_varint(data, at)
        headers = []
        for _ in range(count):
            name, at = _bytes(data, at)
            header, at = _bytes(data, at)
            headers.append((_name(name or b""), header))
        if at - begin != length:
            raise CorruptRecordError(f"Invalid record size: expected {length} bytes, read {at - begin}")
        self._pos = at
        return self._record(length, offset, delta, key, value, headers)


def _bytes(data: bytes, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(data, at)
    return (None, at) if size < 0 else (bytes(data[at : at + size]), at + size)


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return RawName(raw)
