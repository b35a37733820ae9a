"""Rounds of random incidents in a project of random models; what is staged and built follows from the seed alone.

The only thing that is left to chance is where a builder is when it is killed, and in which order two builders go on
after both have been held up.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from tests.support.random_batches import RandomBatches
from tests.support.random_models import Model
from tests.support.random_project import SCHEMA, RandomProject
from tests.support.warehouse import BLOCKED

DATASETS = ("jobs", "jobs", "users", "events", "rides")
INCIDENTS_A_ROUND = 3
LIMIT_S = 180  # machines are busy: what is not reached says nothing of the marts


def wait_until(is_reached: Callable[[], bool], what: str) -> None:
    """Wait for it; raises TimeoutError, which is no finding about the marts."""
    deadline = time.monotonic() + LIMIT_S
    while not is_reached():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not reached in {LIMIT_S} s")
        time.sleep(0.05)  # each look is a connection


def expect_success(build: BaseProcess, what: str) -> None:
    """Wait for the end of a dbt of its own process, which must succeed."""
    build.join(LIMIT_S)
    if build.is_alive():
        raise TimeoutError(f"{what}: not ended in {LIMIT_S} s")
    assert build.exitcode == 0, f"{what} ended with {build.exitcode}"


@dataclass
class RandomRounds:
    """The rounds of one project; `told` is what has happened in the present one."""

    project: RandomProject
    seed: str
    told: list[str] = field(default_factory=list)
    rng: random.Random = field(init=False)
    batches: RandomBatches = field(init=False)
    dealt: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"rounds {self.seed}")
        self.batches = RandomBatches(self.rng.randrange(1_000_000))

    def start(self) -> None:
        """The first build: of everything, for a part may lack what it reads."""
        self.stage(self.rng.choice([0, 3]))
        self.project.write()
        self.project.run()

    def play(self) -> None:
        """Some incidents, then a build of everything, and a comparison; AssertionError says what differs."""
        self.told.clear()
        for _ in range(INCIDENTS_A_ROUND):
            self.dealt = self.dealt or self.rng.sample(list(INCIDENTS), len(INCIDENTS))
            kind = self.dealt.pop()
            self.stage(self.rng.randint(1, 3))
            self.told.append(kind)
            INCIDENTS[kind](self)
        self.stage(self.rng.choice([0, 1, 2]))
        self.project.run()
        wrong = self.project.differences()
        assert not wrong, "\n".join(wrong)

    def stage(self, batches: int) -> None:
        """Commit so many batches as the loader does."""
        for dataset in self.rng.choices(DATASETS, k=batches):
            self.project.warehouse.stage(dataset, *self.batches.batch(dataset))

    def model(self, fits: Callable[[Model], bool] = lambda _: True) -> Model:
        """Any model that fits; its name is told."""
        model = self.rng.choice([model for model in self.project.models if fits(model)])
        self.told.append(model.name)
        return model

    def selection(self) -> list[str]:
        """Some models, with what they read, with what reads them, or alone; it is told."""
        models = self.rng.sample(self.project.models, self.rng.randint(1, 4))
        forms = self.rng.choices(["{}", "{}", "{}+", "+{}"], k=len(models))
        chosen = [form.format(model.name) for form, model in zip(forms, models, strict=True)]
        self.told.append(" ".join(chosen))
        return ["--select", *chosen]

    @contextmanager
    def held(self, model: Model) -> Iterator[psycopg.Connection[Any]]:
        """What writes the model waits; what reads it does not."""
        with psycopg.connect(self.project.warehouse.dsn) as gate:
            gate.execute(SQL("lock table {} in share mode").format(Identifier(SCHEMA, model.name)))
            yield gate

    def until(self, is_reached: Callable[[], bool]) -> None:
        """Wait for it."""
        wait_until(is_reached, self.told[-1])

    def is_blocked(self) -> bool:
        """Whether a session of dbt waits for a lock."""
        return self.project.warehouse.sessions(BLOCKED) > 0


def _part(rounds: RandomRounds) -> None:
    rounds.project.run(*rounds.selection())


def _parts(rounds: RandomRounds) -> None:
    """Three selections in any order, with batches between."""
    for _ in range(3):
        rounds.project.run(*rounds.selection())
        rounds.stage(1)


def _refresh(rounds: RandomRounds) -> None:
    rounds.project.run("--full-refresh", "--select", rounds.model().name)


def _empty(rounds: RandomRounds) -> None:
    """It may write no state: what it has not read is still to be built."""
    rounds.project.run("--empty", *rounds.selection())


def _meanwhile(rounds: RandomRounds) -> None:
    """Batches are committed while a build waits in the middle of a model."""
    _in_the_middle(rounds, lambda: rounds.stage(2))


def _ended(rounds: RandomRounds) -> None:
    """The builder's sessions are ended in the middle of a model."""

    def end() -> None:
        rounds.project.warehouse.query(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name = 'headrace-build'"
        )

    _in_the_middle(rounds, end, may_fail=True)


