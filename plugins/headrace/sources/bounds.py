"""How much of a record is kept. Of a larger one only the coordinates are, and it becomes a dead letter."""

from dataclasses import dataclass

from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import NOT_KEPT, Rejection
from headrace.record import Headers

RECORD_BYTES_MAX = 32 * 1024 * 1024  # HEADRACE_RECORD_BYTES_MAX
UNPACKED_BYTES_MAX = 64 * 1024 * 1024  # HEADRACE_UNPACKED_BYTES_MAX
UNPACKED_RATIO = 200  # records shrink to a tenth or a fiftieth; a thousandth is what zeros shrink to
HEADERS_MAX = 100_000  # of a record: two bytes each, of which Python makes seventy


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept of what is unpacked.

    record_bytes: of a record, compressed or not: key, value and headers. unpacked_bytes: of the records of a
    compressed batch, unless that is less than UNPACKED_RATIO times its size. Both default to the settings' defaults.
    """

    record_bytes: int = RECORD_BYTES_MAX
    unpacked_bytes: int = UNPACKED_BYTES_MAX

    def of_batch(self, packed_bytes: int) -> int:
        """How many bytes of a batch of this compressed size are kept."""
        return max(self.unpacked_bytes, packed_bytes * UNPACKED_RATIO)

    def record(self, size: int) -> Rejection | None:
        """Why a record of this size is not kept; None where it is."""
        if size <= self.record_bytes:
            return None
        return Rejection(
            Reason.TOO_LARGE,
            f"record has {size} bytes, expected at most {self.record_bytes}: they are {NOT_KEPT}; raise "
            "HEADRACE_RECORD_BYTES_MAX and reload it",
        )

    def batch(self, packed_bytes: int) -> Rejection:
        """Why a record is not kept that ends beyond what is kept of its batch."""
        return Rejection(
            Reason.TOO_LARGE,
            f"its batch of {packed_bytes} bytes unpacks to more than {self.of_batch(packed_bytes)}, expected at most "
            f"{UNPACKED_RATIO} times its size: the record's bytes are {NOT_KEPT}; raise "
            "HEADRACE_UNPACKED_BYTES_MAX and reload it",
        )


def header_count(count: int) -> Rejection | None:
    """Why a record with so many headers is not kept; None where it is."""
    if count <= HEADERS_MAX:
        return None
    return Rejection(
        Reason.TOO_LARGE,
        f"record has {count} headers, expected at most {HEADERS_MAX}: it is {NOT_KEPT}, correct its producer",
    )


class NotKept(list[tuple[str | bytes, bytes | None]]):
    """The headers of a record whose bytes are not kept: none, and the reason beside them."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__()
        self.rejection = rejection


@dataclass(frozen=True, slots=True)
class OversizedRecord:
    """A record whose bytes are not kept. Its coordinates and its time are, and it becomes a dead letter."""

    offset: int
    timestamp: int | None
    headers: NotKept
    key: bytes | None = None
    value: bytes | None = None

    @property
    def rejection(self) -> Rejection:
        """Why."""
        return self.headers.rejection


def is_kept(headers: Headers) -> bool:
    """Whether a record with these headers has its bytes."""
    return not isinstance(headers, NotKept)


def oversized_entry(bounds: Bounds, offset: int, entry_id: bytes, size: int) -> OversizedRecord:
    """What is kept of an entry of a stream that fits into no answer: its id, which is its key, too."""
    rejection = Rejection(
        Reason.TOO_LARGE,
        f"entry takes {size} bytes, 64 for each name and each value with them, expected at most {bounds.record_bytes}: "
        f"they are {NOT_KEPT}; HEADRACE_RECORD_BYTES_MAX raises it for entries that are read later",
    )
    return OversizedRecord(offset, int(entry_id.partition(b"-")[0]), NotKept(rejection), entry_id)
