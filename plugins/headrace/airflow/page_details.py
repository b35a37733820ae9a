"""What only some requests need, read when they ask: longer ranges of time, a dataset's page, a dead letter.

As for the figures (page_snapshot.py), no request occupies one of Airflow's threads: one thread of the page reads, one
thing after the other, and requests wait without a thread.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from headrace.airflow.page_snapshot import FAILURE_S, FIRST_WAIT_S, POLL_S, WAIT_S, error_text

KEPT = 64  # the most results that are kept
QUEUE = 16  # the most that wait to be read
REST = 4  # the shortest interval between two reads of the same, in times of how long a read takes

# held while the page uses the database: its threads have one connection at a time between them
one_connection = threading.Lock()


@dataclass(slots=True)
class Detail:
    """A result; times are time.monotonic()'s. error: why the last read failed; value is then that of an earlier one."""

    value: Any = None
    error: str | None = None
    next_at: float = 0.0  # the earliest time of the next read
    running: "Future[None] | None" = None

    @property
    def is_running(self) -> bool:
        """Whether it is being read, or waits for that."""
        return self.running is not None and not self.running.done()


class DetailReader:
    """Reads details in a thread of its own. Its methods are called by the event loop's thread alone."""

    def __init__(self) -> None:
        self._details: dict[Hashable, Detail] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headrace page details")

    async def get(self, key: Hashable, read: Callable[[], Any], max_age_s: float) -> Detail:
        """The result of `read`, at most `max_age_s` old if it can be read within a short time.

        Else an older one, or, without any, a detail without value and error. `read` runs once for equal keys, and not
        at all while QUEUE others wait.
        """
        detail = self._details.pop(key, None) or Detail()
        self._details[key] = detail  # the last one that was asked for
        if len(self._details) > KEPT:
            del self._details[next(name for name, each in self._details.items() if not each.is_running)]
        if time.monotonic() < detail.next_at and not detail.is_running:
            return detail
        if not detail.is_running:
            if sum(each.is_running for each in self._details.values()) >= QUEUE:
                return detail
            detail.running = self._thread.submit(_read, detail, read, max_age_s)
        deadline = time.monotonic() + (WAIT_S if detail.value is not None else FIRST_WAIT_S)
        while detail.is_running and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
        return detail

    def forget(self, kind: str) -> None:
        """Drop the results whose key begins with `kind`: bytes of any size must not stay in memory."""
        for key in [key for key in self._details if isinstance(key, tuple) and key[0] == kind]:
            if not self._details[key].is_running:
                del self._details[key]


def _read(detail: Detail, read: Callable[[], Any], max_age_s: float) -> None:
    began = time.monotonic()
    try:
        detail.value, detail.error = read(), None
    except Exception as found:  # from a declaration, a secrets backend or Postgres: the thread must continue
        detail.error = error_text(found)
    now = time.monotonic()
    detail.next_at = now + max(FAILURE_S if detail.error else max_age_s, REST * (now - began))
