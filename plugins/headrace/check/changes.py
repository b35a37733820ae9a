"""Random changes of copied tables: records of new and known keys, tombstones, and reloads that replace a record.

Values are taken from a few that occur in the column, so that rows meet in the same grains, move between them, and
leave them empty. Columns of one name share their values: what models join by them finds partners.
"""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg import Connection

from headrace.check.copies import Row, TableCopy

VALUES_MAX = 12  # that occur in a column's changes
# with at most so many values a column counts as a list of them: no other is invented
LISTED_MAX = 12
STEPS_S = (0, 1, -60, 60, 3_600, 86_400)
WHOLE = {"smallint", "integer", "bigint"}
DIGITS = tuple("01234567")
LETTERS = tuple("ABCDEFGH")
INVENTED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((*WHOLE, "numeric", "double precision", "real"), DIGITS),
    **dict.fromkeys(("text", "character varying"), LETTERS),
    "boolean": ("true", "false"),
    "date": tuple(f"2026-01-0{n}" for n in range(1, 7)),
    "timestamp with time zone": tuple(f"2026-01-01 10:0{n}:30+00" for n in range(6)),
    "timestamp without time zone": tuple(f"2026-01-01 10:0{n}:30" for n in range(6)),
    "uuid": tuple(str(UUID(int=n)) for n in range(8)),
    "jsonb": ("{}",),
    "json": ("{}",),
}


class RandomChanges:
    """Changes of some copies, the same for the same rows and seed.

    accepted: the values that tests accept, by column; they fill the columns of a table without rows.
    """

    def __init__(self, copies: Sequence[TableCopy], seed: int, accepted: Mapping[str, Sequence[str]]) -> None:
        self._rng = random.Random(seed)
        self._copies = copies
        self._clock = datetime.fromisoformat("2100-01-01 00:00:00+00:00")  # after every record
        self._number = 0
        self._occurring = {
            (copy.name, name): sorted({row[name] for row in copy.rows.values() if row[name] is not None}, key=str)
            for copy in copies
            for name in copy.columns
        }
        self._pools = self._drawn_pools(accepted)

    def play(self, connection: Connection[Any], count: int) -> None:
        """Commit so many changes of each copy, each as a batch."""
        for copy in self._copies:
            for _ in range(count):
                self._change(connection, copy)

    def _change(self, connection: Connection[Any], copy: TableCopy) -> None:
        place = None
        if copy.rows and (copy.replaces or self._rng.random() < 0.2) and self._rng.random() < 0.7:
            place = self._rng.choice(sorted(copy.rows))
            if self._rng.random() < 0.3:
                copy.stage(connection, None, place)
                return
        row = self._row(copy, copy.rows.get(place) if place else None)
        if copy.key and not place and self._rng.random() < 0.2:
            row |= dict.fromkeys((name for name in copy.columns if name not in copy.key), None) | {"_deleted": "true"}
        copy.stage(connection, row, place)

    def _row(self, copy: TableCopy, replaced: Row | None) -> Row:
        """A row like another one of the copy, with other values in some columns; its key may be new."""
        base = replaced or (self._rng.choice(list(copy.rows.values())) if copy.rows else {})
        self._clock += timedelta(seconds=1)
        row: Row = {**base, "_timestamp": str(self._clock), "_deleted": "false"}
        is_empty = base.get("_deleted") != "false"
        for name in copy.columns:
            if name not in copy.key and (is_empty or self._rng.random() < 0.4):
                row[name] = self._value(copy, name)
        if not replaced and (not base or self._rng.random() < 0.6):
            is_new = self._rng.random() < 0.3
            for name in copy.key:
                pool = self._pools[name, copy.types[name]] or [None]
                row[name] = self._new(copy, name) if is_new else self._rng.choice(pool)
        return row

    def _value(self, copy: TableCopy, name: str) -> str | None:
        kind, occurring = copy.types[name], self._occurring[copy.name, name]
        nulls = any(row[name] is None for row in copy.rows.values() if row["_deleted"] == "false")
        if nulls and self._rng.random() < 0.15:
            return None
        if "text" in kind and len(occurring) == len(copy.rows) > LISTED_MAX:
            return self._new(copy, name)  # no two rows have one
        value = self._rng.choice(self._pools[name, kind] or [None])
        is_listed = len(occurring) <= LISTED_MAX and not kind.startswith(("timestamp", "date"))
        is_shared = any(name in other.key for other in self._copies)
        return value if value is None or is_listed or is_shared else self._moved(value, kind)

    def _moved(self, value: str, kind: str) -> str:
        """A value near another one: times move into other minutes, hours and days."""
        with suppress(ValueError, ArithmeticError):
            if kind.startswith(("timestamp", "date")):
                moved = datetime.fromisoformat(value) + timedelta(seconds=self._rng.choice(STEPS_S))
                return str(moved.date() if kind == "date" else moved)
            if kind in WHOLE:
                return str(int(value) + self._rng.choice((0, 0, 1, 2)))
            if kind.startswith(("numeric", "double", "real")):
                return str(Decimal(value) + self._rng.choice((0, 0, 1, 2)))
        return value

    def _new(self, copy: TableCopy, name: str) -> str | None:
        """A value that no row has, where the type has more of them."""
        kind, pool = copy.types[name], self._pools[name, copy.types[name]]
        self._number += 1
        if kind in WHOLE:
            return str(max((int(row[name] or 0) for row in copy.rows.values()), default=0) + 1)
        if kind == "uuid":
            return str(UUID(int=self._rng.getrandbits(128)))
        if kind == "text" or kind.startswith("character"):
            return f"{self._rng.choice(pool)}-{self._number}"
        return self._rng.choice(pool) if pool else None

    def _drawn_pools(self, accepted: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], list[Any]]:
        """A few values for each name and type of column; those of the table whose key it is, where there is one."""
        found: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for of_keys in (True, False):
            for copy in self._copies:
                for name in copy.columns:
                    pool = found[name, copy.types[name]]
                    if (name in copy.key) is of_keys and len(pool) < VALUES_MAX:
                        values = self._occurring[copy.name, name]
                        pool += self._rng.sample(values, min(len(values), VALUES_MAX - len(pool)))
        for (name, kind), pool in found.items():
            if not pool:
                pool += accepted.get(name) or INVENTED.get(kind.partition("(")[0], ())
        return found
