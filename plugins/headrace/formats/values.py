"""Values that a document may hold and that JSON has no kind for."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Nanoseconds(int):
    """A moment in nanoseconds since 1970, exact: Python's datetime ends at microseconds.

    has_zone: whether it counts from 1970 UTC; one without a zone is the time that a clock showed.
    """

    has_zone: bool

    def __new__(cls, number: int, *, has_zone: bool = True) -> "Nanoseconds":
        """Make one of a number."""
        made = super().__new__(cls, number)
        made.has_zone = has_zone
        return made

    def datetime(self) -> datetime:
        """The moment, cut off at microseconds; raises OverflowError beyond the years 1 to 9999."""
        at = EPOCH + timedelta(microseconds=int(self) // 1_000)
        return at if self.has_zone else at.replace(tzinfo=None)

    def isoformat(self) -> str:
        """ISO 8601 with nine digits; raises OverflowError beyond the years 1 to 9999."""
        at = self.datetime().replace(microsecond=0, tzinfo=None)
        return f"{at.isoformat()}.{int(self) % 1_000_000_000:09}{'+00:00' if self.has_zone else ''}"
