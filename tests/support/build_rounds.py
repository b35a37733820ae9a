"""Rounds of batches and concurrent builds, drawn from a seed, so that a round can be repeated.

What is staged and which builds run follows from the seed alone; where a kill or a commit falls inside a build does not.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.process import BaseProcess

import psycopg

from tests.support.mart_rows import COLUMNS, Coordinate
from tests.support.marts_oracle import Version
from tests.support.random_batches import RandomBatches
from tests.support.warehouse import BLOCKED, MARTS, Warehouse

MODELS = "resource_type:model"  # the functions and tests belong to other suites
UPSTREAMS = (*COLUMNS, "visitor_revenues")  # the marts that other marts read
DATASETS = ("jobs", "jobs", "users", "events", "rides", "telemetry")  # jobs feed the most marts
PARTS_A_ROUND = 3  # builds of a few marts cost least, and set the claims apart
DEALT_A_ROUND = 2  # of the other kinds of incident
RUN_LIMIT_S = 120
AT_WORK = "application_name = 'headrace-build' and xact_start is not null"


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """Rows of a dataset that are committed together, and the places of which a reload leaves nothing."""

    dataset: str
    versions: Sequence[Version]
    gone: Sequence[Coordinate]


@dataclass(frozen=True, slots=True)
class Incident:
    """A build, or two, or one that is killed; with what was staged before and what is meanwhile.

    selections: what each of its builds selects. refreshes: whether the second of two is a full refresh. mart: at
    which it is killed (None: wherever it is after pause_s), or which is refreshed. meanwhile: batches, each with
    the seconds that the loader waits before it.
    """

    kind: str
    selections: tuple[tuple[str, ...], tuple[str, ...]]
    refreshes: bool
    mart: str | None
    pause_s: float
    before: tuple[StagedBatch, ...]
    meanwhile: tuple[tuple[float, StagedBatch], ...]

    def __str__(self) -> str:
        told = {
            "part": f"build {' '.join(self.selections[0])}",
            "refresh": f"full refresh of {self.mart}",
            "two": f"dbt {' '.join(self.selections[0])} and {' '.join(self.selections[1])}"
            + (" --full-refresh" if self.refreshes else ""),
            "beside": f"dbt {' '.join(self.selections[0])} and build {' '.join(self.selections[1])}",
            "killed": f"kill at {self.mart}" if self.mart else f"kill after {self.pause_s:.2f} s",
        }[self.kind]
        return told + (f" with {len(self.meanwhile)} batches meanwhile" if self.meanwhile else "")


@dataclass(frozen=True, slots=True)
class Round:
    """What is staged and built between two comparisons."""

    number: int
    incidents: tuple[Incident, ...]
    last: tuple[StagedBatch, ...]

    @property
    def batches(self) -> list[StagedBatch]:
        """All of them, each dataset's in the order in which they are committed."""
        found = []
        for incident in self.incidents:
            found += [*incident.before, *(batch for _, batch in incident.meanwhile)]
        return [*found, *self.last]

    def __str__(self) -> str:
        rows = sum(len(batch.versions) for batch in self.batches)
        return f"round {self.number}: {len(self.batches)} batches, {rows} rows; {'; '.join(map(str, self.incidents))}"


def rounds(seed: int) -> Iterator[Round]:
    """The rounds of a seed, endlessly; a kind of incident comes again when all have been dealt; parts always come."""
    batches = RandomBatches(seed)
    rng = random.Random(seed)
    schedule: list[str] = []
    for number in count(1):
        if not schedule:
            schedule = rng.sample([kind for kind in PLAYS if kind != "part"], len(PLAYS) - 1)
        dealt, schedule = schedule[:DEALT_A_ROUND], schedule[DEALT_A_ROUND:]
        kinds = rng.sample([*dealt, *["part"] * PARTS_A_ROUND], DEALT_A_ROUND + PARTS_A_ROUND)
        first = [StagedBatch(dataset, *batches.batch(dataset)) for dataset in COLUMNS] if number == 1 else []
        incidents = [_incident(rng, batches, kind) for kind in kinds]
        yield Round(number, tuple(incidents), (*first, *_some(rng, batches, rng.randint(0, 2))))


def stage(warehouse: Warehouse, batches: Sequence[StagedBatch]) -> None:
    """Commit batches as the loader does, one after another."""
    for batch in batches:
        warehouse.stage(batch.dataset, batch.versions, batch.gone)


def play(warehouse: Warehouse, played: Round) -> None:
    """Stage and build what the round says; its last build finds whatever is left to do."""
    for incident in played.incidents:
        stage(warehouse, incident.before)
        with _loading(warehouse, incident.meanwhile):
            PLAYS[incident.kind](warehouse, incident)
    stage(warehouse, played.last)
    warehouse.build()


