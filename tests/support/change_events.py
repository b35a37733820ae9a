"""Debezium's change events, as its documentation of the PostgreSQL connector shows them: table inventory.customers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

Fields = Sequence[Mapping[str, Any]]

SOURCE = {
    "version": "3.3.1.Final",
    "connector": "postgresql",
    "name": "PostgreSQL_server",
    "ts_ms": 1559033904863,
    "snapshot": "false",
    "db": "postgres",
    "sequence": '["24023119","24023128"]',
    "schema": "public",
    "table": "customers",
    "txId": 555,
    "lsn": 24023128,
    "xmin": None,
}
KEY_FIELDS: Fields = [{"type": "int32", "optional": False, "field": "id"}]
ROW_FIELDS: Fields = [
    *KEY_FIELDS,
    *({"type": "string", "optional": False, "field": name} for name in ("first_name", "last_name", "email")),
]
ANNE = {"id": 1, "first_name": "Anne", "last_name": "Kretchmar", "email": "annek@noanswer.org"}


def envelope(op: str, after: Any, before: Any = None, **source: Any) -> dict[str, Any]:
    """An event; source: what differs from the documented one."""
    found = {"before": before, "after": after, "source": SOURCE | source, "transaction": None, "op": op}
    return found | {"ts_ms": 1559033904863, "ts_us": 1559033904863001, "ts_ns": 1559033904863001002}


def at(lsn: int, committed: int | None = None) -> dict[str, Any]:
    """What `source` has of a position in Postgres's log."""
    return {"lsn": lsn, "sequence": json.dumps([None if committed is None else str(committed), str(lsn)])}


def struct(name: str, fields: Fields, field: str | None = None) -> dict[str, Any]:
    """The schema of a struct, as the JSON converter writes it."""
    found: dict[str, Any] = {"type": "struct", "fields": list(fields), "optional": True, "name": name}
    return found if field is None else found | {"field": field}


def with_schema(payload: Mapping[str, Any], fields: Fields = ROW_FIELDS) -> dict[str, Any]:
    """An event with its schema part."""
    row = "PostgreSQL_server.inventory.customers.Value"
    members = [struct(row, fields, "before"), struct(row, fields, "after")]
    members += [{"type": "string", "optional": False, "field": "op"}]
    schema = struct("PostgreSQL_server.inventory.customers.Envelope", members)
    return {"schema": schema, "payload": payload}


def key_with_schema(key: Mapping[str, Any], fields: Fields = KEY_FIELDS) -> dict[str, Any]:
    """A key with its schema part."""
    return {"schema": struct("PostgreSQL_server.inventory.customers.Key", fields), "payload": key}


def text(document: Any) -> bytes:
    """JSON as the converter writes it."""
    return json.dumps(document, separators=(",", ":")).encode()
