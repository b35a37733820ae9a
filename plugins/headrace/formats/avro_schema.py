"""From an Avro schema's text to what fastavro reads by; refuses a schema whose values cannot be read in bounded time.

Logical types are renamed for readers of ours where fastavro's are not exact: its decimal rounds to the precision
that the schema states, it does not know nanoseconds, and a time below zero is for it one before the next midnight. https://avro.apache.org/docs/1.12.0/specification/
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from headrace.formats import connect_values
from headrace.formats.base import Fault, Undecodable
from headrace.formats.registry import AVRO, SchemaText, parsed_json
from headrace.formats.values import Nanoseconds
from headrace.optional import needs

OURS = "headrace-"  # before the names of the logical types that are read here
DEPTH_MAX = 100  # types inside each other in a schema
DAY_MICROSECONDS = 86_400_000_000
_EXACT = ("decimal", "timestamp-nanos", "local-timestamp-nanos", "time-micros", "time-millis", "uuid")
PRIMITIVES = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")


@dataclass(frozen=True, slots=True)
class AvroSchema:
    """A schema that fastavro has parsed.

    is_recursive: whether a type holds
    itself: fastavro's C code reads such a value as deep as it nests, and ends the process where the stack does.
    """

    parsed: Any
    is_recursive: bool

    @property
    def name(self) -> str | None:
        """The full name, with the namespace; of a primitive its type; None of a union."""
        if isinstance(self.parsed, dict):
            return str(self.parsed.get("name") or self.parsed["type"])
        return self.parsed if isinstance(self.parsed, str) else None


class NotCounted(Exception):
    """A schema's field may be a whole number that counts no microseconds since 1970."""


def parse(
    schema: SchemaText, what: str, *, is_connect: bool = False, moments: frozenset[str] = frozenset()
) -> AvroSchema:
    """Parse a registered schema with its imports; raises Undecodable where it is none that can be read.

    is_connect: what Kafka Connect calls a type (connect.name) says what its values are, as a logical type does.
    moments: fields of the record whose moments are read as microseconds since 1970; raises NotCounted where one of them
    may be another whole number.
    """
    with needs("registry"):
        from fastavro import parse_schema
        from fastavro.schema import SchemaParseException

    if schema.kind != AVRO:
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what} is of type {schema.kind}, expected {AVRO}")
    _register_readers()
    named: dict[str, Any] = {}
    try:
        for imported in _in_order(schema):
            parse_schema(_exact(parsed_json(imported.text, what), is_connect), named_schemas=named)
        node = _counted(parsed_json(schema.text, what), moments)
        parsed = parse_schema(_exact(node, is_connect), named_schemas=named)
    except (SchemaParseException, KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, Undecodable):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{what} is no Avro schema: {reason}") from error
    walk = _Walk(named, what)
    walk.visit(parsed, ())
    return AvroSchema(parsed, walk.is_recursive)


def fingerprint(schema: SchemaText) -> bytes | None:
    """The CRC-64-AVRO of a schema as single objects have it, little-endian; None of one that cannot be parsed."""
    from fastavro.schema import fingerprint as hexadecimal
    from fastavro.schema import parse_schema, to_parsing_canonical_form

    named: dict[str, Any] = {}
    try:
        for imported in _in_order(schema):
            parse_schema(parsed_json(imported.text, ""), named_schemas=named)
        parsed = parse_schema(parsed_json(schema.text, ""), named_schemas=named, expand=bool(schema.imports))
        return bytes.fromhex(
            hexadecimal(to_parsing_canonical_form(parsed), "CRC-64-AVRO")
        )  # as hexadecimal(...) writes it
    except Exception:  # of fastavro's
        return None


def _in_order(schema: SchemaText) -> list[SchemaText]:
    """What a schema imports, each behind what it imports itself, and once."""
    found: dict[str, SchemaText] = {}

    def add(imports: Mapping[str, SchemaText]) -> None:
        for imported in imports.values():
            add(imported.imports)
            found.setdefault(imported.text, imported)

    add(schema.imports)
    return list(found.values())


def _exact(node: Any, is_connect: bool) -> Any:
    """A schema whose logical types of _EXACT, and the types of Kafka Connect, carry our names."""
    if isinstance(node, list):
        return [_exact(item, is_connect) for item in node]
    if not isinstance(node, dict):
        return node
    made = {
        name: _exact(item, is_connect) if name in ("type", "items", "values", "fields") else item
        for name, item in node.items()
    }
    logical, kind = made.get("logicalType"), made.get("type")
    named = made.get("connect.name")
    if is_connect and logical is None and isinstance(kind, str) and (kind, named) in _CONNECT:
        logical = made["logicalType"] = OURS + str(named)
    elif logical in _EXACT and (kind, logical) in _READERS:
        made["logicalType"] = OURS + logical
    return made


def _counted(node: Any, moments: frozenset[str]) -> Any:
    """A record's schema in which the moments of these fields are numbers."""
    if not moments:
        return node
    if not isinstance(node, dict) or node.get("type") != "record":
        raise NotCounted
    fields = [
        item | {"type": _counted_type(item["type"])} if item["name"] in moments else item for item in node["fields"]
    ]
    return node | {"fields": fields}


