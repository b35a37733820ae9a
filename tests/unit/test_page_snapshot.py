"""The page's figures are read by one thread, however many ask and whatever the database does."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from headrace.airflow import page_snapshot
from headrace.airflow.page_snapshot import FigureSnapshot, Refresher
from headrace.exceptions import DatabaseUnavailable
from headrace.monitor.problems import Overview, find_problems_by
from tests.support.statuses import dataset, status


def figures() -> Overview:
    return find_problems_by(status(dataset("jobs")), {})


class Database:
    """Reads figures at once, raises an error, or is frozen."""

    def __init__(self) -> None:
        self.reads = 0
        self.error: Exception | None = None
        self.is_waited_for = False
        self.answers = threading.Event()
        self.answers.set()

    def read(self) -> Overview:
        self.reads += 1
        self.is_waited_for = not self.answers.is_set()
        self.answers.wait(10)
        self.is_waited_for = False
        if self.error is not None:
            raise self.error
        return figures()


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database()
    yield made
    made.answers.set()


class Clock:
    """time.monotonic() of the module: it goes on when told to, and while a frozen database is waited for."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = 1_000.0

    def monotonic(self) -> float:
        return self._now

    thread_time = staticmethod(time.thread_time)

    def advance(self, seconds: float) -> None:
        self._now += seconds

    async def sleep(self, seconds: float) -> None:
        """Wait as the module does; the thread that reads has all the time that it needs."""
        if self._database.is_waited_for:
            self.advance(seconds)
        await asyncio.sleep(0.001)


@pytest.fixture
def clock(database: Database, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(database)
    monkeypatch.setattr(page_snapshot, "time", made)
    monkeypatch.setattr(page_snapshot, "asyncio", made)
    return made


@pytest.fixture
def refresher(database: Database, clock: Clock) -> Refresher:
    return Refresher(database.read)


def ask(refresher: Refresher, times: int = 1) -> list[FigureSnapshot]:
    async def all_at_once() -> list[FigureSnapshot]:
        return await asyncio.gather(*(refresher.current() for _ in range(times)))

    return asyncio.run(all_at_once())


def test_figures_are_read_once_for_all_who_ask(refresher: Refresher, database: Database) -> None:
    found = ask(refresher, 45)
    assert {each.stale_reason() for each in found} == {None}
    assert all(each.overview is found[0].overview for each in found)
    assert database.reads == 1


def test_figures_are_read_again_only_when_asked_for(refresher: Refresher, database: Database, clock: Clock) -> None:
    ask(refresher)
    clock.advance(page_snapshot.CACHE_S - 0.1)
    ask(refresher)
    clock.advance(3600)
    assert database.reads == 1
    ask(refresher)
    assert database.reads == 2


def test_request_that_comes_as_a_read_ends_begins_no_other(
    refresher: Refresher, database: Database, clock: Clock
) -> None:
    ask(refresher)
    refresher._ask()
    _until(lambda: not refresher._asked.is_set())
    clock.advance(page_snapshot.CACHE_S)
    ask(refresher)
    assert database.reads == 2


def test_frozen_database_holds_up_one_thread_and_no_request(
    refresher: Refresher, database: Database, clock: Clock
) -> None:
    database.answers.clear()
    before, began = threading.active_count(), clock.monotonic()
    assert {each.overview for each in ask(refresher, 45)} == {None}
    assert threading.active_count() == before + 1
    # each of the 45 moves the clock on, for the last time behind the deadline
    assert clock.monotonic() - began <= page_snapshot.FIRST_WAIT_S + 45 * page_snapshot.POLL_S
    database.answers.set()
    _until(lambda: ask(refresher)[0].overview is not None)
    assert database.reads == 1


def test_last_figures_are_served_with_their_age_while_the_next_are_not_answered(
    refresher: Refresher, database: Database, clock: Clock
) -> None:
    ask(refresher)
    clock.advance(page_snapshot.CACHE_S)
    database.answers.clear()
    assert ask(refresher, 45)[0].stale_reason() is None  # it may yet be answered
    clock.advance(page_snapshot.SLOW_S)
    (found,) = ask(refresher)
    assert found.overview is not None
    assert (found.stale_reason() or "").startswith(
        "These figures are of 12:00:00 UTC, less than a minute old: postgres: found no answer for "
    )
    before = clock.monotonic()
    ask(refresher, 45)
    assert clock.monotonic() == before  # a slow read is waited for once
    assert database.reads == 2


def test_failure_is_kept_and_said_as_figures_are(refresher: Refresher, database: Database, clock: Clock) -> None:
    database.error = DatabaseUnavailable("postgres: gone")
    for _ in range(3):
        (found,) = ask(refresher)
        assert (found.overview, found.stale_reason()) == (None, "postgres: gone")
        clock.advance(page_snapshot.FAILURE_S / 4)
    assert database.reads == 1
    database.error = None
    clock.advance(page_snapshot.FAILURE_S)
    assert ask(refresher)[0].stale_reason() is None
    database.error = DatabaseUnavailable("postgres: gone again")
    clock.advance(page_snapshot.CACHE_S)
    (found,) = ask(refresher)
    assert found.overview is not None
    assert found.stale_reason() == "These figures are of 12:00:00 UTC, less than a minute old: postgres: gone again"


def test_error_of_any_kind_is_one_line_and_the_next_read_comes(
    refresher: Refresher, database: Database, clock: Clock
) -> None:
    database.error = KeyError("headrace\npostgres")
    assert ask(refresher)[0].stale_reason() == "airflow: KeyError: 'headrace\\npostgres'"
    database.error = None
    clock.advance(page_snapshot.FAILURE_S)
    assert ask(refresher)[0].stale_reason() is None


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)
