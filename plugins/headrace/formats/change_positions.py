"""Where a change stands in its source's log: what orders the changes of a row (`_position` of the staging table).

The connectors' documentation names what orders their events: https://debezium.io/documentation/reference/3.3/connectors/
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from zlib import crc32

Position = tuple[int, ...]

INT64_MAX = 2**63 - 1
# what ExtractNewRecordState puts in front of the fields that its add.fields names
FLAT_PREFIXES = ("__source_", "__")


def position_of(source: Mapping[str, Any]) -> Position | None:
    """The position that an event's `source` names, or None.

    The first number is the log; of two positions in one log the greater is the later.

    PostgreSQL: the last commit before the event's transaction and the event's LSN, which together are in the order of
    commits; LSNs alone are not. MySQL and MariaDB: binlog file, position and row; with GTIDs another server's binlog is
    another log. SQL Server and Db2: LSNs of commit and change. Oracle: SCNs of commit and change. MongoDB: time and
    ordinal.
    """
    with suppress(ValueError, TypeError, KeyError):
        for name, read in _READERS.items():
            if source.get(name) is not None:
                position = read(source)
                return position if all(0 <= number <= INT64_MAX for number in position) else None
    return None


def flat_source(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `source` that add.fields has put into a flat document."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        prefix = next((prefix for prefix in FLAT_PREFIXES if name.startswith(prefix)), None)
        if prefix is not None:
            found.setdefault(name.removeprefix(prefix), value)
    return found


def _postgres(source: Mapping[str, Any]) -> Position:
    lsn = int(source["lsn"])
    sequence = source.get("sequence")
    if sequence is None:
        return 0, lsn
    committed, _ = json.loads(sequence)
    if committed is None:
        # a read of the first snapshot, which has all that was committed before; or a change of the first transaction
        # behind it, which a connector that was started again sends with a commit of the transaction itself
        return 0, 0 if source.get("snapshot") in (None, "false", False) else lsn, lsn
    return 0, int(committed), lsn


def _mysql(source: Mapping[str, Any]) -> Position:
    number = re.search(r"\d+$", source["file"])
    gtid = source.get("gtid")
    log = crc32(str(gtid).rpartition(":")[0].encode()) if gtid else 0
    return log, int(number[0]) if number else 0, int(source["pos"]), int(source.get("row") or 0)


def _sql_server(source: Mapping[str, Any]) -> Position:
    lsns = [int(part, 16) for name in ("commit_lsn", "change_lsn") for part in _parts(source.get(name))]
    return 0, *lsns, int(source.get("event_serial_no") or 0)


def _parts(lsn: Any) -> list[str]:
    """A log sequence number in three parts, 00000027:00000ac0:0002; a snapshot's events have no change_lsn."""
    parts = str(lsn or "0:0:0").split(":")
    return [*["0"] * (3 - len(parts)), *parts][-3:]


def _oracle(source: Mapping[str, Any]) -> Position:
    scn = int(source["scn"])
    return 0, int(source.get("commit_scn") or scn), scn


def _mongodb(source: Mapping[str, Any]) -> Position:
    return 0, int(source["ts_ms"]), int(source["ord"])


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Position]] = {
    "lsn": _postgres,
    "file": _mysql,
    "commit_lsn": _sql_server,
    "scn": _oracle,
    "ord": _mongodb,
}
