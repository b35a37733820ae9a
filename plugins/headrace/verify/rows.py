"""Checks of the ledger's counts against staged rows and dead letters: set-based, one pass over the tables."""

from collections.abc import Sequence
from typing import Any

from headrace.command import Command
from headrace.postgres.ledger import LedgerKind
from headrace.postgres.staging import replaced_name
from headrace.verify.report import LISTED_MAX, DatasetReport
from headrace.verify.snapshot import Snapshot, query


def check_tables(snapshot: Snapshot, report: DatasetReport) -> bool:
    """Whether the dataset's staging tables exist; without them nothing may have been staged."""
    if snapshot.has_tables:
        return True
    lines = snapshot.row("select count(*) as lines from headrace.batches where dataset = %(dataset)s")["lines"]
    name = snapshot.subject.name
    if lines:
        report.checks.append("counts")
        report.add(
            "counts",
            found=f"no table staging.{name} or staging.{replaced_name(name)}",
            expected=f"the rows of {lines} batches",
            remedy="restore a backup; `headrace init` creates the tables again, empty",
        )
    return False


def missing_columns(snapshot: Snapshot, names: Sequence[str]) -> list[str]:
    """Those of the names that are no columns of the staging table."""
    found = snapshot.rows(
        "select attname from pg_attribute where attrelid = to_regclass(%(table)s) and not attisdropped",
        table=f"staging.{snapshot.subject.name}",
    )
    return sorted(set(names) - {row["attname"] for row in found})


def check_counts(snapshot: Snapshot, report: DatasetReport) -> None:
    """Each line's staged, tombstones and dead are the rows and dead letters that name it, inside its range.

    Rows that a reload replaced count for the batch that staged them, dead letters for the one that wrote them.
    """
    report.checks.append("counts")
    wrong = snapshot.rows(
        query("counts"),
        limit=LISTED_MAX,
    )
    deep = Command("verify", snapshot.subject.name, "--deep")
    for line in wrong:
        missing, first = _uncovered(snapshot, line)
        hint = ""
        if missing:
            hint = f"; {missing} missing, the first is {first}"
            if held := line["empty"] + line["ignored"]:
                hint = f"; {missing} missing among {missing + held} offsets that hold nothing, from {first} on"
        report.add(
            "counts",
            generation=line["generation"],
            partition=line["partition"],
            offset=first if missing else None,
            found=(
                f"{line['found_staged']} staged, {line['found_tombstones']} tombstones and {line['found_dead']} dead "
                f"in [{line['start_offset']}, {line['end_offset']}), batch {line['batch_id']}{hint}"
            ),
            expected=f"{line['staged']}, {line['tombstones']} and {line['dead']} as its line says (seq {line['seq']})",
            remedy=f"`{deep}` names the records; {snapshot.subject.restage}",
        )
    report.hide("counts", wrong[0]["total"] if wrong else 0, len(wrong))
    _count(snapshot, report)


def _uncovered(snapshot: Snapshot, line: dict[str, Any]) -> tuple[int, int]:
    """How many offsets of a drain's range hold nothing beyond the empty ones, and the first that holds nothing."""
    if line["kind"] not in (LedgerKind.DRAIN, LedgerKind.LOAD, LedgerKind.REPLACE):
        return 0, 0
    found = snapshot.row(
        query("uncovered_offsets"),
        **{name: line[name] for name in ("generation", "partition", "start_offset", "end_offset", "batch_id")},
    )
    return max(int(found["free"]) - line["empty"] - line["ignored"], 0), found["first_free"] or line["start_offset"]


def _count(snapshot: Snapshot, report: DatasetReport) -> None:
    counted = snapshot.row(
        """
        select
            count(*) as batches,
            coalesce(sum(staged), 0)::bigint as rows,
            coalesce(sum(dead), 0)::bigint as dead,
            coalesce(sum(tombstones), 0)::bigint as tombstones,
            coalesce(sum(empty), 0)::bigint as empty,
            coalesce(sum(ignored), 0)::bigint as ignored
        from headrace.batches
        where dataset = %(dataset)s
        """
    )
    report.counts |= {
        "batches": counted["batches"],
        "staged rows": counted["rows"],
        "tombstones": counted["tombstones"],
        "dead letters": counted["dead"],
        "empty offsets": counted["empty"],
    }
    if counted["ignored"]:
        report.counts["ignored records"] = counted["ignored"]
    partitions = snapshot.rows(
        """
        select c.partition, c.next_offset, coalesce(min(b.start_offset), c.next_offset) as start_offset, c.generation
        from headrace.checkpoints as c
        inner join headrace.generations as g on c.dataset = g.dataset and c.generation = g.generation and g.is_open
        left join headrace.batches as b
            on c.dataset = b.dataset and c.generation = b.generation and c.partition = b.partition
            and b.kind in ('drain', 'load', 'replace')
        where c.dataset = %(dataset)s
        group by c.partition, c.next_offset, c.generation
        order by c.generation, c.partition
        """
    )
    for row in partitions:
        topic = report.topics.get((row["generation"], row["partition"]))
        label = f"[{row['partition']}]{f' {topic}' if topic else ''}"
        report.ranges.append(f"{label} [{row['start_offset']}, {row['next_offset']})")
