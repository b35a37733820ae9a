"""JSON in Confluent's wire format, whose JSON Schema is in a registry.

The schema is not checked again: producers' serializers check it, and the contract checks every value. Its id has to be
a JSON Schema's that the registry knows, so that a value of another format is never read as JSON.
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

from headrace.formats.base import Decoded, Fault, JsonText, Undecodable, text_of
from headrace.formats.registry import JSON_SCHEMA, Registry, Schemas, SchemaText, Unconnected, parsed_json
from headrace.formats.wire import HEADER_BYTES, require_schema_id, schema_id
from headrace.record import Headers
from headrace.settings import Settings


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """A record's value is a JSON object with the id of a JSON Schema of the registry (HEADRACE_REGISTRY_URL)."""

    name: ClassVar[str] = "json_schema"
    has_schema_ids: ClassVar[bool] = True

    schemas: Schemas = field(default_factory=Unconnected, compare=False, repr=False)

    @property
    def description(self) -> str:
        """What a value is, in words."""
        return "a JSON object in Confluent's wire format; schemas in the registry"

    def connected(self, settings: Settings) -> Self:
        """The format with the deployment's registry."""
        return replace(self, schemas=Registry(settings))

    def second(self) -> Self:
        """There is no other reader."""
        return self

    def decoder(self) -> "JsonSchemaDecoder":
        """Looks each id up once."""
        return JsonSchemaDecoder(self.schemas)


class JsonSchemaDecoder:
    """Takes the id off the front of a document's text."""

    json_text: JsonText | None = JsonText(has_schema_id=True)
    reads_headers: bool = False

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._known: set[int] = set()
        self._titles: dict[int, str | None] = {}

    def decode(self, value: bytes, _headers: Headers) -> Decoded:
        """The document's text; the contract parses it."""
        number = require_schema_id(value)
        if number not in self._known:
            self._look_up(number)
        return Decoded(text_of(value[HEADER_BYTES:]), None, number)

    def schema_id(self, value: bytes, _headers: Headers) -> int | None:
        """The id that the value names."""
        return schema_id(value)

    def schema_name(self, value: bytes, _headers: Headers) -> str | None:
        """The schema's title, by which Confluent's serializers name its subject; None where it has none."""
        number = require_schema_id(value)
        if number not in self._titles:
            schema = parsed_json(self._look_up(number).text, f"schema {number}")
            title = schema.get("title") if isinstance(schema, dict) else None
            self._titles[number] = title if isinstance(title, str) else None
        return self._titles[number]

    def is_known(self, value: bytes) -> bool:
        """Whether the value's id is a JSON Schema's."""
        return schema_id(value) in self._known

    def _look_up(self, number: int) -> SchemaText:
        schema = self._schemas.schema(number)
        if schema.kind != JSON_SCHEMA:
            raise Undecodable(
                Fault.INCOMPATIBLE_SCHEMA, f"schema {number} is of type {schema.kind}, expected {JSON_SCHEMA}"
            )
        self._known.add(number)
        return schema
