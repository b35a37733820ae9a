"""A stop interrupts a build wherever its thread waits, and again if the interrupt is swallowed."""

import threading
import time
from contextlib import suppress

import pytest

from headrace.follow import interrupt
from headrace.follow.interrupt import interrupt_build_on

FAR_S = 20.0  # a build that is not interrupted takes so long


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "BUILD_GRACE_S", 0.05)
    monkeypatch.setattr(interrupt, "REPEAT_S", 0.05)


@pytest.fixture
def stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


def test_stop_interrupts_a_wait_for_a_lock_and_says_so(stopped: threading.Event) -> None:
    lock = threading.Lock()
    assert lock.acquire()
    release = threading.Timer(FAR_S, lock.release)  # as dbt's threads do when their statements are done
    release.daemon = True
    release.start()
    lines: list[str] = []
    with interrupt_build_on(stopped, lines.append):
        lock.acquire()
    assert release.is_alive(), "the lock was waited for"
    release.cancel()
    assert [line.partition(",")[0] for line in lines] == ["build: interrupted"]


def test_interrupt_that_is_swallowed_is_repeated(stopped: threading.Event) -> None:
    lines: list[str] = []
    waits: list[str] = []
    with interrupt_build_on(stopped, lines.append):
        for wait in ("first", "second"):
            with suppress(KeyboardInterrupt):
                time.sleep(FAR_S)
                waits.append(wait)
        time.sleep(FAR_S)
    assert not waits, "these were not interrupted"
    assert lines


def test_build_that_ends_in_time_is_not_interrupted(stopped: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "BUILD_GRACE_S", FAR_S)
    lines: list[str] = []
    began = time.monotonic()
    with interrupt_build_on(stopped, lines.append):
        pass
    assert time.monotonic() - began < FAR_S, "the grace was waited for"
    assert not lines
