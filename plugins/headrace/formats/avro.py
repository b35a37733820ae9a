"""Avro with schemas in a registry: Confluent's wire format, and Avro's own single-object encoding.

A value is read by the schema that it was written by. The contract takes its fields by name and resolves them as an Avro
reader would: a field that the schema has not yet is the contract's default, one that the contract does not name is kept
in `_extra`, a whole number is accepted for a fraction, a text for bytes.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any, ClassVar, Literal, Self

from headrace.exceptions import DatasetError
from headrace.formats.avro_schema import AvroSchema, NotCounted, parse
from headrace.formats.base import Counted, Decoded, Fault, JsonText, Undecodable
from headrace.formats.fingerprints import Fingerprints
from headrace.formats.registry import Registry, Schemas, Unconnected
from headrace.formats.wire import HEADER_BYTES, require_schema_id, schema_id
from headrace.record import Headers
from headrace.settings import Settings

SINGLE_OBJECT = b"\xc3\x01"  # and the schema's fingerprint in eight bytes, little-endian
SINGLE_OBJECT_BYTES = 10

_Read = Callable[[BytesIO], Any]


@dataclass(frozen=True, slots=True)
class Avro:
    """A record's value is Avro, by a schema of the registry (HEADRACE_REGISTRY_URL).

    encoding: "confluent", which every registry's serializer writes, or "single_object", Avro's own, which names the
    schema by its fingerprint. Defaults to "confluent". subject: where the schemas of single objects are registered;
    "confluent" needs none.
    """

    name: ClassVar[str] = "avro"
    has_schema_ids: ClassVar[bool] = True

    encoding: Literal["confluent", "single_object"] = "confluent"
    subject: str | None = None
    schemas: Schemas = field(default_factory=Unconnected, compare=False, repr=False)
    is_second: bool = field(default=False, compare=False, repr=False)  # whether fastavro's Python code reads values
    # whether the names that Kafka Connect gives to types (connect.name) say what their values are
    is_connect: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.encoding not in ("confluent", "single_object"):
            raise DatasetError(f"Avro: encoding is {self.encoding!r}, expected 'confluent' or 'single_object'")
        if (self.encoding == "single_object") != (self.subject is not None):
            expected = "the subject whose schemas are looked for" if self.subject is None else "none: ids say it"
            raise DatasetError(f"Avro: encoding {self.encoding} with subject {self.subject!r}, expected {expected}")

    @property
    def description(self) -> str:
        """What a value is, in words."""
        if self.subject is None:
            return "Avro in Confluent's wire format; schemas in the registry"
        return f"Avro in single-object encoding; schemas in the registry's subject {self.subject}"

    def connected(self, settings: Settings) -> Self:
        """The format with the deployment's registry."""
        return replace(self, schemas=Registry(settings))

    def second(self) -> Self:
        """The format read by fastavro's Python code, which shares no line with its C code."""
        return replace(self, is_second=True)

    def decoder(self) -> "AvroDecoder":
        """Reads each value by its writer's schema."""
        fingerprints = None if self.subject is None else Fingerprints(self.schemas, self.subject)
        return AvroDecoder(self.schemas, fingerprints, in_python=self.is_second, is_connect=self.is_connect)


