"""The random changes of `headrace check --marts`: repeatable, and of every kind that the loader makes."""

from typing import Any

from headrace.check.changes import RandomChanges
from headrace.check.copies import Row, TableCopy

BOOKKEEPING = {
    "_generation": "integer",
    "_partition": "integer",
    "_offset": "bigint",
    "_timestamp": "timestamp with time zone",
    "_deleted": "boolean",
    "_batch_id": "uuid",
}


class Recording(TableCopy):
    """A copy that keeps what would be committed."""

    def stage(self, connection: Any, row: Row | None, place: tuple[str, ...] | None = None) -> None:
        connection.append((self.name, row, place))
        self.rows[place or ("1", "0", str(self.next_offset))] = row or {}
        if row is None:
            self.rows.pop(place or ("", "", ""))
        self.next_offset += 1


def copies(rows: int) -> list[TableCopy]:
    visits = {"id": "bigint", "person": "bigint", "place": "text", "at": "timestamp with time zone"} | BOOKKEEPING
    people = {"person": "bigint", "home": "text"} | BOOKKEEPING
    found: list[TableCopy] = [
        Recording("copy", "visits", ["id"], False, visits),
        Recording("copy", "people", ["person"], False, people),
        Recording("copy", "rides", [], True, {"distance": "numeric"} | BOOKKEEPING),
    ]
    for copy in found:
        for number in range(rows):
            text = {"place": f"P{number % 3}", "home": f"H{number % 3}", "at": f"2026-01-01 10:{number:02}:00+00"}
            row: Row = {name: text.get(name, str(number)) for name in copy.columns}
            copy.rows["1", "0", str(number)] = row | {"_deleted": "false"}
        copy.next_offset = rows
    return found


def played(rows: int, seed: int, count: int = 60) -> list[tuple[str, Row | None, tuple[str, ...] | None]]:
    changes: list[Any] = []
    RandomChanges(copies(rows), seed, {"place": ["park", "pool"]}).play(changes, count)  # type: ignore[arg-type]
    return changes


def test_changes_of_one_seed_are_the_same() -> None:
    assert played(30, 5) == played(30, 5)
    assert played(30, 5) != played(30, 6)


def test_changes_insert_update_and_delete_keys_and_replace_records() -> None:
    visits = [(row, place) for name, row, place in played(30, 1) if name == "visits"]
    records = [row for row, place in visits if row is not None and place is None]
    known = [row for row in records if int(row["id"] or 0) < 30]
    assert any(row["_deleted"] == "true" for row in known)
    assert any(row["_deleted"] == "false" for row in known)
    assert len(known) < len(records)
    assert any(row is None for row, place in visits if place)
    assert any(row is not None for row, place in visits if place)
    # without a key a record is an entity: only a reload changes it
    assert any(place for name, _, place in played(30, 1) if name == "rides")


def test_values_of_columns_of_one_name_meet_and_times_leave_their_minute() -> None:
    rows = [(name, row) for name, row, _ in played(30, 2) if row is not None and row["_deleted"] == "false"]
    people = {row["person"] for name, row in rows if name == "people"}
    visitors = {row["person"] for name, row in rows if name == "visits"}
    assert len(people & visitors) > 5
    times = {row["at"] for name, row in rows if name == "visits"}
    assert any(not str(at).startswith("2026-01-01 10:") for at in times)


def test_empty_tables_get_invented_rows() -> None:
    rows = [row for name, row, _ in played(0, 3) if name == "visits" and row is not None]
    assert all(row["id"] is not None for row in rows)
    assert len({row["id"] for row in rows}) > 3
    assert {row["place"] for row in rows if row["_deleted"] == "false"} == {"park", "pool"}  # which a test accepts
