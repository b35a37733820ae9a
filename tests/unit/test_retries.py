"""Retries, with a clock of the test's own."""

import logging
import random

import pytest

from headrace.exceptions import (
    CheckpointMoved,
    DatabaseError,
    DatabaseUnavailable,
    DrainKilled,
    HeadraceError,
    SourceChanged,
    SourceError,
    SourceUnavailable,
)
from headrace.retries import FOLLOW_PAUSE_MAX_S, Retries, follow_pause_s

ERROR = SourceUnavailable("kafka: nobody there")


class FakeClock:
    """Sleeps without waiting."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture(autouse=True)
def _no_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda _low, _high: 1.0)


class FailingWork:
    """Raises the given errors in turn, then returns."""

    def __init__(self, *errors: HeadraceError) -> None:
        self._errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "done"


@pytest.mark.parametrize("kind", [SourceUnavailable, DatabaseUnavailable])
@pytest.mark.parametrize("failures", [0, 1, 3])
def test_work_that_fails_no_more_often_than_allowed_is_done(kind: type[HeadraceError], failures: int) -> None:
    clock, work = FakeClock(), FailingWork(*(kind("x") for _ in range(failures)))
    assert Retries(3, clock).run(work) == "done"
    assert clock.pauses == [1.0, 2.0, 3.0][:failures]


def test_work_that_fails_once_more_raises_its_last_error() -> None:
    clock, last = FakeClock(), SourceUnavailable("the last one")
    with pytest.raises(SourceUnavailable) as caught:
        Retries(2, clock).run(FailingWork(ERROR, ERROR, last))
    assert caught.value is last
    assert clock.pauses == [1.0, 2.0]


def test_no_retries_means_one_try() -> None:
    clock, work = FakeClock(), FailingWork(ERROR)
    with pytest.raises(SourceUnavailable):
        Retries(0, clock).run(work)
    assert (work.calls, clock.pauses) == (1, [])


@pytest.mark.parametrize("kind", [SourceError, SourceChanged, DatabaseError, CheckpointMoved, DrainKilled])
def test_what_this_process_cannot_repair_is_raised_at_once(kind: type[HeadraceError]) -> None:
    clock, work = FakeClock(), FailingWork(kind("x"))
    with pytest.raises(kind):
        Retries(3, clock).run(work)
    assert (work.calls, clock.pauses) == (1, [])


def test_layers_share_one_budget() -> None:
    clock = FakeClock()
    retries = Retries(3, clock)

    def work() -> None:
        while retries.wait_to_retry(ERROR):  # as a commit does
            pass
        raise ERROR

    with pytest.raises(SourceUnavailable):
        retries.run(work)
    assert clock.pauses == [1.0, 2.0, 3.0]


def test_progress_gives_the_whole_budget_back() -> None:
    clock = FakeClock()
    retries = Retries(2, clock)
    assert retries.wait_to_retry(ERROR)
    assert retries.wait_to_retry(ERROR)
    retries.reset()
    assert retries.wait_to_retry(ERROR)
    assert clock.pauses == [1.0, 2.0, 1.0]


def test_pauses_differ_by_a_tenth_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    clock = FakeClock()
    for _ in range(50):
        retries = Retries(2, clock)
        retries.wait_to_retry(ERROR)
        retries.wait_to_retry(ERROR)
    first, second = clock.pauses[::2], clock.pauses[1::2]
    assert all(0.9 <= pause <= 1.1 for pause in first)
    assert all(1.8 <= pause <= 2.2 for pause in second)
    assert len(set(first)) > 10


def test_follower_pauses_double_up_to_their_maximum() -> None:
    pauses = [follow_pause_s(attempts) for attempts in (1, 2, 3, 4, 5, 6, 60)]
    assert pauses == [
        1,
        2,
        4,
        8,
        16,
        *2 * [FOLLOW_PAUSE_MAX_S],
    ]


def test_retry_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headrace"):
        Retries(3, FakeClock()).wait_to_retry(SourceUnavailable("kafka:\nnobody there"))
    assert caplog.messages == ["retry 1 of 3 in 1.0 s: kafka:\\nnobody there"]
