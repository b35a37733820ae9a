"""When generated records happen: spread evenly over some days, or now."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[int], datetime]  # from a record's number to its time
REMEMBERED = 10_000  # an endless generator repeats or changes one of this many earlier records


def spread(records: int, first_day: datetime, days: float) -> Clock:
    """Record 0 at first_day, the others evenly over the following days."""
    step = timedelta(days=days) / max(records, 1)
    return lambda number: first_day + step * number


def now(_number: int) -> datetime:
    """The current time, in UTC and without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
