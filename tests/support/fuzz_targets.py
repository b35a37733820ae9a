"""Datasets to fuzz, one or more of each format: declaration, payloads, and who judges them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient

from headrace.settings import Settings
from tests.support import fuzz_oracle, fuzz_schemas, fuzz_shapes
from tests.support.format_writers import TEXTS
from tests.support.fuzz_payloads import Payload, payloads
from tests.support.fuzz_schemas import CONFLUENT_HEADER, Headers, SchemaFuzz
from tests.support.fuzz_shapes import PayloadShape
from tests.support.order_schemas import json_schema
from tests.support.orders import DECLARATION
from tests.support.schemas import wire

DATASETS_DIR = Path(__file__).parent / "fuzz_datasets"
UNKNOWN_ID = 2_000_000_000
UNKNOWN_FINGERPRINT = b"\xc3\x01unknown!"

Payloads = Callable[[int, int], Iterator[Payload]]  # of a seed, and a number of records
Oracle = Callable[[bytes | None, bytes | None], dict[str, Any] | None]  # raises document_oracle.Undecided


@dataclass(frozen=True, slots=True)
class FuzzTarget:
    """A dataset to fuzz. declaration: its text, which reads the topic of the dataset's name."""

    name: str
    format: str
    declaration: str
    payloads: Payloads
    oracle: Oracle
    has_registry: bool = False

    def declare(self, datasets_dir: Path, topic: str) -> None:
        """Write its declaration, reading from another topic."""
        assert self.declaration.count(f'topic="{self.name}"') == 1
        text = self.declaration.replace(f'topic="{self.name}"', f'topic="{topic}"')
        (datasets_dir / f"{self.name}.py").write_text(text)


def _shaped(shape: PayloadShape) -> Payloads:
    return lambda seed, records: payloads(shape, seed, records)


JOBS = (Settings().datasets_dir / "jobs.py").read_text()
PLAIN_TARGETS = (
    FuzzTarget("jobs", "keyed_json", JOBS, _shaped(fuzz_shapes.JOBS), fuzz_oracle.jobs),
    FuzzTarget(
        "readings", "json", (DATASETS_DIR / "readings.py").read_text(), _shaped(fuzz_shapes.READINGS),
        fuzz_oracle.readings,
    ),
    FuzzTarget(
        "lines", "text", TEXTS.replace("TOPIC", "lines").replace("orders", "lines").replace("FORMAT", "PlainText()"),
        _shaped(fuzz_shapes.READINGS), fuzz_oracle.lines,
    ),
)  # fmt: skip
FORMATS = ("keyed_json", "json", "text", "json_schema", "avro", "avro_single_object", "protobuf")
PLAIN_FORMATS = FORMATS[:3]


class JsonSchemaFuzz:
    """The payloads of jobs behind a schema's id, of which some are wrong."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def payloads(self, seed: int, records: int) -> Iterator[Payload]:
        """The same payloads; of ten headers one is another's, none, or cut off."""
        rng, headers = Random(seed), self._headers
        for payload in payloads(replace(fuzz_shapes.JOBS, separator=None), seed, records):
            header = rng.choice(headers.known)
            if rng.random() < 0.1:
                header = rng.choice((b"", header[:-1], b"\1" + header[1:], headers.foreign, headers.unknown))
            yield replace(payload, value=None if payload.value is None else header + payload.value)

    def oracle(self, key: bytes | None, value: bytes | None) -> dict[str, Any] | None:
        """The row of a record, or None. Raises Undecided for an id that another test's schema may have."""
        if value is None:
            return fuzz_oracle.unseparated_jobs(key, None)
        if not self._headers.is_known(value[:CONFLUENT_HEADER]) or len(value) > fuzz_oracle.BYTES_MAX:
            return None
        return fuzz_oracle.unseparated_jobs(key, value[CONFLUENT_HEADER:])


def targets(format: str | None, registry_url: str | None) -> Sequence[FuzzTarget]:
    """The targets of a format, or of all. Those with schemas register them, and need the registry's address."""
    if format in PLAIN_FORMATS:
        return [target for target in PLAIN_TARGETS if target.format == format]
    assert registry_url is not None
    found = registry_targets(SchemaRegistryClient({"url": registry_url}))
    return [target for target in (*PLAIN_TARGETS, *found) if format in (None, target.format)]


class Registers(Protocol):
    """A registry, as its client registers schemas."""

    def register_schema(self, subject_name: str, schema: Schema) -> int:
        """The schema's id."""


def registry_targets(registry: Registers) -> Iterator[FuzzTarget]:
    """The targets whose values have schemas, which are registered."""

    def header(subject: str, text: str, kind: str) -> bytes:
        return wire(registry.register_schema(subject, Schema(text, kind)), b"")

    def headers(kind: str, texts: Sequence[str], foreign: bytes) -> Headers:
        subject = f"fuzz-{kind.lower()}"
        return Headers([header(subject, text, kind) for text in texts], foreign, wire(UNKNOWN_ID, b""))

    documents = [json_schema("id", title=title) for title in ("Job", "Work")]
    json_schemas = headers("JSON", documents, header("fuzz-long", '"long"', "AVRO"))
    avro_headers = headers("AVRO", fuzz_schemas.avro().schemas, json_schemas.known[0])
    message_headers = headers("PROTOBUF", fuzz_schemas.protobuf().schemas, json_schemas.known[0])
    single_object = Headers(fuzz_schemas.single_object_headers(), b"\xc3\x01" + bytes(8), UNKNOWN_FINGERPRINT)
    jobs = JsonSchemaFuzz(json_schemas)
    text = JOBS.replace("KeyedJson", "JsonSchema").replace('"jobs"', '"checked"')
    yield FuzzTarget("checked", "json_schema", text, jobs.payloads, jobs.oracle, has_registry=True)
    for name, format, fuzz in (
        ("avro", "Avro()", SchemaFuzz(fuzz_schemas.avro(), avro_headers)),
        (
            "avro_single_object",
            'Avro("single_object", subject="fuzz-avro")',
            SchemaFuzz(fuzz_schemas.avro(), single_object),
        ),
        ("protobuf", "Protobuf()", SchemaFuzz(fuzz_schemas.protobuf(), message_headers)),
    ):
        text = DECLARATION.replace('"orders"', f'"{name}"').replace("TOPIC", name)
        text = text.replace("KEY_FORMAT", "None").replace("FORMAT", format)
        yield FuzzTarget(name, name, text, fuzz.payloads, fuzz.oracle, has_registry=True)
