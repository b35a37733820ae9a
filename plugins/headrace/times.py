"""Record times: milliseconds since 1970 as Postgres stores them."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, 23, 59, 59, 999000, tzinfo=UTC)
LATEST_MS = (LATEST - EPOCH) // timedelta(milliseconds=1)


def record_time(timestamp_ms: int | None) -> datetime | None:
    """A record's timestamp, exact to the millisecond; None where it has none.

    A producer may write any number: what lies beyond the year 9999 is stored as its last moment, because
    Python's datetime ends there. Time never drives progress.
    """
    if timestamp_ms is None or timestamp_ms < 0:
        return None
    if timestamp_ms > LATEST_MS:
        return LATEST
    return EPOCH + timedelta(milliseconds=timestamp_ms)
