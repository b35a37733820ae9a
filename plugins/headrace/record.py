"""A record as all sources yield it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

# names and values in the record's own order, repeats included; a name is bytes where it is not UTF-8
Headers = Sequence[tuple[str | bytes, bytes | None]]
HEADER_BYTES = 70  # memory of a header besides its bytes: a tuple and its slot in a list


class Record(Protocol):
    """One record; kafka-python's ConsumerRecord satisfies this protocol."""

    @property
    def offset(self) -> int:
        """The record's number in its partition."""

    @property
    def timestamp(self) -> int | None:
        """Milliseconds since 1970 UTC; None or negative where the source has none."""

    @property
    def key(self) -> bytes | None:
        """None where the record has no key."""

    @property
    def value(self) -> bytes | None:
        """None is a tombstone."""

    @property
    def headers(self) -> Headers:
        """Names and values in the record's order."""


class KafkaRecord(NamedTuple):
    """A record from Kafka; a tuple, because unpacking one takes half the time of reading five attributes."""

    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


# kafka_record(KafkaRecord, fields) equals KafkaRecord(*fields), which runs Python code and takes twice as long
kafka_record: Callable[[type[KafkaRecord], tuple[Any, ...]], KafkaRecord] = tuple.__new__
