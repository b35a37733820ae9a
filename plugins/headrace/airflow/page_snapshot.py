"""The page's figures, read by a single thread of its own, never by Airflow's threads.

Airflow's API server has 40 threads for all of its routes. Routes that wait for a database or a lock in one of them
stop the whole server once 40 wait. So the routes serve the last figures from memory and at most wait briefly without
a thread; one thread reads, for any number of requests and however long that takes.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from headrace.durations import duration
from headrace.exceptions import HeadraceError
from headrace.masking import mask
from headrace.monitor.problems import Overview

CACHE_S = 2.0  # the shortest interval between reads, for any number of requests
FAILURE_S = 5.0  # the same after a failed read
CPU_SHARE = 9  # tenths of the time kept free for the API server: thousands of datasets take seconds to read
WAIT_S = 1.0  # how long a request waits for newer figures
FIRST_WAIT_S = 4.0  # how long it waits for the first ones
SLOW_S = 15.0  # the page reports a refresh that takes longer
POLL_S = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FigureSnapshot:
    """The last figures; times are time.monotonic()'s.

    error: why the last read failed; the figures are then those of the last successful one, if any.
    began_at: when the running read began; None if none is running.
    """

    overview: Overview | None = None
    read_at: float | None = None
    error: str | None = None
    began_at: float | None = None
    next_at: float = 0.0  # the earliest time of the next read

    def age_s(self) -> float | None:
        """The age of the figures."""
        return None if self.read_at is None else time.monotonic() - self.read_at

    def stale_reason(self) -> str | None:
        """Why the figures are stale or missing; None if they are current."""
        waited_s = 0.0 if self.began_at is None else time.monotonic() - self.began_at
        if self.error is None and waited_s < SLOW_S:
            return None
        said = self.error or f"postgres: found no answer for {duration(waited_s)}, expected one"
        age_s = self.age_s()
        if self.overview is None or age_s is None:
            return said
        age = "less than a minute" if age_s < 60 else duration(age_s)
        return f"These figures are of {self.overview.status.at:%H:%M:%S} UTC, {age} old: {said}"


class Refresher:
    """Reads in its own thread, on request, if the last snapshot is too old."""

    def __init__(self, read: Callable[[], Overview]) -> None:
        self._read = read
        self._snapshot = FigureSnapshot()  # replaced as a whole: reading it needs no lock
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None

    async def current(self, max_age_s: float = 0.0) -> FigureSnapshot:
        """The newest snapshot, after a short wait for a newer one; without a wait if it is at most max_age_s old.

        Occupies no thread. A first request waits for FIRST_WAIT_S, then gets a snapshot without figures.
        """
        asked_at = time.monotonic()
        snapshot = self._snapshot
        age_s = snapshot.age_s()
        if age_s is not None and age_s < max_age_s:
            return snapshot
        if asked_at < snapshot.next_at and snapshot.began_at is None:
            return snapshot
        self._ask()
        wait_s = FIRST_WAIT_S if snapshot.overview is None and snapshot.error is None else WAIT_S
        deadline = (snapshot.began_at or asked_at) + wait_s  # a slow read is waited for only once
        while self._snapshot.next_at <= asked_at and time.monotonic() < deadline:  # no read has ended since
            await asyncio.sleep(POLL_S)
        return self._snapshot

    def _ask(self) -> None:
        """Start the thread if it is not running in this process: threads do not survive a fork."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._refresh, name="headrace page", daemon=True)
            self._thread.start()
        self._asked.set()

    def _refresh(self) -> None:
        while True:
            self._asked.wait()
            if time.monotonic() < self._snapshot.next_at:  # asked for while the last read ended
                self._asked.clear()
                continue
            began, cpu_began = time.monotonic(), time.thread_time()
            self._snapshot = replace(self._snapshot, began_at=began)
            try:
                overview, error = self._read(), None
            except Exception as found:  # from a secrets backend or a declaration: the thread must continue
                overview, error = None, error_text(found)
            now = time.monotonic()
            rest_s = max(FAILURE_S if error else CACHE_S, now - began, CPU_SHARE * (time.thread_time() - cpu_began))
            known = self._snapshot
            self._asked.clear()
            self._snapshot = FigureSnapshot(
                overview=known.overview if overview is None else overview,
                read_at=known.read_at if overview is None else now,
                error=error,
                next_at=now + rest_s,
            )


def error_text(error: Exception) -> str:
    """An error in one line, without secrets; logged with its traceback if it is not one of Headrace's."""
    if isinstance(error, HeadraceError):
        return str(error)
    logger.exception("headrace page: the figures could not be read")
    return mask(" ".join(f"airflow: {type(error).__name__}: {error}".split()))
