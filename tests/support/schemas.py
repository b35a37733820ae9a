"""A registry in memory, for tests of formats; the real one is in tests/integration/test_format_conformance.py."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from confluent_kafka.schema_registry import Schema

from headrace.formats.base import Fault, Undecodable
from headrace.formats.registry import AVRO, SchemaText


class Schemas:
    """Schemas by id; `failure` is raised in the place of every answer."""

    def __init__(self, schemas: Mapping[int, SchemaText | Any] | None = None) -> None:
        self.schemas = dict(schemas or {})
        self.failure: Exception | None = None
        self.asked: list[int | str] = []

    def schema(self, schema_id: int) -> SchemaText:
        self.asked.append(schema_id)
        if self.failure is not None:
            raise self.failure
        if schema_id not in self.schemas:
            raise Undecodable(Fault.UNKNOWN_SCHEMA, f"schema {schema_id} is not registered")
        found = self.schemas[schema_id]
        return found if isinstance(found, SchemaText) else SchemaText(AVRO, json.dumps(found), {})

    def versions(self, subject: str) -> Iterator[tuple[int, SchemaText]]:
        self.asked.append(subject)
        if self.failure is not None:
            raise self.failure
        yield from ((number, self.schema(number)) for number in self.schemas)


class Registered(Schemas):
    """A registry in memory in which schemas are registered as by confluent-kafka's client."""

    def __init__(self) -> None:
        super().__init__()
        self.subjects: dict[str, list[int]] = {}

    def register_schema(self, subject_name: str, schema: Schema) -> int:
        """The schema's id, the same for the same schema."""
        found = SchemaText(str(schema.schema_type), str(schema.schema_str), {})
        number = next((n for n, known in self.schemas.items() if known == found), len(self.schemas) + 1)
        self.schemas[number] = found
        self.subjects.setdefault(subject_name, []).append(number)
        return number

    def versions(self, subject: str) -> Iterator[tuple[int, SchemaText]]:
        yield from ((number, self.schema(number)) for number in self.subjects.get(subject, ()))


def wire(schema_id: int, payload: bytes) -> bytes:
    """A payload in Confluent's wire format."""
    return b"\0" + schema_id.to_bytes(4, "big") + payload