class AvroDecoder:
    """Reads values by the schemas that they name; a schema is parsed once."""

    json_text: JsonText | None = None
    reads_headers: bool = False

    def __init__(
        self,
        schemas: Schemas,
        fingerprints: Fingerprints | None,
        *,
        in_python: bool = False,
        is_connect: bool = False,
    ) -> None:
        self._in_python = in_python
        self._is_connect = is_connect
        self._schemas = schemas
        self._fingerprints = fingerprints
        self._header = HEADER_BYTES if fingerprints is None else SINGLE_OBJECT_BYTES
        self._read: dict[int, _Read] = {}  # by the schema's id
        self._names: dict[int, str | None] = {}

    def decode(self, value: bytes, _headers: Headers) -> Decoded:
        """The document of a value: a mapping, or for a key whose schema is no record's a value alone."""
        number = self._require_id(value)
        found = self._read.get(number) or self._reader(number)
        data = BytesIO(value)
        data.seek(self._header)
        try:
            document = found(data)
        except MemoryError:
            raise
        except (OverflowError, struct.error) as error:
            raise Undecodable(Fault.OUT_OF_RANGE, f"by schema {number}: {_shown(error)}") from error
        except Exception as error:  # of fastavro's: EOFError, IndexError, UnicodeDecodeError, ValueError, ...
            raise Undecodable(Fault.UNDECODABLE, f"by schema {number}: {_shown(error)}") from error
        if data.tell() != len(value):
            raise Undecodable(
                Fault.UNDECODABLE, f"by schema {number}: ends {len(value) - data.tell()} bytes before the value"
            )
        return Decoded(document, None, number)

    def counted(self, fields: frozenset[str]) -> Counted:
        """As CountsMoments.counted."""
        known: dict[bytes, tuple[int, _Read]] = {}  # by the bytes that name a schema
        length = self._header

        def decode(value: bytes) -> tuple[dict[str, Any], int | None]:
            header = value[:length]
            number, read = known.get(header) or add(header, value)
            data = BytesIO(value)
            data.seek(length)
            document = read(data)
            if data.read(1):
                raise ValueError
            return document, number

        def add(header: bytes, value: bytes) -> tuple[int, _Read]:
            number = self._require_id(value)
            text = self._schemas.schema(number)
            try:
                schema = parse(text, f"schema {number}", is_connect=self._is_connect, moments=fields)
            except NotCounted:
                read = _without_numbers(self._read.get(number) or self._reader(number), fields)
            else:
                read = _reader_of(schema, in_python=self._in_python)
            known[header] = number, read
            return number, read

        return decode

    def schema_id(self, value: bytes, _headers: Headers) -> int | None:
        """The id that the value names, or that its fingerprint is known to stand for."""
        if self._fingerprints is None:
            return schema_id(value)
        return self._fingerprints.known(value[2:SINGLE_OBJECT_BYTES]) if value[:2] == SINGLE_OBJECT else None

    def schema_name(self, value: bytes, _headers: Headers) -> str | None:
        """The full name of the record; None of a union."""
        number = self._require_id(value)
        if number not in self._names:
            self._reader(number)
        return self._names[number]

    def is_known(self, value: bytes) -> bool:
        """Whether the value's schema was parsed."""
        return self.schema_id(value, ()) in self._read

    def _require_id(self, value: bytes) -> int:
        return require_schema_id(value) if self._fingerprints is None else self._single_object_id(value)

    def _single_object_id(self, value: bytes) -> int:
        if len(value) < SINGLE_OBJECT_BYTES or value[:2] != SINGLE_OBJECT:
            raise Undecodable(
                Fault.UNDECODABLE, f"begins with {value[:2]!r}, expected {SINGLE_OBJECT!r} and a schema's fingerprint"
            )
        assert self._fingerprints is not None
        return self._fingerprints.schema_id(value[2:SINGLE_OBJECT_BYTES])

    def _reader(self, number: int) -> _Read:
        schema = parse(self._schemas.schema(number), f"schema {number}", is_connect=self._is_connect)
        self._names[number] = schema.name
        self._read[number] = found = _reader_of(schema, in_python=self._in_python)
        return found


def _reader_of(schema: AvroSchema, *, in_python: bool) -> _Read:
    from fastavro import _read_py, schemaless_reader

    parsed = schema.parsed
    # in Python what nests too deep is an error, by its limit of recursion
    read: Any = vars(_read_py)["schemaless_reader"] if schema.is_recursive or in_python else schemaless_reader
    return lambda data: read(data, parsed, None)


def _without_numbers(read: _Read, fields: frozenset[str]) -> _Read:
    """Read as `read` does, but raise NotCounted for a number that would be taken for a moment."""

    def checked(data: BytesIO) -> Any:
        document = read(data)
        if any(document.get(name).__class__ is int for name in fields):
            raise NotCounted
        return document

    return checked


def _shown(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
