"""Records from kafka-python's fetched bytes, in a third of its time, and only as many as fit into memory.

kafka-python fetches, keeps sessions, follows leaders, checks CRCs and unpacks compression. This module replaces one
class, Fetcher.PartitionRecords, which makes records of the bytes (seven calls for the numbers of each, three objects,
two deserializers; 5 us of a drain's 10). The class is internal, so it is replaced only in versions for which
tests/unit/test_kafka_records.py compares both record by record; other versions use kafka-python's own way.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import kafka
from kafka import IsolationLevel, KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.record.util import decode_varint
from kafka.structs import TopicPartition

from headrace.record import HEADER_BYTES, Headers, KafkaRecord, Record, kafka_record
from headrace.sources.bounds import Bounds, NotKept, OversizedRecord, header_count
from headrace.sources.kafka_batches import unreadable
from headrace.sources.kafka_unpack import Window, check_old_batch

KNOWN_VERSIONS = ("3.0.",)  # prefixes of kafka-python's versions

logger = logging.getLogger(__name__)


class PollIsFull(Exception):
    """Ends a poll, which returns the records before; never leaves the source."""


class Meter:
    """Limits the bytes that one poll unpacks, plus at most one record.

    kafka-python counts only records, and fetched bytes may be compressed a thousandfold: 10,000 records of 10 MB in one
    poll. bounds: the limits of each record and each batch.
    """

    def __init__(self, limit: int, bounds: Bounds | None = None) -> None:
        self.limit = limit
        self.bounds = bounds or Bounds()
        self._full = PollIsFull()
        self.start()

    def start(self) -> None:
        """Begin a poll."""
        self.spent = 0
        self.is_full = False
        self._full.__traceback__ = None  # its frames would hold unpacked records until the next garbage collection

    def check(self) -> None:
        """Raise PollIsFull once the limit is reached."""
        if self.spent >= self.limit:
            self.is_full = True
            raise self._full


def replace_unpacking(consumer: KafkaConsumer, meter: Meter) -> bool:
    """Unpack a new consumer's records with this module; False for an unknown version of kafka-python.

    poll() then returns KafkaRecords. It sometimes raises PollIsFull or returns nothing: call it again.
    """
    if not kafka.__version__.startswith(KNOWN_VERSIONS):
        logger.info(
            "kafka-python %s: records are unpacked by its public way, which is slower; known are %s",
            kafka.__version__,
            KNOWN_VERSIONS,
        )
        return False
    consumer._fetcher.PartitionRecords = partial(MeteredRecords, meter)
    return True


class MeteredRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one partition in one answer of a broker."""

    def __init__(self, meter: Meter, *arguments: Any, **options: Any) -> None:
        self.next_fetch_offset: int
        self._meter = meter
        self._batch: Any = None  # the current batch
        self._window: Window  # its unpacked bytes
        self._left = 0  # its records that are not unpacked yet
        self._old_records: Iterator[Any] = iter(())  # the open one's, where it is of an old format
        self._error: Exception | None = None
        super().__init__(*arguments, **options)

    def _unpack_records(self, _tp: TopicPartition, records: Any, *_deserializers: Any) -> Iterator[Any]:
        self._fetched = records
        return iter(())  # the superclass would read from it; `take` does not

    def take(self, n: int | None = None) -> list[Record]:
        """Unpack up to n records. An error after the first of them is raised by the next call, and by all later ones.

        Raises PollIsFull if the limit is reached; the remaining records wait for the next poll.
        """
        if self._error is not None:
            raise self._error
        self._meter.check()
        taken: list[Record] = []
        room = sys.maxsize if n is None else n
        try:
            while len(taken) < room and self._meter.spent < self._meter.limit:
                if not self._left and not self._open_next():
                    break
                if self._batch.magic == 2:
                    self._unpack(taken, room - len(taken))
                else:
                    self._unpack_old(taken, room - len(taken))
        except Exception as error:
            self._error = unreadable(self.topic_partition, self._batch, self.next_fetch_offset, error)
            if not taken:
                raise self._error from error
        return taken

    def _open_next(self) -> bool:
        """Open the next batch with visible records; False if all are drained."""
        while True:
            if self._batch is not None and self._batch.magic == 2:
                # the batch's own end: compaction may have removed its last records
                self.next_fetch_offset = max(self.next_fetch_offset, self._batch.next_offset)
            self._batch = batch = self._fetched.next_batch()
            if batch is None:
                self.drain()
                return False
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError("the batch failed crc check")
            if batch.magic != 2:
                check_old_batch(batch, self._meter.bounds)
                self._old_records, self._left = iter(batch), sys.maxsize
                return True
            self.leader_epoch = batch.leader_epoch
            if not self._is_skipped(batch) and batch.records_count:
                self._window = Window(batch, self._meter.bounds)
                batch._buffer = bytearray()  # the window has a copy
                self._left = batch.records_count
                return True

    def _is_skipped(self, batch: Any) -> bool:
        """Whether a batch is a transaction marker or belongs to an aborted transaction; kafka-python's rule."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)

    def _unpack_old(self, taken: list[Record], room: int) -> None:
        """Unpack records of a batch of format 0 or 1, which brokers before 0.11 wrote, by kafka-python's own way."""
        for record in self._old_records:
            if self.check_crcs and not record.validate_crc():
                raise CorruptRecordError(
                    f"Record for partition {self.topic_partition} at offset {record.offset} failed crc check"
                )
            self.records_read += 1
            self.bytes_read += record.size_in_bytes
            self.next_fetch_offset = max(self.next_fetch_offset, record.offset + 1)
            if record.offset >= self.fetch_offset:
                self._meter.spent += len(record.key or b"") + len(record.value or b"")
                taken.append(KafkaRecord(record.offset, record.timestamp, record.key, record.value, record.headers))
                room -= 1
                if not room or self._meter.spent >= self._meter.limit:
                    return
        self._left = 0

    def _unpack(self, taken: list[Record], room: int) -> None:
        """Unpack up to `room` records of the open batch, until the meter is full or the window ends.

        The format is https://kafka.apache.org/documentation/#record: every number is a zigzag varint. Varints of one
        and two bytes are read inline, because a call costs more than reading them.
        """
        batch, window, wanted = self._batch, self._window, self.fetch_offset
        data, at, last = window.data, window.at, window.last
        end, is_whole = at, at <= last
        room = room if is_whole else 0
        base_offset, first_time = batch.base_offset, batch.first_timestamp
        same_time = batch.max_timestamp if batch.timestamp_type == batch.LOG_APPEND_TIME else None
        headers: Headers
        spent, limit, left = self._meter.spent, self._meter.limit, self._left
        offset = self.next_fetch_offset - 1
        try:
            while room and left and spent < limit:
                size = data[at]
                if size < 128:
                    at += 1
                elif data[at + 1] < 128:
                    size += (data[at + 1] << 7) - 128
                    at += 2
                else:
                    size, at = decode_varint(data, at)
                    size <<= 1
                begin = at
                at += size >> 1
                if at > last:
                    at, is_whole = end, False  # back to where it begins
                    break
                end, at = at, begin
                at += 1  # attributes: none are in use
                number = data[at]
                if number < 128:
                    at += 1
                    time = first_time + ((number >> 1) ^ -(number & 1))
                elif data[at + 1] < 128:
                    number += (data[at + 1] << 7) - 128
                    at += 2
                    time = first_time + ((number >> 1) ^ -(number & 1))
                else:
                    number, at = decode_varint(data, at)
                    time = first_time + number
                number = data[at]
                if number < 128:
                    at += 1
                    offset = base_offset + ((number >> 1) ^ -(number & 1))
                elif data[at + 1] < 128:
                    number += (data[at + 1] << 7) - 128
                    at += 2
                    offset = base_offset + ((number >> 1) ^ -(number & 1))
                else:
                    number, at = decode_varint(data, at)
                    offset = base_offset + number
                number = data[at]
                if number < 128 and not number & 1:
                    at += 1
                    number >>= 1
                else:
                    number, at = decode_varint(data, at)
                if number >= 0:
                    key = data[at : at + number]
                    at += number
                else:
                    key = None
                number = data[at]
                if number >= 128 > data[at + 1] and not number & 1:
                    number = (number + (data[at + 1] << 7) - 128) >> 1
                    at += 2
                else:
                    number, at = decode_varint(data, at)
                if number >= 0:
                    value = data[at : at + number]
                    at += number
                else:
                    value = None
                if data[at]:
                    headers, at = _headers(data, at, end)
                    spent += len(headers) * HEADER_BYTES
                    if type(headers) is NotKept:
                        at = end
                        left -= 1
                        if offset >= wanted:
                            room -= 1
                            taken.append(OversizedRecord(offset, time if same_time is None else same_time, headers))
                        continue
                else:
                    headers = ()
                    at += 1
                if at != end:
                    raise CorruptRecordError(f"Invalid record size: expected its end at byte {end}, found it at {at}")
                left -= 1
                if offset >= wanted:
                    room -= 1
                    spent += end - begin
                    fields = (offset, time if same_time is None else same_time, key, value, headers)
                    taken.append(kafka_record(KafkaRecord, fields))
        except (ValueError, IndexError, CorruptRecordError) as error:
            offset = taken[-1].offset if taken else -1  # of the last one that is whole
            if isinstance(error, CorruptRecordError):
                raise
            raise CorruptRecordError(f"Found invalid record structure: {error!r}") from error
        finally:
            self.records_read += self._left - left
            self.bytes_read += at - window.at
            self._meter.spent, self._left, window.at = spent, left, at
            self.next_fetch_offset = max(self.next_fetch_offset, offset + 1)
        if not is_whole:
            self._unpack_beyond(taken)
        if not self._left:
            window.check_end()

    def _unpack_beyond(self, taken: list[Record]) -> None:
        """Have the record at the window's end unpacked, or, where it is too large to be kept, pass over it."""
        window, batch = self._window, self._batch
        try:
            size, reason = window.next_record()
            if reason is None:
                return
            delta, at = decode_varint(window.data, window.at + 1)
            offset = batch.base_offset + decode_varint(window.data, at)[0]
            is_appended = batch.timestamp_type == batch.LOG_APPEND_TIME
            time = batch.max_timestamp if is_appended else batch.first_timestamp + delta
        except (ValueError, IndexError) as error:
            raise CorruptRecordError(f"Found invalid record structure: {error!r}") from error
        window.pass_over(size)
        self._left -= 1
        self.records_read += 1
        self.bytes_read += size
        self.next_fetch_offset = max(self.next_fetch_offset, offset + 1)
        if offset >= self.fetch_offset:
            taken.append(OversizedRecord(offset, time, NotKept(reason)))


def _headers(data: bytes, at: int, end: int) -> tuple[Headers, int]:
    """A record's headers and where they end; a name that is not UTF-8 stays bytes.

    end: where the record ends. More than HEADERS_MAX are not kept: NotKept stands for them, and for the record.
    """
    headers: list[tuple[str | bytes, bytes | None]] = []
    name: str | bytes
    count, at = decode_varint(data, at)
    if not 0 <= 2 * count <= end - at:  # each has two sizes
        raise CorruptRecordError(f"Found invalid number of record headers {count}")
    if (reason := header_count(count)) is not None:
        return NotKept(reason), at
    for _ in range(count):
        length, at = decode_varint(data, at)
        if length < 0:
            raise CorruptRecordError(f"Invalid negative header key size {length}")
        name = data[at : at + length]
        with suppress(UnicodeDecodeError):
            name = name.decode()
        at += length
        size, at = decode_varint(data, at)
        headers.append((name, None if size < 0 else data[at : at + size]))
        at += max(size, 0)
    return headers, at
