"""All kinds of trials, and how one of them is run."""

import time

from tests.faults.builds import BUILDS
from tests.faults.checks import Violation
from tests.faults.loader_faults import LOADER_FAULTS
from tests.faults.loaders import TimedOut
from tests.faults.outages import OUTAGES
from tests.faults.rivals import RIVALS
from tests.faults.sandbox import Sandbox
from tests.faults.source_faults import SOURCE_FAULTS
from tests.faults.trials import Trial, TrialRun, Verdict

FAULTS = LOADER_FAULTS | RIVALS | SOURCE_FAULTS | OUTAGES | BUILDS
# their streams are not used again
SPOILING = {"adopted_meanwhile", "adopted_under_it", "recreated", "retention", "new_partition"}


def run_trial(sandbox: Sandbox, trial: Trial, seed: int) -> Verdict:
    """Run one trial: produce, inject the fault, drain without faults, check."""
    began = time.monotonic()
    sandbox.begin_trial()
    rng = trial.random(seed)
    trial_run = TrialRun(sandbox, trial, rng)
    verdict = trial_run.verdict
    verdict.settings = {
        "batch_rows": rng.choice([10, 15, 20]),
        "batch_bytes": rng.choice([16 * 1024 * 1024, 16 * 1024 * 1024, 6_000]),
    }
    try:
        lines = _lines(sandbox)
        stream = sandbox.stream
        FAULTS[trial.kind](trial_run)
        heals = sandbox.heal()
        verdict.notes = verdict.notes or heals[-1].text
        if heals[-1].how != "done":
            trial_run.expect(
                "8 no lag", False, f"a drain without faults ended with {heals[-1].text}, expected it to finish"
            )
        violations = sandbox.judge()
        verdict.violations += violations
        verdict.batches = _lines(sandbox) - (lines if sandbox.stream is stream else 0)
    except TimedOut as stuck:
        verdict.violations.append(Violation("ends", f"{sandbox.stream.name}: {stuck}"))
    finally:
        sandbox.end_trial()
        if verdict.violations or trial.kind in SPOILING:
            sandbox.new_stream()
    verdict.seconds = time.monotonic() - began
    return verdict


def _lines(sandbox: Sandbox) -> int:
    row = sandbox.sql.execute(
        "select count(*) from headrace.batches where dataset = %s", (sandbox.stream.name,)
    ).fetchone()
    return row[0] if row else 0
