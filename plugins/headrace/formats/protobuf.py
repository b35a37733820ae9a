"""Protobuf in Confluent's wire format: behind the schema's id stands which of its messages a value is.

https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from headrace.formats.base import Decoded, Fault, JsonText, Undecodable
from headrace.formats.protobuf_schema import MessageTypes, compiled
from headrace.formats.protobuf_values import Convert, Converters
from headrace.formats.registry import Registry, Schemas, Unconnected
from headrace.formats.wire import HEADER_BYTES, require_schema_id, schema_id
from headrace.record import Headers
from headrace.settings import Settings

INDEXES_MAX = 100  # messages nest no deeper
INDEXES_BYTES_MAX = 10 * INDEXES_MAX


@dataclass(frozen=True, slots=True)
class Protobuf:
    """A record's value is a Protobuf message, by a schema of the registry (HEADRACE_REGISTRY_URL).

    Fields have the names of the .proto file. No code is generated: the schema's text is compiled when it is first met.
    """

    name: ClassVar[str] = "protobuf"
    has_schema_ids: ClassVar[bool] = True

    schemas: Schemas = field(default_factory=Unconnected, compare=False, repr=False)

    @property
    def description(self) -> str:
        """What a value is, in words."""
        return "Protobuf in Confluent's wire format; schemas in the registry"

    def connected(self, settings: Settings) -> Self:
        """The format with the deployment's registry."""
        return replace(self, schemas=Registry(settings))

    def second(self) -> Self:
        """There is no other reader."""
        return self

    def decoder(self) -> "ProtobufDecoder":
        """Compiles each schema once."""
        return ProtobufDecoder(self.schemas)


class ProtobufDecoder:
    """Reads messages by the schemas that they name."""

    json_text: JsonText | None = None
    reads_headers: bool = False

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._types: dict[int, tuple[MessageTypes, Converters]] = {}  # by the schema's id
        self._read: dict[bytes, tuple[Any, Convert]] = {}  # by a value's header: the message's class and its converter

    def decode(self, value: bytes, _headers: Headers) -> Decoded:
        """The document of a value."""
        from google.protobuf.message import DecodeError

        number = require_schema_id(value)
        message_class, convert, end = self._message(number, value)
        try:
            message = message_class.FromString(value[end:])
        except DecodeError as error:
            raise Undecodable(Fault.UNDECODABLE, f"by schema {number}: {' '.join(str(error).split())[:300]}") from error
        return Decoded(convert(message), None, number)

    def schema_id(self, value: bytes, _headers: Headers) -> int | None:
        """The id that the value names."""
        return schema_id(value)

    def schema_name(self, value: bytes, _headers: Headers) -> str | None:
        """The full name of the message, with its package and the messages that it nests in."""
        message_class, _, _ = self._message(require_schema_id(value), value)
        return str(message_class.DESCRIPTOR.full_name)

    def is_known(self, value: bytes) -> bool:
        """Whether the value's schema was compiled."""
        return schema_id(value) in self._types

    def _message(self, number: int, value: bytes) -> tuple[Any, Convert, int]:
        """The class of a value's message, its converter, and where the message begins."""
        end = _indexes_end(value)
        found = self._read.get(value[:end])
        if found is None:
            found = self._read[value[:end]] = self._reader(number, value, end)
        return *found, end

    def _reader(self, number: int, value: bytes, end: int) -> tuple[Any, Convert]:
        from google.protobuf.message_factory import GetMessageClass

        if number not in self._types:
            self._types[number] = compiled(self._schemas.schema(number), f"schema {number}"), Converters()
        types, converters = self._types[number]
        descriptor = types.descriptor(_indexes(value[HEADER_BYTES:end]))
        return GetMessageClass(descriptor), converters.of(descriptor)


def _indexes_end(value: bytes) -> int:
    """Where the message's indexes end; raises Undecodable where they do not."""
    if len(value) > HEADER_BYTES and not value[HEADER_BYTES]:  # one zero byte for the file's first message
        return HEADER_BYTES + 1
    at, left = HEADER_BYTES, 1
    count: int | None = None
    while left:
        if at >= len(value) or at > HEADER_BYTES + INDEXES_BYTES_MAX:
            raise Undecodable(Fault.UNDECODABLE, "ends in the indexes of its message")
        at += 1
        if value[at - 1] < 0x80:
            left -= 1
            if count is None:
                count = left = _zigzag(value[HEADER_BYTES:at])[0]
                if not 0 < count <= INDEXES_MAX:
                    raise Undecodable(Fault.UNDECODABLE, f"names its message by {count} indexes, expected 1 or more")
    return at


def _indexes(raw: bytes) -> list[int]:
    """The indexes of a message, without their number."""
    return [0] if raw == b"\0" else _zigzag(raw)[1:]


def _zigzag(raw: bytes) -> list[int]:
    """Numbers as varints of which the lowest bit is the sign."""
    found, number, shift = [], 0, 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append((number >> 1) ^ -(number & 1))
            number = shift = 0
    return found
