"""Checks of each coordinate: a row or a dead letter, in its batch's range, below the checkpoint, and only once."""

from headrace.verify.report import LISTED_MAX, DatasetReport
from headrace.verify.snapshot import Snapshot, query


def check_rows_outside_batch(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that every row and dead letter names a ledger line (`batch`) and lies inside its range (`range`)."""
    report.checks += ["batch", "range"]
    rows_outside_batch = snapshot.rows(
        query("rows_outside_batch"),
        limit=2 * LISTED_MAX,
    )
    for row in rows_outside_batch:
        check = "batch" if row["is_unknown"] else "range"
        if row["place"] > LISTED_MAX:
            continue
        if row["is_unknown"]:
            expected = "one of the ledger's"
        else:
            expected = (
                f"the range of its batch, [{row['start_offset']}, {row['end_offset']}) of partition "
                f"{row['line_partition']}, generation {row['line_generation']} (seq {row['seq']})"
            )
        report.add(
            check,
            generation=row["generation"],
            partition=row["partition"],
            offset=row["at"],
            found=f"a {row['what']} under batch {row['batch_id']}",
            expected=expected,
            remedy=snapshot.subject.restage,
        )
    for check, is_unknown in (("batch", True), ("range", False)):
        of_check = [row for row in rows_outside_batch if row["is_unknown"] is is_unknown]
        report.hide(check, of_check[0]["total"] if of_check else 0, min(len(of_check), LISTED_MAX))


def check_checkpoint(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that nothing is at or after a checkpoint: it would be staged a second time."""
    report.checks.append("checkpoint")
    beyond = snapshot.rows(
        query("beyond_checkpoint"),
        limit=LISTED_MAX,
    )
    for row in beyond:
        report.add(
            "checkpoint",
            generation=row["generation"],
            partition=row["partition"],
            offset=row["at"],
            found=f"a {row['what']}",
            expected=f"none at or after the checkpoint, {row['next_offset']}",
            remedy=snapshot.subject.restage,
        )
    report.hide("checkpoint", beyond[0]["total"] if beyond else 0, len(beyond))


def check_exactly_one(snapshot: Snapshot, report: DatasetReport) -> None:
    """Check that a coordinate is a staged row or an unreplayed dead letter, never both."""
    report.checks.append("exactly_one")
    wrong = snapshot.rows(
        query("exactly_one"),
        limit=LISTED_MAX,
    )
    for row in wrong:
        report.add(
            "exactly_one",
            generation=row["generation"],
            partition=row["partition"],
            offset=row["at"],
            found=row["found"],
            expected=row["expected"],
            remedy=snapshot.subject.restage,
        )
    report.hide("exactly_one", wrong[0]["total"] if wrong else 0, len(wrong))
