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

from tests.faults import deck
from tests.faults.servers import Servers
from tests.faults.suite import LaneSpec, Report, Tally, Work, run

SEED = int(os.environ.get("FAULTS_SEED") or random.randrange(100_000))
TRIAL = os.environ.get("FAULTS_TRIAL") or None
DRAIN_LANES = int(os.environ.get("FAULTS_LANES") or 5)  # a trial waits more than it works
TRIALS = {"drain": int(os.environ.get("FAULTS_TRIALS") or 880), "outage": 60, "build": 15}
COUNTED_MIN = 900
SLICE = {"drain": 26, "postgres": 6, "build": 1}


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Report:
    """Prints at once, also where pytest captures."""

    def printed(line: str) -> None:
        with capsys.disabled():
            print(line, flush=True)

    return printed


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Postgres and a broker that no trial kills."""
    servers = Servers()
    try:
        servers.start()
        yield servers
    finally:
        servers.close()


@pytest.fixture
def doomed_servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """Servers that trials kill."""
    doomed = Servers(getattr(request, "param", ("postgres", "kafka")))
    try:
        doomed.start()
        yield doomed
    finally:
        doomed.close()


def _lane(name: str, deck_name: str, folder: Path, servers: Servers, broker: Servers | None = None) -> LaneSpec:
    return LaneSpec(
        name,
        deck_name,
        folder,
        servers.address("postgres"),
        (broker or servers).address("kafka"),
        servers=servers if deck_name in ("outage", "postgres") else None,
    )


def _tell(tally: Tally, report: Report, total: int | None = None) -> None:
    report("")
    report(tally.table())
    for verdict in tally.verdicts:
        if verdict.trial.kind == "zombie_defaults":
            report(f"{verdict.trial.name}: with the default time limits {verdict.notes}")
    report(tally.progress(total))


@pytest.mark.faults
@pytest.mark.skipif(TRIAL is not None, reason="one trial is asked for")
def test_faults_all_trials_find_no_violation(
    servers: Servers, doomed_servers: Servers, tmp_path: Path, report: Report
) -> None:
    report(
        f"\nfaults: seed {SEED}, {sum(TRIALS.values())} trials in {DRAIN_LANES} lanes for drains, "
        "1 for outages, 1 for builds"
    )
    work = [
        Work(
            [_lane(f"drain_{number}", "drain", tmp_path, servers) for number in range(1, DRAIN_LANES + 1)],
            islice(deck.trials("drain", SEED), TRIALS["drain"]),
        ),
        Work(
            [_lane("outage", "outage", tmp_path, doomed_servers)], islice(deck.trials("outage", SEED), TRIALS["outage"])
        ),
        Work([_lane("build", "build", tmp_path, servers)], islice(deck.trials("build", SEED), TRIALS["build"])),
    ]
    tally = run(work, SEED, report, total=sum(TRIALS.values()))
    _tell(tally, report, sum(TRIALS.values()))
    assert not tally.violations, tally.complaints()
    assert len(tally.counted) >= COUNTED_MIN, tally.table()


@pytest.mark.faults
@pytest.mark.skipif(TRIAL is None, reason="no one trial is asked for (TRIAL=drain-137)")
def test_faults_one_trial_again(servers: Servers, doomed_servers: Servers, tmp_path: Path, report: Report) -> None:
    trial = deck.find(str(TRIAL), SEED)
    report(f"\nfaults: seed {SEED}, {trial}")
    name = trial.name.partition("-")[0]
    spec = _lane(name, name, tmp_path, doomed_servers if name in ("outage", "postgres") else servers)
    tally = run([Work([spec], iter([trial]))], SEED, report)
    _tell(tally, report)
    for verdict in tally.verdicts:
        report(f"fired: {verdict.fired}, batches: {verdict.batches}; {verdict.notes}")
    assert not tally.violations, tally.complaints()


@pytest.mark.parametrize("doomed_servers", [("postgres",)], indirect=True)
def test_faults_a_slice_of_trials_finds_no_violation(
    servers: Servers, doomed_servers: Servers, tmp_path: Path, report: Report
) -> None:
    """The slice of the long run that belongs to every `make test`."""
    work = [
        Work(
            [_lane(f"drain_{number}", "drain", tmp_path, servers) for number in (1, 2, 3)],
            islice(deck.trials("drain", SEED), SLICE["drain"]),
        ),
        Work(
            [_lane("postgres", "postgres", tmp_path, doomed_servers, servers)],
            islice(deck.trials("postgres", SEED), SLICE["postgres"]),
        ),
        Work([_lane("build", "build", tmp_path, servers)], islice(deck.trials("build", SEED), SLICE["build"])),
    ]
    tally = run(work, SEED, lambda _line: None)
    _tell(tally, report)
    assert not tally.violations, tally.complaints()
    assert len(tally.verdicts) == sum(SLICE.values())
    assert len(tally.counted) >= 0.9 * len(tally.verdicts), tally.table()


def test_trial_is_repeated_by_seed_and_name() -> None:
    for name in ("drain-1", "drain-437", "outage-61", "build-20"):
        trial = deck.find(name, 7)
        assert trial.name == name
        assert trial == deck.find(name, 7)
        assert trial.random(7).random() == deck.find(name, 7).random(7).random()
    assert list(islice(deck.trials("drain", 7), 50)) != list(islice(deck.trials("drain", 8), 50))


def test_every_card_is_dealt_once_a_round() -> None:
    for name, cards in deck.DECKS.items():
        slow = len(deck.SLOW_CARDS) if name == "drain" else 0
        dealt = list(islice(deck.trials(name, 3), slow, slow + len(cards)))
        assert sorted((trial.kind, trial.step, trial.nth) for trial in dealt) == sorted(cards)
