"""Checks of the children: each record has the elements that its row states, and the ledger the sum of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import ServerCursor
from psycopg.sql import SQL, Identifier

from headrace.postgres.staged_tables import StagedTable, child_tables, count_column
from headrace.verify.canonical import canonical_cursor
from headrace.verify.report import LISTED_MAX, DatasetReport
from headrace.verify.snapshot import Snapshot, exists, query


def check_elements(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that no element of a staged record is missing, doubled or without its record."""
    declared = snapshot.subject.declared
    for child in child_tables(declared) if declared is not None else ():
        if "elements" not in report.checks:
            report.checks.append("elements")
        if not exists(snapshot.connection, "staging", child.name) or not _has_count(snapshot, child):
            report.add(
                "elements",
                found=f"no table staging.{child.name}, or no column for its counts",
                expected="those that the declaration names",
                remedy="`headrace init` creates them; a lost table: restore a backup",
            )
            continue
        _check_sums(snapshot, report, child)
        _check_records(snapshot, report, child)


def _has_count(snapshot: Snapshot, child: StagedTable) -> bool:
    assert child.child is not None
    return bool(
        snapshot.rows(
            "select from pg_attribute where attrelid = to_regclass(%(table)s) and attname = %(name)s "
            "and not attisdropped",
            table=f"staging.{child.dataset}",
            name=count_column(child.child),
        )
    )


def _rows(snapshot: Snapshot, name: str, child: StagedTable) -> list[dict[str, Any]]:
    assert child.child is not None
    names = {"elements": child.identifier, "count_column": Identifier(count_column(child.child))}
    return snapshot.rows(query(name), names, child=child.child, limit=LISTED_MAX)


def _check_sums(snapshot: Snapshot, report: DatasetReport, child: StagedTable) -> None:
    wrong = _rows(snapshot, "element_sums", child)
    for line in wrong:
        report.add(
            "elements",
            generation=line["generation"],
            partition=line["partition"],
            offset=line["start_offset"],
            found=f"{line['found']} elements of {child.child} in the rows of seq {line['seq']}",
            expected=f"{line['expected']}, as its line says",
            remedy=snapshot.subject.restage,
        )
    report.hide("elements", wrong[0]["total"] if wrong else 0, len(wrong))


def _check_records(snapshot: Snapshot, report: DatasetReport, child: StagedTable) -> None:
    counted = snapshot.rows("select count(*) as elements from {elements}", {"elements": child.identifier})
    report.counts[f"elements of {child.child}"] = counted[0]["elements"]
    wrong = _rows(snapshot, "element_counts", child)
    for record in wrong:
        found = f"{record['found']} rows in staging.{child.name}"
        if record["found"]:
            found += f", with _index {record['least']} to {record['most']}"
        expected = "none: its record is not staged"
        if not record["is_orphan"]:
            expected = f"{record['expected']}, as its row in staging.{child.dataset} says"
        report.add(
            "elements",
            generation=record["generation"],
            partition=record["partition"],
            offset=record["at"],
            found=found,
            expected=expected,
            remedy=snapshot.subject.restage_record(record["partition"], record["at"]),
        )
    report.hide("elements", wrong[0]["total"] if wrong else 0, len(wrong))


@contextmanager
def stored_elements(
    snapshot: Snapshot, table: StagedTable, coordinates: tuple[int, int, int, int]
) -> Iterator[ServerCursor[Any]]:
    """A child's rows in a range (generation, partition, start, end): offset, the contract's columns, _extra."""
    names = ["_offset", *(column.name for column in table.contract), "_extra"]
    with canonical_cursor(snapshot.connection, f"verified_{table.name}") as cursor:
        yield cursor.execute(
            SQL(
                "select {} from {} where _generation = %s and _partition = %s and _offset >= %s and _offset < %s "
                "order by _offset, _index"
            ).format(SQL(", ").join(map(Identifier, names)), table.identifier),
            coordinates,
        )
