"""The figures that the page serves: read by one thread of its own, never by one of Airflow's.

Airflow's API server has 40 threads for all of its routes. A route that waits for a database in one of them, or for a
lock that another one holds, stops the whole server once 40 do. So the routes take what was last read, from memory, and
at most wait for a moment without a thread; a single thread reads, however many ask and however long that takes.
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

CACHE_S = 2.0  # however many look, the database is asked this often at most
FAILURE_S = 5.0  # and one that failed
CPU_SHARE = 9  # of the time so many tenths are the API server's own: thousands of datasets take seconds to read
WAIT_S = 1.0  # how long a request waits for newer figures than there are
FIRST_WAIT_S = 4.0  # and for the first ones
SLOW_S = 15.0  # a refresh that takes so long is said on the page
POLL_S = 0.05

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was last read; times are time.monotonic()'s.

    error: why the last attempt failed; the figures, if there are any, are those of the last one that did not.
    began_at: since when the next attempt has been running; None: none is.
    """

    overview: Overview | None = None
    read_at: float | None = None
    error: str | None = None
    began_at: float | None = None
    next_at: float = 0.0  # the next attempt's earliest time

    def age_s(self) -> float | None:
        """How old the figures are."""
        return None if self.read_at is None else time.monotonic() - self.read_at

    def trouble(self) -> str | None:
        """Why the figures are older than they should be, or missing; None where nothing is wrong."""
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
    """Reads in a thread of its own, on request, when the last snapshot is too old."""

    def __init__(self, read: Callable[[], Overview]) -> None:
        self._read = read
        self._snapshot = Snapshot()  # replaced as a whole: reading it needs no lock
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None

    async def current(self) -> Snapshot:
        """What is known: newer figures if they come at once, those of the last time otherwise.

        Holds no thread. A first request waits for FIRST_WAIT_S, then gets a snapshot without figures.
        """
        asked_at = time.monotonic()
        snapshot = self._snapshot
        if asked_at < snapshot.next_at and snapshot.began_at is None:
            return snapshot
        self._ask()
        wait_s = FIRST_WAIT_S if snapshot.overview is None and snapshot.error is None else WAIT_S
        deadline = (snapshot.began_at or asked_at) + wait_s  # one that is slow has been waited for already
        while self._snapshot.next_at <= asked_at and time.monotonic() < deadline:  # no attempt has ended since
            await asyncio.sleep(POLL_S)
        return self._snapshot

    def _ask(self) -> None:
        """Start the thread, in this process: a fork does not take it along."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._refresh, name="headrace page", daemon=True)
            self._thread.start()
        self._asked.set()

    def _refresh(self) -> None:
        while True:
            self._asked.wait()
            began, cpu_began = time.monotonic(), time.thread_time()
            self._snapshot = replace(self._snapshot, began_at=began)
            try:
                overview, error = self._read(), None
            except Exception as found:  # of Airflow's secrets backends, of a declaration: the thread must go on
                overview, error = None, _say(found)
            now = time.monotonic()
            rest_s = max(FAILURE_S if error else CACHE_S, now - began, CPU_SHARE * (time.thread_time() - cpu_began))
            known = self._snapshot
            self._asked.clear()
            self._snapshot = Snapshot(
                overview=known.overview if overview is None else overview,
                read_at=known.read_at if overview is None else now,
                error=error,
                next_at=now + rest_s,
            )


def _say(error: Exception) -> str:
    if isinstance(error, HeadraceError):
        return str(error)
    logger.exception("headrace page: the figures could not be read")
    return mask(" ".join(f"airflow: {type(error).__name__}: {error}".split()))