def _in_the_middle(rounds: RandomRounds, act: Callable[[], None], may_fail: bool = False) -> None:
    """A build in a thread; when it waits for the model that is held, or when it is done, act."""
    statuses: dict[str, str] = {}

    def run() -> None:
        try:
            statuses.update(rounds.project.invoke("run"))
        except Exception:
            if not may_fail:
                raise

    with rounds.held(rounds.model()) as gate:
        build = threading.Thread(target=run)
        build.start()
        rounds.until(lambda: rounds.is_blocked() or not build.is_alive())
        act()
        gate.rollback()
        build.join(LIMIT_S)
    failed = {name: status for name, status in statuses.items() if status != "success"}
    assert may_fail or (statuses and not failed), failed


def _killed(rounds: RandomRounds) -> None:
    """SIGKILL, while the builder waits in the middle of a model."""
    with rounds.held(rounds.model()), rounds.project.apart("run", "--threads", "2") as build:
        rounds.until(lambda: rounds.is_blocked() or not build.is_alive())
        build.kill()
        build.join()


def _two(rounds: RandomRounds) -> None:
    """Two builders at once, of which neither knows the other; both are held up at the same model."""
    held = rounds.model()
    with rounds.held(held) as gate:
        second = ["--full-refresh"] if rounds.rng.random() < 0.3 else []
        with (
            rounds.project.apart("run", "--threads", "1") as one,
            rounds.project.apart("run", "--threads", "1", *second) as other,
        ):
            rounds.until(
                lambda: rounds.project.warehouse.sessions(BLOCKED) + (not one.is_alive()) + (not other.is_alive()) >= 2
            )
            rounds.stage(1)
            gate.rollback()
            for build in (one, other):
                expect_success(build, "one of two builds")


def _changed(rounds: RandomRounds) -> None:
    """An author changes a model: its grain is gone, or its condition is another one."""
    model = rounds.model(lambda model: not model.dataset and model.grain is not None)
    if rounds.rng.random() < 0.5:
        changed = replace(model, grain=None, touched={})
    else:
        changed = replace(model, sql=f"select * from (\n{model.sql}\n) as rows_kept\nwhere {_condition(rounds, model)}")
    rounds.project.replace(changed)
    rounds.project.run(*rounds.selection())


def _condition(rounds: RandomRounds, model: Model) -> str:
    """A condition on single rows of the result: it keeps any grain's promise."""
    return f"{rounds.rng.choice(list(model.columns))} is not null"


def _trimmed(rounds: RandomRounds) -> None:
    """Logs beyond the cap are emptied, while some readers have not seen all of them."""
    rounds.project.run("--vars", '{"log_rows_max": 0}', *rounds.selection())


def _recreated(rounds: RandomRounds) -> None:
    """An operator drops a table; the next build makes it again, with rows that its readers have not seen."""
    model = rounds.model()
    rounds.project.warehouse.execute(f"drop table {SCHEMA}.{model.name}")
    rounds.stage(1)
    rounds.project.run("--select", model.name, *([f"{model.name}+"] if rounds.rng.random() < 0.3 else []))


INCIDENTS: dict[str, Callable[[RandomRounds], None]] = {
    "part": _part,
    "parts": _parts,
    "refresh": _refresh,
    "empty": _empty,
    "meanwhile": _meanwhile,
    "ended": _ended,
    "killed": _killed,
    "two": _two,
    "changed": _changed,
    "trimmed": _trimmed,
    "recreated": _recreated,
}
