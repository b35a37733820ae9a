"""The schemas of orders for Avro and JSON Schema, and the values that JSON has for them."""

import json
from base64 import b64encode
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

NAMES = ("id", "amount", "at", "nanos", "seen", "day", "clock", "uid", "raw", "ratio", "tags", "attributes", "note",
         "status")  # fmt: skip


def _nullable(kind: Any) -> Any:
    return ["null", kind]


AVRO_FIELDS: dict[str, Any] = {
    "id": "long",
    "amount": {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 4},
    "at": {"type": "long", "logicalType": "timestamp-micros"},
    "nanos": {"type": "long", "logicalType": "timestamp-nanos"},  # fastavro writes the number
    "seen": _nullable({"type": "long", "logicalType": "timestamp-millis"}),
    "day": {"type": "int", "logicalType": "date"},
    "clock": {"type": "long", "logicalType": "time-micros"},
    "uid": {"type": "string", "logicalType": "uuid"},
    "raw": "bytes",
    "ratio": "double",
    "tags": {"type": "array", "items": "string"},
    "attributes": {"type": "map", "values": "string"},
    "note": _nullable("string"),
    "status": {"type": "enum", "name": "Status", "symbols": ["NEW", "PAID"]},
    "later": "string",
}


def avro_schema(*names: str, is_narrow: bool = False) -> str:
    """The schema of these fields; is_narrow: the id has 32 bits."""
    kinds = AVRO_FIELDS | ({"id": "int"} if is_narrow else {})
    fields = [{"name": name, "type": kinds[name]} for name in names]
    return json.dumps({"type": "record", "name": "Order", "fields": fields})


def plain_avro(schema: str) -> str:
    """A schema whose logical types are what they are written as, without their names.

    Apache's package for Python leaves {"type": "long"} of a logical type in the canonical form; it has to be "long".
    """

    def plain(node: Any) -> Any:
        if isinstance(node, list):
            return [plain(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "logicalType" in node:
            return node["type"]
        return {name: plain(item) if name in ("type", "fields") else item for name, item in node.items()}

    return json.dumps(plain(json.loads(schema)))


JSON_FIELDS: dict[str, Any] = {
    **{name: {"type": ["integer", "null"]} for name in ("id", "nanos")},
    **{
        name: {"type": ["string", "null"]}
        for name in NAMES
        if name not in ("id", "nanos", "ratio", "tags", "attributes")
    },
    "ratio": {"type": "number"},
    "tags": {"type": "array"},
    "attributes": {"type": "object"},
    "later": {"type": "string"},
}


def json_schema(*names: str, title: str = "Order") -> str:
    return json.dumps({"title": title, "type": "object", "properties": {name: JSON_FIELDS[name] for name in names}})


def json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal | UUID) else value
