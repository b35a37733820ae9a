"""Deserializers that count keys and values, for versions of kafka-python whose own unpacking is used."""

from typing import Any

from kafka.serializer import Deserializer

from headrace.record import HEADER_BYTES, Headers
from headrace.sources.bounds import OversizedRecord, is_kept
from headrace.sources.kafka_records import Meter


def judged(record: Any) -> Any:
    """A record of kafka-python's, or an oversized record if its bytes are not kept."""
    if is_kept(record.headers):
        return record
    return OversizedRecord(record.offset, record.timestamp, record.headers)


class Metered(Deserializer):  # type: ignore[misc]
    """Returns keys and values unchanged, and counts their bytes."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def deserialize(self, _topic: str, headers: Headers, data: bytes | None) -> bytes | None:
        """Count a key or a value; the one that reaches the limit still passes."""
        self._meter.check()
        if data is not None:
            self._meter.spent += len(data)
        if headers:
            self._meter.spent += sum(HEADER_BYTES + len(name) + (len(value) if value else 0) for name, value in headers)
        return data
