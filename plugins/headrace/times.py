"""Record times: milliseconds since 1970 as Postgres stores them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 30, 23, 59, 59, 999000, tzinfo=UTC)  # a day before datetime's end: valid in every zone
LATEST_MS = (LATEST - EPOCH) // timedelta(milliseconds=1)


def record_time(timestamp_ms: int | None) -> datetime | None:
    """A record's timestamp, exact to the millisecond; None if it has none.

    A producer may write any number. A time after LATEST is stored as LATEST, because Python's datetime ends there.
    Progress never depends on times.
    """
    if timestamp_ms is None or timestamp_ms < 0:
        return None
    if timestamp_ms > LATEST_MS:
        return LATEST
    return EPOCH + timedelta(milliseconds=timestamp_ms)


class TimeTexts(dict[int | None, str]):
    """A cache of record times as COPY text, by milliseconds: records that were sent together share times.

    It keeps all times of a batch and so knows the earliest and the latest.
    """

    def __missing__(self, timestamp_ms: int | None) -> str:
        at = record_time(timestamp_ms)
        text = self[timestamp_ms] = r"\N" if at is None else at.isoformat(" ", "milliseconds")
        return text

    @property
    def first(self) -> datetime | None:
        """The earliest time; None where no record had one."""
        return record_time(min(self._known(), default=None))

    @property
    def last(self) -> datetime | None:
        """The latest time; None where no record had one."""
        return record_time(max(self._known(), default=None))

    def _known(self) -> Iterator[int]:
        return (timestamp_ms for timestamp_ms in self if timestamp_ms is not None and timestamp_ms >= 0)
