"""Confluent's wire format: a zero byte, a schema's id in four bytes (big-endian), the value.

https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format
"""

from headrace.formats.base import Fault, Undecodable

MAGIC = b"\0"
HEADER_BYTES = 5


def schema_id(value: bytes) -> int | None:
    """The id of the schema of a value; None where it has no header."""
    if len(value) < HEADER_BYTES or value[:1] != MAGIC:
        return None
    found = int.from_bytes(value[1:HEADER_BYTES], "big")
    return found if found < 2**31 else None


def require_schema_id(value: bytes) -> int:
    """The id of the schema of a value; raises Undecodable where it has no header."""
    found = schema_id(value)
    if found is None:
        raise Undecodable(
            Fault.UNDECODABLE,
            f"begins with {value[:HEADER_BYTES]!r}, expected a zero byte and a schema's id in four bytes",
        )
    return found
