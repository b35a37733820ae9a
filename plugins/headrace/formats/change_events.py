"""What an event is: a change of a row, its deletion, or none; and the row in it.

Envelopes have before, after, source and op. A record that the transformation ExtractNewRecordState has flattened is the
row itself; __deleted, __op and what its add.fields adds from `source` are read as well.
https://debezium.io/documentation/reference/3.3/transformations/event-flattening.html
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.formats.base import Change, Fault, Undecodable
from headrace.formats.change_positions import flat_source, position_of
from headrace.formats.connect_json import Payload

PLACEHOLDER = "__debezium_unavailable_value"

ROWS = ("c", "u", "r")  # created, updated, read by a snapshot
HEARTBEAT = frozenset({"ts_ms"})
TRANSACTION = frozenset({"status", "id", "event_count", "data_collections", "ts_ms"})
SCHEMA_CHANGE = frozenset({"source", "databaseName", "ddl"})


class Event(NamedTuple):
    """An event: the document of its row, what it says besides, and what it is if it changes no row."""

    document: Any
    change: Change
    ignored: str | None = None


class Events:
    """Reads events.

    unavailable: what stands for a value that the source's log does not have; a document has no such value, and the
    change names its field. added: fields of the envelope that documents get.
    """

    def __init__(self, unavailable: str, added: Sequence[str], *, has_positions: bool) -> None:
        self._added = added
        self._has_positions = has_positions
        encoded = b64encode(unavailable.encode()).decode()
        numbers = list(unavailable.encode())
        self._texts = (unavailable, encoded, ",".join(map(str, numbers)))
        # of texts and numbers, bytes, arrays and maps: the connectors write the placeholder in each type
        self._placeholders: tuple[Any, ...] = (
            *(unavailable, encoded, unavailable.encode(), [unavailable], [encoded]),
            *({unavailable: unavailable}, numbers),
        )

    def event(self, payload: Payload) -> Event:
        """The event of a payload; raises Undecodable for an envelope that is none of Debezium's."""
        names = payload.names()
        op = payload.value("op") if "op" in names and "source" in names else None
        if isinstance(op, str) and isinstance(source := payload.value("source"), Mapping):
            return self._enveloped(payload, op, source)
        if found := _no_change(names):
            return Event(None, Change(None), found)
        return self._flat(payload)

    def _enveloped(self, payload: Payload, op: str, source: Mapping[str, Any]) -> Event:
        change = Change(op, position_of(source) if self._has_positions else None)
        if op == "m":
            return Event(None, change, "a logical message")
        if op == "t":
            raise Undecodable(
                Fault.TRUNCATED,
                f"table {source.get('table')} was truncated; no row is deleted here: use DELETE, or have the connector "
                "read the table again into a topic made new, and `headrace reset`",
            )
        if op == "d":
            return Event(payload.document("before"), change._replace(is_deletion=True))
        if op not in ROWS:
            raise Undecodable(Fault.UNDECODABLE, f"op is {op[:20]!r}, expected c, u, d, r, t or m")
        document = payload.document("after")
        if document is None:
            raise Undecodable(Fault.UNDECODABLE, f"op is {op} and after is null, expected the row as it is now")
        added = {f"__{name.replace('.', '_')}": _found(payload, name) for name in self._added}
        return self._available(payload, document, change, added)

    def _flat(self, payload: Payload) -> Event:
        document = payload.whole()
        if document is None:  # a tombstone, behind the schema part
            return Event(None, Change("d", None, is_deletion=True))
        flags = {name: payload.value(name) for name in payload.names() if name.startswith("__")}
        op = flags.get("__op")
        change = Change(
            op if isinstance(op, str) else None,
            position_of(flat_source(flags)) if flags and self._has_positions else None,
            is_deletion=op == "d" or str(flags.get("__deleted")).lower() == "true",
        )
        return Event(document, change) if change.is_deletion else self._available(payload, document, change, {})

    def _available(self, payload: Payload, document: Any, change: Change, added: Mapping[str, Any]) -> Event:
        """The event without values that are none."""
        missing = self._unavailable(document)
        if missing:
            known = _members(payload.document("before"))
            available = {
                name: known[name]
                for name in missing
                if known.get(name) is not None and known[name] not in self._placeholders
            }
            change = change._replace(unavailable=missing - available.keys())
            added = {**available, **added}
        if missing or added:
            document = payload.replaced(document, missing, added)
        return Event(document, change)

    def _unavailable(self, document: Any) -> frozenset[str]:
        if isinstance(document, str) and not any(text in document for text in self._texts):
            return frozenset()
        return frozenset(name for name, value in _members(document).items() if value in self._placeholders)


def _members(document: Any) -> Mapping[str, Any]:
    """The members of a document, read in part only: numbers of its text are not exact."""
    if isinstance(document, str):
        try:
            document = msgspec.json.decode(document)
        except (msgspec.DecodeError, RecursionError):
            return {}
    return document if isinstance(document, Mapping) else {}


def _found(payload: Payload, name: str) -> Any:
    outer, _, inner = name.partition(".")
    value = payload.value(outer)
    return value if not inner else value.get(inner) if isinstance(value, Mapping) else None


def _no_change(names: Any) -> str | None:
    """What an event without a row is."""
    found = {name for name in names if name not in ("ts_us", "ts_ns")}
    if found == HEARTBEAT:
        return "a heartbeat"
    if {"status", "id", "event_count"} <= found <= TRANSACTION:
        return "the begin or end of a transaction"
    return "a change of a schema" if found >= SCHEMA_CHANGE else None
