"""A project of fixed models in which scenarios commit batches, build, and hold builders up."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import psycopg

from tests.support.mart_rows import job
from tests.support.mart_scenario_models import AT_THE_END, MODELS, OUTSIDE, SOURCES
from tests.support.random_project import RandomProject
from tests.support.random_rounds import LIMIT_S, wait_until
from tests.support.warehouse import BLOCKED

MANY_JOBS = """
with numbered as (update headrace.datasets set last_seq = last_seq + 1 where dataset = 'jobs' returning last_seq),
batch as (
    insert into headrace.batches
        (batch_id, dataset, seq, generation, partition, start_offset, end_offset, staged, started_at, kind)
    select gen_random_uuid(), 'jobs', last_seq, 1, 0, {first}, {last} + 1, {last} + 1 - {first}, now(), 'drain'
    from numbered returning batch_id
)
insert into staging.jobs
    (jobidentifier, jobcreatedate, jobstatus, location, revenue, servicename, userid, _generation, _partition, _offset,
    _timestamp, _deleted, _batch_id)
select 1000 + place, now(), 'SUCCESS', 'L' || place % 50, place % 7, 'Driver', 1000 + place / 3, 1, 0, place, now(),
    false, batch_id
from batch, generate_series({first}, {last}) as places (place)
"""


@dataclass
class Site:
    """A project of fixed models and the next offset of each dataset."""

    project: RandomProject
    changes: int = 0
    offsets: dict[str, int] = field(default_factory=lambda: {"jobs": 0, "users": 0})

    def jobs(self, *rows: tuple[int, dict[str, Any] | None]) -> None:
        """Commit a batch of jobs: key, and columns or a tombstone."""
        self.project.warehouse.jobs(*((self._offset("jobs"), key, columns) for key, columns in rows))

    def users(self, *rows: tuple[int, str | None]) -> None:
        """Commit a batch of users: key, and location or a tombstone."""
        self.project.warehouse.users(*((self._offset("users"), key, location) for key, location in rows))

    def build(self, *models: str, more: tuple[str, ...] = ()) -> None:
        """`dbt run` of these models, or of all."""
        self.project.run(*more, *(["--select", *models] if models else []))

    def start(self) -> None:
        """Write the project and build some rows of everything; nothing was there before."""
        self.project.warehouse.execute(OUTSIDE)
        self.project.models, self.project.sources = MODELS, SOURCES
        self.users(*((number, "ABC"[number % 3]) for number in range(9)))
        self.jobs(*((number, job("ABCF"[number % 4], number % 9, "1.50", number % 5)) for number in range(24)))
        self.project.write()
        self.build()
        self.expect_equal("after the first build")

    def play(self, scenarios: Sequence[Callable[[Self], None]]) -> None:
        """Play scenarios one after another; an error names its scenario."""
        for scenario in scenarios:
            try:
                scenario(self)
            except Exception as error:
                error.add_note(f"scenario {scenario.__name__}")
                raise

    def expect_equal(self, when: str) -> None:
        """Every model is what its SELECT gives."""
        wrong = self.project.differences()
        assert not wrong, f"{when}: " + "\n".join(wrong)

    def value(self, query: str) -> Any:
        """The one value of a query."""
        return self.project.warehouse.value(query)

    @contextmanager
    def gate(self, number: int = AT_THE_END) -> Iterator[psycopg.Connection[Any]]:
        """A connection that holds a gate; builders wait there until the block ends or open_gate is called."""
        with psycopg.connect(self.project.warehouse.dsn, autocommit=True) as connection:
            connection.execute(f"select pg_advisory_lock({number})".encode())
            yield connection

    def blocked(self, count: int = 1, condition: str = BLOCKED) -> None:
        """Wait until so many sessions of builders wait for a lock."""
        wait_until(lambda: self.project.warehouse.sessions(condition) >= count, f"{count} builders wait for a lock")

    @contextmanager
    def building(self, *arguments: str) -> Iterator[None]:
        """dbt in a thread while the block runs; afterwards it must have succeeded."""
        statuses: dict[str, str] = {}
        thread = threading.Thread(target=lambda: statuses.update(self.project.invoke("run", *arguments, threads=1)))
        thread.start()
        yield
        thread.join(LIMIT_S)
        if thread.is_alive():
            raise TimeoutError(f"dbt run {' '.join(arguments)}: not ended in {LIMIT_S} s")
        failed = [f"{name}: {status}" for name, status in statuses.items() if status != "success"]
        assert statuses and not failed, f"the build failed: {failed}"

    def change(self) -> None:
        """Commit a batch in which a job moves from one location and user to another, and one is new."""
        self.changes += 1
        moved = job("ABC"[self.changes % 3], self.changes % 4, f"{self.changes}.00")
        self.jobs((0, moved), (100 + self.changes, job("B", 5, "2.00")))

    def many_jobs(self, count: int) -> None:
        """Commit so many jobs in one batch, each of three users' of their own."""
        first = self.offsets["jobs"] + 1
        self.offsets["jobs"] += count
        self.project.warehouse.execute(MANY_JOBS.format(first=first, last=self.offsets["jobs"]))

    def _offset(self, dataset: str) -> int:
        self.offsets[dataset] += 1
        return self.offsets[dataset]
