"""What runs say of themselves, beside what the ledger says of them."""

from tests.faults.evidence import Evidence
from tests.faults.loaders import RunEnd


def wrong_claims(runs: list[RunEnd], evidence: Evidence) -> list[str]:
    """Compare what runs reported with the ledger."""
    found = []
    for run in runs:
        lines = [line for line in evidence.lines if line.run_id == run.run_id and line.kind == "drain"]
        if run.how == "done" and run.result and "batches" in run.result:
            said = run.result
            stored = {"batches": len(lines)} | {
                name: sum(getattr(line, name) for line in lines)
                for name in ("staged", "dead", "tombstones", "empty", "ignored", "bytes")
            }
            if said != stored:
                found.append(f"{run.run_id}: the run says {said}, expected what the ledger holds of it: {stored}")
        if run.how == "error" and run.error == "CheckpointMoved" and "another run committed" in run.message:
            start = int(run.message.partition("this batch starts at ")[2].partition(":")[0])
            partition = int(run.message.partition("[")[2].partition("]")[0])
            for line in lines:
                if line.partition == partition and line.start_offset <= start < line.end_offset:
                    found.append(
                        f"{run.run_id}: {run.message}: but its own line {line.seq} "
                        f"[{line.start_offset}, {line.end_offset}) covers that offset, expected it to know its batch"
                    )
    return found
