"""Record batches at which kafka-python stops: a codec that fails, and header names that are not UTF-8.

Kafka's protocol calls a header's name UTF-8, but no broker checks it, and other clients send bytes.
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

from headrace.exceptions import CodecMissing, HeadraceError, SourceError

# a batch's attributes name its codec by number (https://kafka.apache.org/documentation/#recordbatch)
CODECS = {0: "none", 1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}


class UnreadableBatch(CorruptRecordError):  # type: ignore[misc]
    """A batch that cannot be unpacked.

    offset: of the first record that was not read; next_offset: behind the batch; needs: what to install, None where
    the batch itself is damaged.
    """

    def __init__(self, place: TopicPartition, batch: Any, offset: int, error: Exception) -> None:
        codec = getattr(batch, "compression_type", None)
        self.topic, self.partition = place
        self.offset = max(offset, getattr(batch, "base_offset", offset))
        self.next_offset = max(self.offset + 1, getattr(batch, "next_offset", 0))
        self.codec = CODECS.get(codec, f"number {codec}") if codec is not None else "none"
        self.needs = None
        if isinstance(error, UnsupportedCodecError):
            self.needs = f"kafka-python[{self.codec}]" if codec in CODECS else "a kafka-python that has this codec"
        self.reason = " ".join(" ".join(map(str, error.args or [type(error).__name__])).split())
        super().__init__(self.reason)

    def as_ours(self) -> HeadraceError:
        """One line: where, what was found, what to do; a codec that is missing stays missing for every process."""
        where = f"{self.topic}[{self.partition}]: the batch at offset {self.offset} (codec {self.codec}) cannot be read"
        if self.needs is not None:
            return CodecMissing(
                f"{where}: {self.reason}; expected gzip, snappy, lz4 or zstd with its library; nothing of it was "
                f"stored; install {self.needs} where drains run, then drain again"
            )
        return SourceError(
            f"{where}: {self.reason}; nothing of it was stored; a new process may try again; if it finds the same, "
            f"restore the partition from a replica, or delete its records below {self.next_offset} "
            f"(kafka-delete-records.sh) and let `headrace accept-loss` go on behind them"
        )


def unreadable(place: TopicPartition, batch: Any, offset: int, error: Exception) -> UnreadableBatch:
    """The error as one that says where it happened."""
    return error if isinstance(error, UnreadableBatch) else UnreadableBatch(place, batch, offset, error)


def tolerate(consumer: KafkaConsumer) -> None:
    """Let a new consumer's own unpacking pass header names that are not UTF-8, as `RawName`, and say where it fails.

    Where kafka-python has changed beyond recognition it stays as it is.
    """
    with suppress(AttributeError):
        consumer._fetcher.PartitionRecords = partial(TolerantRecords)


class RawName(str):
    """A header's name that is not UTF-8; encode() gives its bytes, as kafka-python asks for them."""

    raw: bytes

    def __new__(cls, raw: bytes) -> "RawName":
        """Text to show, and the bytes beside it."""
        name = super().__new__(cls, raw.decode(errors="replace"))
        name.raw = raw
        return name

    def encode(self, *_: Any, **__: Any) -> bytes:
        """The name as it came."""
        return self.raw


class TolerantRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """kafka-python's own unpacking, of batches that are tolerant."""

    def _unpack_records(self, tp: TopicPartition, records: Any, *deserializers: Any) -> Any:
        answer = _Answer(records)
        try:
            yield from super()._unpack_records(tp, answer, *deserializers)
        except (CorruptRecordError, UnsupportedCodecError) as error:
            raise unreadable(tp, answer.batch, self.next_fetch_offset, error) from error


class _Answer:
    """What a broker answered, batch by batch."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.batch: Any = None

    def next_batch(self) -> Any:
        self.batch = self._records.next_batch()
        if type(self.batch) is DefaultRecordBatch:
            self.batch.__class__ = _TolerantBatch
        return self.batch


class _TolerantBatch(DefaultRecordBatch):  # type: ignore[misc]
    _pos: int
    __slots__ = ()  # as many as its base has: a batch becomes one by its class alone

    def __iter__(self) -> Any:
        # of some batches compaction leaves the header alone, and not every codec takes nothing for nothing
        return super().__iter__() if self.records_count else iter(())

    def _maybe_uncompress(self) -> None:
        try:
            super()._maybe_uncompress()
        except UnsupportedCodecError:
            raise
        except Exception as error:  # each codec has its own
            raise CorruptRecordError(f"{type(error).__name__}: {error}") from error

    def _read_msg(self) -> Any:
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            return self._read_with_raw_names()

    def _read_with_raw_names(self) -> Any:
        data: bytearray = self._buffer
        length, begin = decode_varint(data, self._pos)
        delta, at = decode_varint(data, begin + 1)
        is_appended = self.timestamp_type == self.LOG_APPEND_TIME
        time = self.max_timestamp if is_appended else self.first_timestamp + delta
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
        self._pos = at  # type: ignore[misc]  # mypy takes `__slots__` for all that there are
        kind = ControlRecord if self.is_control_batch else DefaultRecord
        return kind(length, self.base_offset + offset, time, self.timestamp_type, key, value, headers)


def _bytes(data: bytearray, at: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(data, at)
    return (None, at) if size < 0 else (bytes(data[at : at + size]), at + size)


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return RawName(raw)
