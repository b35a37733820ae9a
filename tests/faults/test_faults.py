"""The fault suite: loaders, servers and builds are killed, stopped and cut off, and the database is judged.

make faults                            all trials, with a new seed
make faults SEED=5                     the same ones again
make faults SEED=5 TRIAL=drain-137     one of them
"""

import os
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.faults import schedule
from tests.faults.servers import Servers
from tests.faults.suite import PrintLine, RunSummary, SandboxSpec, TrialQueue, run

SEED = int(os.environ.get("FAULTS_SEED") or random.randrange(100_000))
TRIAL = os.environ.get("FAULTS_TRIAL") or None
DRAIN_SANDBOXES = int(os.environ.get("FAULTS_SANDBOXES") or 5)  # more than cores: trials mostly wait
TRIALS = {"drain": int(os.environ.get("FAULTS_TRIALS") or 880), "outage": 60, "build": 15}
COUNTED_MIN = 900
SLICE = {"drain": 5, "postgres": 2}  # builds are killed in tests/integration/test_build_rounds.py


@pytest.fixture
def doomed_servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Servers that trials kill."""
    doomed = Servers(getattr(request, "param", ("postgres", "kafka")))
    try:
        doomed.start()
        yield doomed
    finally:
        doomed.close()


def _sandbox(
    name: str, schedule_name: str, folder: Path, servers: Servers, broker: Servers | None = None
) -> SandboxSpec:
    return SandboxSpec(
        name,
        schedule_name,
        folder,
        servers.address("postgres"),
        (broker or servers).address("kafka"),
        servers=servers if schedule_name in ("outage", "postgres") else None,
    )


def _print_summary(summary: RunSummary, print_line: PrintLine, total: int | None = None) -> None:
    print_line("")
    print_line(summary.table())
    for verdict in summary.verdicts:
        if verdict.trial.kind == "zombie_defaults":
            print_line(f"{verdict.trial.name}: with the default time limits {verdict.notes}")
    print_line(summary.progress_line(total))


@pytest.mark.faults
@pytest.mark.skipif(TRIAL is not None, reason="one trial is asked for")
def test_faults_all_trials_find_no_violation(
    servers: Servers, doomed_servers: Servers, tmp_path: Path, print_line: PrintLine
) -> None:
    print_line(
        f"\nfaults: seed {SEED}, {sum(TRIALS.values())} trials in {DRAIN_SANDBOXES} sandboxes for drains, "
        "1 for outages, 1 for builds"
    )
    work = [
        TrialQueue(
            [_sandbox(f"drain_{number}", "drain", tmp_path, servers) for number in range(1, DRAIN_SANDBOXES + 1)],
            islice(schedule.trials("drain", SEED), TRIALS["drain"]),
        ),
        TrialQueue(
            [_sandbox("outage", "outage", tmp_path, doomed_servers)],
            islice(schedule.trials("outage", SEED), TRIALS["outage"]),
        ),
        TrialQueue(
            [_sandbox("build", "build", tmp_path, servers)], islice(schedule.trials("build", SEED), TRIALS["build"])
        ),
    ]
    summary = run(work, SEED, print_line, total=sum(TRIALS.values()))
    _print_summary(summary, print_line, sum(TRIALS.values()))
    assert not summary.violations, summary.violation_lines()
    assert len(summary.counted) >= COUNTED_MIN, summary.table()


@pytest.mark.faults
@pytest.mark.skipif(TRIAL is None, reason="no one trial is asked for (TRIAL=drain-137)")
def test_faults_one_trial_again(
    servers: Servers, doomed_servers: Servers, tmp_path: Path, print_line: PrintLine
) -> None:
    trial = schedule.find(str(TRIAL), SEED)
    print_line(f"\nfaults: seed {SEED}, {trial}")
    name = trial.name.partition("-")[0]
    spec = _sandbox(name, name, tmp_path, doomed_servers if name in ("outage", "postgres") else servers)
    summary = run([TrialQueue([spec], iter([trial]))], SEED, print_line)
    _print_summary(summary, print_line)
    for verdict in summary.verdicts:
        print_line(f"fired: {verdict.fired}, batches: {verdict.batches}; {verdict.notes}")
    assert not summary.violations, summary.violation_lines()


@pytest.mark.parametrize("doomed_servers", [("postgres",)], indirect=True)
def test_faults_a_slice_of_trials_finds_no_violation(
    servers: Servers, doomed_servers: Servers, tmp_path: Path, print_line: PrintLine
) -> None:
    """The slice of the long run that belongs to every `make test`."""
    drains = schedule.trials("drain", SEED)
    work = [
        TrialQueue(
            [_sandbox(f"drain_{number}", "drain", tmp_path, servers) for number in (1, 2, 3)],
            islice(drains, SLICE["drain"]),
        ),
        TrialQueue(
            [_sandbox("postgres", "postgres", tmp_path, doomed_servers, servers)],
            islice(schedule.trials("postgres", SEED), SLICE["postgres"]),
        ),
    ]
    summary = run(work, SEED, lambda _line: None)
    _print_summary(summary, print_line)
    assert not summary.violations, summary.violation_lines()
    assert len(summary.verdicts) == sum(SLICE.values())
    missing = len(summary.verdicts) - len(summary.counted)
    assert missing <= 1, summary.table()
    if missing:  # some drains end before their fault comes, in the long run one of 160: the next must have its fault
        another = [_sandbox("drain_4", "drain", tmp_path, servers)]
        again = run([TrialQueue(another, islice(drains, missing))], SEED, lambda _line: None)
        assert not again.violations, again.violation_lines()
        assert len(again.counted) == missing, again.table()


def test_trial_is_repeated_by_seed_and_name() -> None:
    for name in ("drain-1", "drain-437", "outage-61", "build-20"):
        trial = schedule.find(name, 7)
        assert trial.name == name
        assert trial == schedule.find(name, 7)
        assert trial.random(7).random() == schedule.find(name, 7).random(7).random()
    assert list(islice(schedule.trials("drain", 7), 50)) != list(islice(schedule.trials("drain", 8), 50))


def test_every_case_is_scheduled_once_a_round() -> None:
    for name, cases in schedule.SCHEDULES.items():
        slow = len(schedule.SLOW_CASES) if name == "drain" else 0
        dealt = list(islice(schedule.trials(name, 3), slow, slow + len(cases)))
        assert sorted((trial.kind, trial.step, trial.nth) for trial in dealt) == sorted(cases)
