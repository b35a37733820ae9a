"""Debezium's change events: an envelope with a row before and after its change, around any format. docs/debezium.md.

https://debezium.io/documentation/reference/3.3/connectors/postgresql.html#postgresql-events
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from headrace.exceptions import DatasetError
from headrace.formats.avro import Avro
from headrace.formats.base import Change, ChangeDecoder, Decoded, Decoder, Fault, Format, JsonText, Undecodable
from headrace.formats.change_events import PLACEHOLDER, Event, Events
from headrace.formats.connect_json import JsonPayloads
from headrace.formats.json_text import Json
from headrace.record import Headers
from headrace.settings import Settings

INNER = ("json", "json_schema", "avro", "protobuf")


@dataclass(frozen=True, slots=True)
class Around:
    """A format around another one, which has the registry and the readers."""

    format: Format = field(default_factory=Json)

    @property
    def has_schema_ids(self) -> bool:
        """Whether values name schemas of a registry."""
        return self.format.has_schema_ids

    def connected(self, settings: Settings) -> Self:
        """The format with the deployment's registry, if it has one."""
        inner = self.format.connected(settings)
        return self if inner is self.format else replace(self, format=inner)

    def second(self) -> Self:
        """The format around another reader."""
        inner = self.format.second()
        return self if inner is self.format else replace(self, format=inner)


@dataclass(frozen=True, slots=True)
class Debezium(Around):
    """A record's value is a change event of Debezium, in another format; so is its key.

    format: how the converter of Kafka Connect writes values and keys. Defaults to Json(), with or without its schema
    part. versions: "position" orders the versions of a row by the source's own position, "offset" by the topic alone.
    Defaults to "position". add_fields: fields of the envelope to add to documents, named as ExtractNewRecordState
    names them: "source.ts_ms" becomes `__source_ts_ms`. unavailable: the connector's unavailable.value.placeholder.
    """

    name: ClassVar[str] = "debezium"

    versions: Literal["position", "offset"] = "position"
    add_fields: tuple[str, ...] = ()
    unavailable: str = PLACEHOLDER

    def __post_init__(self) -> None:
        if self.format.name not in INNER:
            raise DatasetError(f"Debezium: format is {self.format.name}, expected one of {', '.join(INNER)}")
        if self.versions not in ("position", "offset"):
            raise DatasetError(f"Debezium: versions is {self.versions!r}, expected 'position' or 'offset'")
        if isinstance(self.add_fields, str) or not all(self.add_fields):
            raise DatasetError(f"Debezium: add_fields is {self.add_fields!r}, expected a tuple of names")
        if not self.unavailable:
            raise DatasetError("Debezium: unavailable is empty, expected the connector's unavailable.value.placeholder")
        if isinstance(self.format, Avro) and not self.format.is_connect:
            object.__setattr__(self, "format", replace(self.format, is_connect=True))

    @property
    def description(self) -> str:
        """What a value is, in words."""
        return f"a change event of Debezium: {self.format.description}"

    @property
    def key_format(self) -> "DebeziumKey":
        """How a record's key is written: as its value is, without an envelope."""
        return DebeziumKey(self.format)

    def decoder(self) -> "DebeziumDecoder":
        """Reads events."""
        events = Events(self.unavailable, self.add_fields, has_positions=self.versions == "position")
        return DebeziumDecoder(self.format.decoder(), events)


class DebeziumDecoder(ChangeDecoder):
    """Takes the row out of an event. The last event is kept: filter, row and position ask for the same one."""

    def __init__(self, decoder: Decoder, events: Events) -> None:
        self._decoder = decoder
        self._events = events
        self._payloads = JsonPayloads()
        self.reads_headers = decoder.reads_headers
        self._last: tuple[bytes, Event] | None = None

    def decode(self, value: bytes, headers: Headers) -> Decoded:
        """The document of the row after the change, or before its deletion."""
        event = self._event(value, headers)
        if event.ignored is not None:
            raise Undecodable(Fault.UNDECODABLE, f"found {event.ignored}, expected a change of a row")
        # a copy: a validator may change it, and the event is asked for again
        document = dict(event.document) if isinstance(event.document, dict) else event.document
        return Decoded(document, None, self.schema_id(value, headers), event.change)

    def change(self, value: bytes, headers: Headers) -> Change | None:
        """What the event says beside its row; None where it cannot be read."""
        try:
            return self._event(value, headers).change
        except Undecodable:
            return None

    def ignored(self, value: bytes, headers: Headers) -> str | None:
        """What an event is that changes no row: a heartbeat, a message, the bounds of a transaction."""
        try:
            return self._event(value, headers).ignored
        except Undecodable:
            return None

    def schema_id(self, value: bytes, headers: Headers) -> int | None:
        """The registry's id of the schema of the event."""
        return self._decoder.schema_id(value, headers)

    def schema_name(self, value: bytes, headers: Headers) -> str | None:
        """The name of the schema of the event."""
        return self._decoder.schema_name(value, headers)

    def is_known(self, value: bytes) -> bool:
        """Whether the event's schema is known."""
        return self._decoder.is_known(value)

    def _event(self, value: bytes, headers: Headers) -> Event:
        last = self._last
        if last is not None and last[0] is value:
            return last[1]
        document = self._decoder.decode(value, headers).document
        payload = self._payloads.of_text(document) if isinstance(document, str) else self._payloads.of_values(document)
        event = self._events.event(payload)
        self._last = value, event
        return event


@dataclass(frozen=True, slots=True)
class DebeziumKey(Around):
    """A record's key beside a change event: in its format, with or without the JSON converter's schema part."""

    name: ClassVar[str] = "debezium_key"

    @property
    def description(self) -> str:
        """What a key is, in words."""
        return f"a key of Debezium: {self.format.description}"

    def decoder(self) -> "DebeziumKeyDecoder":
        """Reads keys."""
        return DebeziumKeyDecoder(self.format.decoder())


class DebeziumKeyDecoder:
    """Takes the key out of the JSON converter's schema part."""

    json_text: JsonText | None = None

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._payloads = JsonPayloads()
        self.reads_headers = decoder.reads_headers

    def decode(self, value: bytes, headers: Headers) -> Decoded:
        """The key: a document, or a value alone."""
        decoded = self._decoder.decode(value, headers)
        if self._decoder.json_text is None:
            return decoded
        key = self._payloads.of_text(decoded.document)
        return Decoded(key.value_of_all(), None, decoded.schema_id)

    def schema_id(self, value: bytes, headers: Headers) -> int | None:
        """The registry's id of the schema of the key."""
        return self._decoder.schema_id(value, headers)

    def schema_name(self, value: bytes, headers: Headers) -> str | None:
        """The name of the schema of the key."""
        return self._decoder.schema_name(value, headers)

    def is_known(self, value: bytes) -> bool:
        """Whether the key's schema is known."""
        return self._decoder.is_known(value)
