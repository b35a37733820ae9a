"""What a format is: from the bytes of a value to its document. docs/formats.md describes all of them.

A record passes source, format, contract, in this order. A format knows bytes and schemas, and no fields: the contract
names the fields, converts and checks them. So a format has no reader's schema of its own. A value is read by the
schema that its producer wrote it by, and the contract takes its fields by name, with its defaults and its lossless
conversions; what it does not name is kept in `_extra`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

from headrace.record import Headers
from headrace.settings import Settings


class Fault(Enum):
    """Why a value is none of its format's; contracts.reasons has the reason of the same name."""

    INVALID_UTF8 = auto()
    INVALID_JSON = auto()
    UNDECODABLE = auto()
    UNKNOWN_SCHEMA = auto()
    INCOMPATIBLE_SCHEMA = auto()
    OUT_OF_RANGE = auto()
    TRUNCATED = auto()


class Undecodable(ValueError):
    """A value is none of its format's: the record is a dead letter. Never leaves contracts/."""

    def __init__(self, fault: Fault, detail: str) -> None:
        super().__init__(detail)
        self.fault = fault
        self.detail = detail


class Change(NamedTuple):
    """What a change event says beside its row.

    op: c, u, d or r (created, updated, deleted, read by a snapshot); None where the event does not say. position: where
    the source's log has the change. is_deletion: whether the row is gone. unavailable: fields of whose values the event
    says only that they did not change.
    """

    op: str | None
    position: tuple[int, ...] | None = None
    is_deletion: bool = False
    unavailable: frozenset[str] = frozenset()


class Decoded(NamedTuple):
    """A document, and what was found beside it.

    document: JSON text, which the contract parses exactly; or what a schema made of the value: a mapping of names to
    None, bool, int, float, str, bytes, Decimal, UUID, date, time, datetime, Nanoseconds, lists and mappings. A key may
    be one of these alone. prefix: a key that stood before the document. schema_id: what Decoder.schema_id gives.
    change: of a change event; the document of a deletion may hold the key alone, or be None.
    """

    document: Any
    prefix: bytes | None = None
    schema_id: int | None = None
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class JsonText:
    """Where a value's JSON text is, for the fast path (contracts.copy_text).

    separator: what may stand between a key and the document. has_schema_id: whether five bytes with a schema's id,
    which the decoder has to know, stand before it.
    """

    separator: str | None = None
    has_schema_id: bool = False


class Decoder(Protocol):
    """Decodes the values of a dataset, or its keys."""

    json_text: JsonText | None
    """Where the JSON text of a value is; None where documents are no JSON text."""

    reads_headers: bool
    """Whether a record's headers say how its value is read; the fast path does not see them."""

    def decode(self, value: bytes, headers: Headers) -> Decoded:
        """The document of a value, all of its bytes.

        Raises Undecodable because of the value: such a record is a dead letter, and is decoded again when it is
        replayed. Raises RetriableError or PermanentError because of what a decoder needs besides, a registry: then
        nothing is known of the record, and the run fails.
        """

    def schema_id(self, value: bytes, headers: Headers) -> int | None:
        """The registry's id of the schema of a value, for `_schema_id`; None where it names none. Never raises."""

    def schema_name(self, value: bytes, headers: Headers) -> str | None:
        """The full name of the record or message that a value is, as its schema has it; None where it has no name.

        Raises what `decode` raises, for a value that names no schema too.
        """

    def is_known(self, value: bytes) -> bool:
        """Whether the schema of a value is known, so that its JSON text may be read without `decode`."""


Counted = Callable[[bytes], tuple[dict[str, Any], int | None]]
"""Gives a value's document and the registry's id of its schema."""


@runtime_checkable
class CountsMoments(Protocol):
    """A decoder that can leave moments as the numbers that values have: making a datetime and writing it takes 2 us."""

    def counted(self, fields: frozenset[str]) -> Counted:
        """What decodes for the fast path, as `decode` does, but for these fields.

        Where one of them is an int there, it is a moment in microseconds since 1970 UTC. The function raises some
        exception for a value that `decode` has to look at.
        """


class Format(Protocol):
    """What a declaration says of the bytes of values, or of keys: `Dataset(..., format=Avro())`.

    An instance is a frozen dataclass. It checks its parameters and raises DatasetError.
    """

    name: ClassVar[str]
    """One word, for people."""

    @property
    def has_schema_ids(self) -> bool:
        """Whether values name schemas of a registry: then the staging table has `_schema_id`."""

    @property
    def description(self) -> str:
        """What a value is, in words."""

    def connected(self, settings: Settings) -> Self:
        """The format of a deployment: one with a registry gets its client, which connects when it is first asked."""

    def second(self) -> Self:
        """The format with another reader of the same bytes, for `verify --deep`; itself if there is only one."""

    def decoder(self) -> Decoder:
        """A new decoder."""


class Plain:
    """A format that needs no registry."""

    __slots__ = ()

    has_schema_ids: ClassVar[bool] = False

    def connected(self, _settings: Settings) -> Self:
        """Nothing to connect."""
        return self

    def second(self) -> Self:
        """There is no other reader."""
        return self


class PlainDecoder:
    """A decoder of values without schemas."""

    __slots__ = ()

    json_text: JsonText | None = None
    reads_headers: bool = False

    def schema_id(self, _value: bytes, _headers: Headers) -> int | None:
        """None: there is no schema."""
        return None

    def schema_name(self, _value: bytes, _headers: Headers) -> str | None:
        """None: there is no schema."""
        return None

    def is_known(self, _value: bytes) -> bool:
        """There is nothing to know."""
        return True


class ChangeDecoder(ABC):
    """A decoder of change events, whose documents are JSON text or what a schema made, each on its own.

    The staging table of such a dataset has `_position` and `_op`.
    """

    json_text: JsonText | None = None
    reads_headers: bool = False

    @abstractmethod
    def decode(self, value: bytes, headers: Headers) -> Decoded:
        """As Decoder.decode; the document is that of the row."""

    @abstractmethod
    def change(self, value: bytes, headers: Headers) -> Change | None:
        """What an event says beside its row; None where it cannot be read."""

    @abstractmethod
    def ignored(self, value: bytes, headers: Headers) -> str | None:
        """What an event is that changes no row, in words; None for others, and where it cannot be read."""

    @abstractmethod
    def schema_id(self, value: bytes, headers: Headers) -> int | None:
        """As Decoder.schema_id."""

    @abstractmethod
    def schema_name(self, value: bytes, headers: Headers) -> str | None:
        """As Decoder.schema_name."""

    @abstractmethod
    def is_known(self, value: bytes) -> bool:
        """As Decoder.is_known."""


def text_of(value: bytes) -> str:
    """A value's text; raises Undecodable with the first byte that is not UTF-8."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Undecodable(
            Fault.INVALID_UTF8, f"byte {error.start} is 0x{value[error.start]:02x}, expected UTF-8"
        ) from error


Document = Mapping[str, Any]
