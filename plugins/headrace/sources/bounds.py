"""Size limits of records. Of a larger record only the coordinate is kept, and it becomes a dead letter."""

from dataclasses import dataclass

from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import NOT_KEPT, Rejection
from headrace.record import Headers

RECORD_BYTES_MAX = 32 * 1024 * 1024  # HEADRACE_RECORD_BYTES_MAX
UNPACKED_BYTES_MAX = 64 * 1024 * 1024  # HEADRACE_UNPACKED_BYTES_MAX
UNPACKED_RATIO = 200  # records compress to a tenth or a fiftieth, zeros to a thousandth
HEADERS_MAX = 100_000  # per record: two bytes each on the wire, seventy in Python


@dataclass(frozen=True, slots=True)
class Bounds:
    """Size limits of unpacked data.

    record_bytes: of a record (key, value and headers), compressed or not. unpacked_bytes: of the records of a
    compressed batch, or UNPACKED_RATIO times its size if that is more. Both default to the settings' defaults.
    """

    record_bytes: int = RECORD_BYTES_MAX
    unpacked_bytes: int = UNPACKED_BYTES_MAX

    def of_batch(self, packed_bytes: int) -> int:
        """The limit of unpacked bytes for a batch of this compressed size."""
        return max(self.unpacked_bytes, packed_bytes * UNPACKED_RATIO)

    def record(self, size: int) -> Rejection | None:
        """The rejection of a record of this size if it is too large; else None."""
        if size <= self.record_bytes:
            return None
        return Rejection(
            Reason.TOO_LARGE,
            f"record has {size} bytes, expected at most {self.record_bytes}: they are {NOT_KEPT}; raise "
            "HEADRACE_RECORD_BYTES_MAX and reload it",
        )

    def batch(self, packed_bytes: int) -> Rejection:
        """The rejection of a record after the limit of its batch."""
        return Rejection(
            Reason.TOO_LARGE,
            f"its batch of {packed_bytes} bytes unpacks to more than {self.of_batch(packed_bytes)}, expected at most "
            f"{UNPACKED_RATIO} times its size: the record's bytes are {NOT_KEPT}; raise "
            "HEADRACE_UNPACKED_BYTES_MAX and reload it",
        )


def header_count(count: int) -> Rejection | None:
    """The rejection of a record with too many headers; else None."""
    if count <= HEADERS_MAX:
        return None
    return Rejection(
        Reason.TOO_LARGE,
        f"record has {count} headers, expected at most {HEADERS_MAX}: it is {NOT_KEPT}, correct its producer",
    )


class NotKept(list[tuple[str | bytes, bytes | None]]):
    """The headers of a record whose bytes are not kept: an empty list with the rejection as an attribute."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__()
        self.rejection = rejection


@dataclass(frozen=True, slots=True)
class OversizedRecord:
    """A record whose bytes are not kept: its coordinate and time become a dead letter."""

    offset: int
    timestamp: int | None
    headers: NotKept
    key: bytes | None = None
    value: bytes | None = None

    @property
    def rejection(self) -> Rejection:
        """Why its bytes are not kept."""
        return self.headers.rejection


def is_kept(headers: Headers) -> bool:
    """Whether a record with these headers has kept its bytes."""
    return not isinstance(headers, NotKept)


def oversized_entry(bounds: Bounds, offset: int, entry_id: bytes, size: int) -> OversizedRecord:
    """The record for a stream's entry that is larger than an answer: its id, which is also its key."""
    rejection = Rejection(
        Reason.TOO_LARGE,
        f"entry takes {size} bytes, 64 for each name and each value with them, expected at most {bounds.record_bytes}: "
        f"they are {NOT_KEPT}; HEADRACE_RECORD_BYTES_MAX raises it for entries that are read later",
    )
    return OversizedRecord(offset, int(entry_id.partition(b"-")[0]), NotKept(rejection), entry_id)