@contextmanager
def _loading(warehouse: Warehouse, batches: Sequence[tuple[float, StagedBatch]]) -> Iterator[None]:
    """The loader commits these while the block runs."""

    def load() -> None:
        for pause_s, batch in batches:
            time.sleep(pause_s)
            stage(warehouse, [batch])

    with ThreadPoolExecutor(1) as pool:
        loaded = pool.submit(load)
        yield
        loaded.result()


def _part(warehouse: Warehouse, incident: Incident) -> None:
    warehouse.build(select=incident.selections[0])


def _refresh(warehouse: Warehouse, incident: Incident) -> None:
    warehouse.build(select=incident.mart, full_refresh=True)


def _two(warehouse: Warehouse, incident: Incident) -> None:
    """Two of dbt that both have listed the relations before either may claim."""
    with ExitStack() as stack:
        gate = stack.enter_context(psycopg.connect(warehouse.dsn))
        gate.execute("lock table headrace.claims in access exclusive mode")
        flags = [[], ["--full-refresh"] if incident.refreshes else []]
        runs = [
            stack.enter_context(warehouse.dbt("run", *more, "--select", *selection, "--threads", "1"))
            for selection, more in zip(incident.selections, flags, strict=True)
        ]
        warehouse.wait_for_sessions(BLOCKED, len(runs))
        gate.commit()
        for run in runs:
            _expect_success(run)


def _beside(warehouse: Warehouse, incident: Incident) -> None:
    """`dbt run` in a shell while `headrace build` works: they know nothing of each other's turn."""
    with warehouse.dbt("run", "--select", *incident.selections[0]) as run:
        _wait_until_at_work(warehouse, run)
        warehouse.build(select=incident.selections[1])
        _expect_success(run)


def _killed(warehouse: Warehouse, incident: Incident) -> None:
    with ExitStack() as stack:
        if incident.mart:
            gate = stack.enter_context(psycopg.connect(warehouse.dsn))
            # it can be read; what writes it waits
            gate.execute(f"lock table marts.{incident.mart} in share mode".encode())
        run = stack.enter_context(warehouse.dbt("run", *(["--full-refresh"] if incident.refreshes else [])))
        if incident.mart:
            _wait_until_blocked(warehouse, run)
        else:
            _wait_until_at_work(warehouse, run)
            time.sleep(incident.pause_s)
        run.kill()
        run.join()


def _wait_until_blocked(warehouse: Warehouse, run: BaseProcess) -> None:
    """Until it waits for a lock, or has ended: a mart in which nothing changes is not written."""
    deadline = time.monotonic() + RUN_LIMIT_S
    while run.is_alive() and not warehouse.sessions(BLOCKED):
        assert time.monotonic() < deadline, "dbt did not come to the mart that is held"
        time.sleep(0.05)


def _wait_until_at_work(warehouse: Warehouse, run: BaseProcess) -> None:
    deadline = time.monotonic() + RUN_LIMIT_S
    while run.is_alive() and not warehouse.sessions(AT_WORK):
        assert time.monotonic() < deadline, "dbt did not begin to work on a model"
        time.sleep(0.01)


def _expect_success(run: BaseProcess) -> None:
    run.join(RUN_LIMIT_S)
    assert run.exitcode == 0, f"dbt ended with {run.exitcode}"


PLAYS: dict[str, Callable[[Warehouse, Incident], None]] = {
    "part": _part,
    "refresh": _refresh,
    "two": _two,
    "beside": _beside,
    "killed": _killed,
}


def _incident(rng: random.Random, batches: RandomBatches, kind: str) -> Incident:
    marts = {"refresh": UPSTREAMS, "killed": (*MARTS, *[None] * len(MARTS))}.get(kind, (None,))
    return Incident(
        kind,
        (_selection(rng), _selection(rng)),
        rng.random() < 0.3,
        rng.choice(marts),
        rng.uniform(0, 0.8),
        tuple(_some(rng, batches, rng.randint(2, 4))),
        tuple((rng.uniform(0, 0.3), batch) for batch in _some(rng, batches, rng.choice([0, 0, 1, 3]))),
    )


def _selection(rng: random.Random) -> tuple[str, ...]:
    """Mostly some marts and not what they read, or what reads them: then the claims are apart."""
    some = tuple(rng.sample(list(MARTS), rng.randint(1, 3)))
    return rng.choice([some, some, (f"{rng.choice(list(COLUMNS))}+,{MODELS}",), (MODELS,)])


def _some(rng: random.Random, batches: RandomBatches, number: int) -> list[StagedBatch]:
    return [StagedBatch(dataset, *batches.batch(dataset)) for dataset in rng.choices(DATASETS, k=number)]
