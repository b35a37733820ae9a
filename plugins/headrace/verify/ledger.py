"""Checks of the ledger alone: generations, seq, the chain of ranges, the counts of each line."""

from headrace.postgres.ledger import CHAINED
from headrace.verify.report import LISTED_MAX, DatasetReport
from headrace.verify.snapshot import Snapshot, query


def check_generations(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that at most one generation is open: otherwise the source of new offsets is ambiguous."""
    report.checks.append("generations")
    found = snapshot.rows(
        "select generation from headrace.generations where dataset = %(dataset)s and is_open order by generation"
    )
    if len(found) > 1:
        numbers = ", ".join(str(row["generation"]) for row in found)
        report.add(
            "generations",
            generation=found[0]["generation"],
            found=f"{len(found)} open generations ({numbers})",
            expected="one",
            remedy="close all but the newest: update headrace.generations set is_open = false, closed_at = now()",
        )


def check_seq(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that lines are numbered 1 to last_seq without a gap, so that no claim of (from, to] misses a batch."""
    report.checks.append("seq")
    counted = snapshot.row(
        "select coalesce(max(b.seq), 0) as newest, coalesce((select last_seq from headrace.datasets "
        "where dataset = %(dataset)s), 0) as last_seq from headrace.batches as b where b.dataset = %(dataset)s"
    )
    remedy = f"a line of the ledger was deleted or changed: {snapshot.subject.restage}"
    if counted["newest"] > counted["last_seq"]:
        report.add(
            "seq",
            found=f"a line with seq {counted['newest']}",
            expected=f"none above headrace.datasets.last_seq, {counted['last_seq']}",
            remedy=remedy,
        )
    gaps = snapshot.rows(
        query("seq_gaps"),
        last_seq=counted["last_seq"],
        limit=LISTED_MAX,
    )
    for gap in gaps:
        several = gap["first_missing"] != gap["last_missing"]
        report.add(
            "seq",
            found=f"no line with seq {gap['first_missing']}" + (f" to {gap['last_missing']}" if several else ""),
            expected=f"every one of 1 to {counted['last_seq']}",
            remedy=remedy,
        )
    report.hide("seq", gaps[0]["total"] if gaps else 0, len(gaps))


def check_chain(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that per generation and partition the ranges join, from the first offset to the checkpoint."""
    report.checks.append("chain")
    restage = snapshot.subject.restage
    broken = snapshot.rows(
        query("chain"),
        is_file=snapshot.subject.is_file,
        chained=[kind.value for kind in CHAINED],
        limit=LISTED_MAX,
    )
    for line in broken:
        start, end, expected_start = line["start_offset"], line["end_offset"], line["expected_start"]
        if start > expected_start:
            offset, found = expected_start, f"no line for [{expected_start}, {start})"
        elif start < expected_start:
            offset, found = start, f"seq {line['seq']} at [{start}, {end}) but earlier lines end at {expected_start}"
        else:
            offset, found = start, f"seq {line['seq']} at [{start}, {end}) after seq {line['earlier_seq']}"
        report.add(
            "chain",
            generation=line["generation"],
            partition=line["partition"],
            offset=offset,
            found=found,
            expected=f"the next line to start at {expected_start}, and seq to rise",
            remedy=restage,
        )
    report.hide("chain", broken[0]["total"] if broken else 0, len(broken))
    _check_ends(snapshot, report)


def _check_ends(snapshot: Snapshot, report: DatasetReport) -> None:
    ends = snapshot.rows(
        query("chain_ends"),
        is_file=snapshot.subject.is_file,
        chained=[kind.value for kind in CHAINED],
    )
    for end in ends:
        checkpoint, reached = end["next_offset"], end["end_offset"]
        report.add(
            "chain",
            generation=end["generation"],
            partition=end["partition"],
            offset=reached if checkpoint is None else min(checkpoint, reached),
            found="no checkpoint" if checkpoint is None else f"checkpoint {checkpoint}",
            expected=f"{reached}, where the ledger ends",
            remedy=f"the checkpoint or the ledger's last lines were changed by hand: {snapshot.subject.restage}",
        )


def check_arithmetic(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that every offset of a line's range is counted once: staged, dead, tombstone, empty or ignored."""
    report.checks.append("arithmetic")
    wrong = snapshot.rows(
        query("ledger_arithmetic"),
        limit=LISTED_MAX,
    )
    for line in wrong:
        report.add(
            "arithmetic",
            generation=line["generation"],
            partition=line["partition"],
            offset=line["start_offset"],
            found=f"{line['accounted']} staged, dead, tombstones, empty and ignored in seq {line['seq']}",
            expected=f"{line['length']}, the length of [{line['start_offset']}, {line['end_offset']})",
            remedy=snapshot.subject.restage,
        )
    report.hide("arithmetic", wrong[0]["total"] if wrong else 0, len(wrong))
