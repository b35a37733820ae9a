"""The checker is checked: seeded bugs in copies of the loader, each of which the suite has to catch.

make mutants                                all, and one unchanged copy that has to pass
make mutants MUTANT='no compare-and-set'    one of them
"""

import ast
import os
import random
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, cycle, islice
from pathlib import Path

import pytest

from tests.faults import schedule
from tests.faults.checks import Violation
from tests.faults.format_mutants import FORMAT_MUTANTS
from tests.faults.loaders import ROOT
from tests.faults.mart_mutants import MART_MUTANTS
from tests.faults.mutants import MUTANTS, Mutant
from tests.faults.sandbox import CRASHED
from tests.faults.servers import Servers
from tests.faults.suite import BROKEN, PrintLine, SandboxProcess, SandboxSpec, TrialQueue, run
from tests.faults.trials import Trial

SEED = int(os.environ.get("FAULTS_SEED") or random.randrange(100_000))
ONLY = os.environ.get("FAULTS_MUTANT") or None
AT_ONCE = 4
ATTEMPTS = 10
CONTROL_TRIALS = 40


@dataclass(frozen=True, slots=True)
class MutantResult:
    """The result for a mutant: the check that caught it, or why none did."""

    mutant: str
    check: str = ""
    message: str = ""
    trial: str = ""

    @property
    def is_caught(self) -> bool:
        return bool(self.check)

    def line(self) -> str:
        """A line of the table."""
        return f"{self.mutant:<46} {self.check or 'NOT CAUGHT':<26} {self.trial:<32} {self.message[:240]}"


def _copy(folder: Path, mutant: Mutant | None) -> Path:
    plugins = folder / "plugins"
    shutil.copytree(ROOT / "plugins", plugins, ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        mutant.apply(plugins)
    return plugins


def _try(mutant: Mutant, number: int, folder: Path, servers: Servers) -> MutantResult:
    plugins = _copy(folder, mutant)
    sandbox = SandboxProcess(
        SandboxSpec(
            f"mutant_{number}",
            "drain",
            folder,
            servers.address("postgres"),
            servers.address("kafka"),
            plugins=plugins,
            undefended=mutant.undefended,
        ),
        SEED,
    )
    started = False
    try:
        cases = islice(chain([("calm", "", 1)], cycle(mutant.cases)), ATTEMPTS)
        for attempt, (kind, step, nth) in enumerate(cases):
            trial = Trial(f"mutant-{attempt}", kind, step, nth)
            verdict = sandbox.play(trial)
            started = started or verdict.batches > 0
            for violation in verdict.violations:
                # a loader that does not start also leaves a lag: that says nothing about the checks
                if violation.check in (CRASHED, BROKEN) or not started:
                    return MutantResult(mutant.name, message=f"crashed: {violation.message[-300:]}")
            if verdict.violations:
                first = min(verdict.violations, key=_rank)
                return MutantResult(mutant.name, first.check, first.message, f"{kind} {step} {nth}".strip())
        return MutantResult(mutant.name, message=f"{ATTEMPTS} trials found nothing")
    finally:
        sandbox.close()


def _rank(violation: Violation) -> tuple[bool, bool]:
    """Checks of data first: of several violations they explain the bug best."""
    return not violation.check[0].isdigit() or violation.check.startswith("8"), violation.check != "honest runs"


@pytest.mark.faults
def test_mutants_are_all_caught(servers: Servers, tmp_path: Path, print_line: PrintLine) -> None:
    if ONLY in {mutant.name for mutant in (*MART_MUTANTS, *FORMAT_MUTANTS)}:
        pytest.skip(f"{ONLY} is a mutant of marts or formats")
    wanted = [mutant for mutant in MUTANTS if ONLY in (None, mutant.name)]
    names = ", ".join(mutant.name for mutant in (*MUTANTS, *MART_MUTANTS, *FORMAT_MUTANTS))
    assert wanted, f"MUTANT: found {ONLY!r}, expected one of {names}"
    print_line(f"\nmutants: seed {SEED}, {len(wanted)} mutants")
    outcomes: dict[str, MutantResult] = {}
    lock = threading.Lock()
    waiting: Iterator[tuple[int, Mutant]] = iter(list(enumerate(wanted)))

    def work() -> None:
        while True:
            with lock:
                number, mutant = next(waiting, (0, None))
            if mutant is None:
                return
            folder = tmp_path / str(number)
            folder.mkdir()
            outcome = _try(mutant, number, folder, servers)
            with lock:
                outcomes[mutant.name] = outcome
                print_line(outcome.line())

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    caught = [outcome for outcome in outcomes.values() if outcome.is_caught]
    print_line(f"mutants: {len(caught)} of {len(wanted)} caught")
    missed = [mutant.name for mutant in wanted if mutant.name not in outcomes or not outcomes[mutant.name].is_caught]
    assert not missed, missed


@pytest.mark.faults
@pytest.mark.skipif(ONLY is not None, reason="one mutant is asked for")
def test_unchanged_copy_of_the_loader_passes(servers: Servers, tmp_path: Path, print_line: PrintLine) -> None:
    plugins = _copy(tmp_path, None)
    specs = [
        SandboxSpec(
            f"control_{undefended}".lower(),
            "drain",
            tmp_path,
            servers.address("postgres"),
            servers.address("kafka"),
            plugins=plugins,
            undefended=undefended,
        )
        for undefended in (False, True)
    ]
    summary = run([TrialQueue(specs, islice(schedule.trials("drain", SEED), CONTROL_TRIALS))], SEED, print_line)
    print_line(f"control, no bug seeded: {summary.progress_line(None)}")
    assert not summary.violations, summary.violation_lines()
    assert len(summary.counted) >= CONTROL_TRIALS // 2


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_fits_the_loader_as_it_is(mutant: Mutant) -> None:
    for text in mutant.changed(ROOT / "plugins").values():
        ast.parse(text)
