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


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (
        ("CACHE_S", 0.1),
        ("FAILURE_S", 0.3),
        ("WAIT_S", 0.2),
        ("FIRST_WAIT_S", 0.3),
        ("SLOW_S", 0.8),
    ):
        monkeypatch.setattr(page_snapshot, name, seconds)


def figures() -> Overview:
    return find_problems_by(status(dataset("jobs")), {})


class Database:
    """Reads figures at once, raises an error, or is frozen."""

    def __init__(self) -> None:
        self.reads = 0
        self.error: Exception | None = None
        self.answers = threading.Event()
        self.answers.set()

    def read(self) -> Overview:
        self.reads += 1
        self.answers.wait(10)
        if self.error is not None:
            raise self.error
        return figures()


@pytest.fixture
def database() -> Iterator[Database]:
    made = Database()
    yield made
    made.answers.set()


def ask(refresher: Refresher, times: int = 1) -> list[FigureSnapshot]:
    async def all_at_once() -> list[FigureSnapshot]:
        return await asyncio.gather(*(refresher.current() for _ in range(times)))

    return asyncio.run(all_at_once())


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_figures_are_read_once_for_all_who_ask(database: Database) -> None:
    refresher = Refresher(database.read)
    found = ask(refresher, 45)
    assert {each.stale_reason() for each in found} == {None}
    assert all(each.overview is found[0].overview for each in found)
    assert database.reads == 1


def test_figures_are_read_again_only_when_somebody_asks(database: Database) -> None:
    refresher = Refresher(database.read)
    ask(refresher)
    time.sleep(0.3)
    assert database.reads == 1
    ask(refresher)
    assert database.reads == 2


def test_frozen_database_holds_up_one_thread_and_nobody_who_asks(database: Database) -> None:
    refresher = Refresher(database.read)
    database.answers.clear()
    before = threading.active_count()
    assert seconds(lambda: ask(refresher, 45)) < 2  # 0.3 s each
    assert threading.active_count() == before + 1
    (snapshot,) = ask(refresher)
    assert snapshot.overview is None
    database.answers.set()
    time.sleep(0.1)
    assert ask(refresher)[0].overview is not None
    assert database.reads <= 2


def test_last_figures_are_served_with_their_age_while_the_next_are_not_answered(database: Database) -> None:
    refresher = Refresher(database.read)
    ask(refresher)
    time.sleep(0.15)
    database.answers.clear()
    assert ask(refresher, 45)[0].stale_reason() is None  # it may yet be answered
    time.sleep(0.8)
    (found,) = ask(refresher)
    assert found.overview is not None
    assert (found.stale_reason() or "").startswith(
        "These figures are of 12:00:00 UTC, less than a minute old: postgres: found no answer for "
    )
    assert seconds(lambda: ask(refresher, 45)) < 0.15
    assert database.reads == 2


def test_failure_is_kept_and_said_as_figures_are(database: Database) -> None:
    refresher = Refresher(database.read)
    database.error = DatabaseUnavailable("postgres: gone")
    for _ in range(3):
        (found,) = ask(refresher)
        assert (found.overview, found.stale_reason()) == (None, "postgres: gone")
    assert database.reads == 1
    database.error = None
    time.sleep(0.35)
    assert ask(refresher)[0].stale_reason() is None
    database.error = DatabaseUnavailable("postgres: gone again")
    time.sleep(0.15)
    (found,) = ask(refresher)
    assert found.overview is not None
    assert found.stale_reason() == "These figures are of 12:00:00 UTC, less than a minute old: postgres: gone again"


def test_error_that_nobody_expected_is_one_line_and_the_next_read_comes(database: Database) -> None:
    refresher = Refresher(database.read)
    database.error = KeyError("headrace\npostgres")
    assert ask(refresher)[0].stale_reason() == "airflow: KeyError: 'headrace\\npostgres'"
    database.error = None
    time.sleep(0.35)
    assert ask(refresher)[0].stale_reason() is None