def _counted_type(node: Any) -> Any:
    from fastavro.read import LOGICAL_READERS

    if isinstance(node, list):
        return [_counted_type(branch) for branch in node]
    kind, logical = (node.get("type"), node.get("logicalType")) if isinstance(node, dict) else (node, None)
    if (kind, logical) == ("long", "timestamp-micros"):
        return "long"
    if (kind, logical) == ("long", "timestamp-millis"):
        return {"type": "long", "logicalType": f"{OURS}counted-millis"}
    is_read = f"{kind}-{logical}" in LOGICAL_READERS or (kind, logical) in _READERS
    if not isinstance(kind, str) or (kind in ("int", "long") and not is_read):
        raise NotCounted
    return node


class _Walk:
    """Visits all types of a parsed schema once along each way into it."""

    def __init__(self, named: Mapping[str, Any], what: str) -> None:
        self._named = named
        self._what = what
        self.is_recursive = False

    def visit(self, node: Any, above: tuple[str, ...]) -> int:
        """The fewest bytes that a value of the type has; raises Undecodable for arrays of values without bytes."""
        if len(above) > DEPTH_MAX:
            raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{self._what} nests types more than {DEPTH_MAX} deep")
        if isinstance(node, str) and node not in PRIMITIVES:
            if node in above:
                self.is_recursive = True
                return 1
            return self.visit(self._named[node], above)
        if isinstance(node, list):
            return 1 + min((self.visit(item, (*above, "")) for item in node), default=0)
        kind = node if isinstance(node, str) else node["type"]
        if isinstance(kind, dict | list):
            return self.visit(kind, (*above, ""))
        if kind in ("record", "error"):
            return sum(self.visit(field["type"], (*above, node["name"])) for field in node["fields"])
        if kind == "array" and not self.visit(node["items"], (*above, "")):
            # a few bytes would claim a billion of them
            raise Undecodable(Fault.INCOMPATIBLE_SCHEMA, f"{self._what} has an array of values that take no bytes")
        if kind == "map":
            self.visit(node["values"], (*above, ""))
        if kind == "fixed":
            return int(node["size"])
        return {"null": 0, "float": 4, "double": 8}.get(kind, 1)


def _decimal(data: Any, writer_schema: Any = None, _reader_schema: Any = None) -> Decimal:
    return Decimal(f"{int.from_bytes(data, 'big', signed=True)}e-{writer_schema.get('scale', 0)}")


def _nanoseconds(data: Any, _writer_schema: Any = None, _reader_schema: Any = None) -> Nanoseconds:
    return Nanoseconds(data)


def _local_nanoseconds(data: Any, _writer_schema: Any = None, _reader_schema: Any = None) -> Nanoseconds:
    return Nanoseconds(data, has_zone=False)


def _counted_millis(data: Any, _writer_schema: Any = None, _reader_schema: Any = None) -> int:
    return int(data) * 1_000


def _time_micros(data: Any, _writer_schema: Any = None, _reader_schema: Any = None) -> time:
    if not 0 <= data < DAY_MICROSECONDS:
        raise OverflowError(f"a time of {data} microseconds after midnight")
    return (datetime.min + timedelta(microseconds=data)).time()


def _time_millis(data: Any, _writer_schema: Any = None, _reader_schema: Any = None) -> time:
    return _time_micros(data * 1_000)


def _uuid(data: Any, _writer_schema: Any = None, _reader_schema: Any = None) -> UUID:
    return UUID(data) if isinstance(data, str) else UUID(bytes=bytes(data))


_READERS = {
    ("long", "counted-millis"): _counted_millis,
    ("bytes", "decimal"): _decimal,
    ("fixed", "decimal"): _decimal,
    ("long", "timestamp-nanos"): _nanoseconds,
    ("long", "local-timestamp-nanos"): _local_nanoseconds,
    ("long", "time-micros"): _time_micros,
    ("int", "time-millis"): _time_millis,
    ("string", "uuid"): _uuid,
    ("fixed", "uuid"): _uuid,
}


def _connect_reader(read: connect_values.Reader) -> Any:
    return lambda data, writer_schema=None, _=None: read(data, (writer_schema or {}).get("connect.parameters") or {})


_AVRO_KINDS = {"int32": "int", "int64": "long", "bytes": "bytes"}
_CONNECT = {
    (_AVRO_KINDS[kind], name): _connect_reader(read) for (kind, name), read in connect_values.READERS.items()
} | {("record", connect_values.VARIABLE_SCALE_DECIMAL): lambda data, *_: connect_values.variable_scale_decimal(data)}


def _register_readers() -> None:
    from fastavro import _read_py, read

    for readers in (read.LOGICAL_READERS, vars(_read_py)["LOGICAL_READERS"]):
        for (kind, logical), reader in (_READERS | _CONNECT).items():
            readers.setdefault(f"{kind}-{OURS}{logical}", reader)
