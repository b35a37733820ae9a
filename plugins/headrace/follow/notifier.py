"""Which datasets have something to read: a thread per kind of source waits for all datasets of that kind at once."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError
from headrace.ingest.drain import DrainResult
from headrace.ingest.plan import Plan
from headrace.retries import follow_pause_s
from headrace.sources.waiters import open_waiter, waiter_kind
from headrace.sources.waiting import Armed, Awaited, Waiter

logger = logging.getLogger(__name__)

WAIT_S = 1.0  # a waiter waits for this long at a time; its thread ends within it


class Notifier:
    """Tells the follower's thread which datasets to drain. Its methods are for that thread alone."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._notified: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._at: dict[str, float] = {}  # when datasets are notified that rest
        self._kinds: dict[str, str] = {}
        self._waiting: dict[str, _WaitingThread] = {}

    @property
    def datasets(self) -> set[str]:
        """The datasets that are followed."""
        return set(self._kinds)

    def add(self, dataset: Dataset) -> None:
        """Follow a dataset; it is not notified until it is asked for."""
        self._kinds[dataset.name] = waiter_kind(dataset.source)

    def remove(self, name: str) -> None:
        """Follow a dataset no longer."""
        kind = self._kinds.pop(name, None)
        self._at.pop(name, None)
        if kind in self._waiting:
            self._waiting[kind].armed.remove(name)

    def notify(self, name: str) -> None:
        """Notify now."""
        self._notified.put(name)

    def notify_in(self, name: str, seconds: float) -> None:
        """Notify after a pause, without asking the source."""
        kind = self._kinds[name]
        if kind in self._waiting:
            self._waiting[kind].armed.remove(name)
        self._at[name] = time.monotonic() + seconds

    def notify_after(self, dataset: Dataset, planned: Plan, result: DrainResult) -> None:
        """Notify when a record at or after the drained offsets can be read."""
        if any(result.next_offsets.get(p) != bounds.end for p, bounds in planned.ranges.items()):
            self.notify(dataset.name)  # the drain ran out of time: more can be read
        else:
            self.notify_behind(dataset, planned)

    def notify_behind(self, dataset: Dataset, planned: Plan) -> None:
        """Notify when a record behind a plan can be read."""
        kind = self._kinds[dataset.name]
        if kind not in self._waiting:
            self._waiting[kind] = _WaitingThread(kind, lambda: open_waiter(kind, self._deployment), self.notify)
        self._at.pop(dataset.name, None)
        self._waiting[kind].armed.put(dataset.name, Awaited(dataset.source.name, planned.behind, planned.origins))

    def due(self, until: float) -> set[str]:
        """The notified datasets, once each; waits for the first until that time, in time.monotonic()."""
        names: set[str] = set()
        wake_at = min([until, time.monotonic() + WAIT_S, *self._at.values()])
        with suppress(queue.Empty):
            names.add(self._notified.get(timeout=max(wake_at - time.monotonic(), 0.0)))
            while True:
                names.add(self._notified.get_nowait())
        now = time.monotonic()
        rested = {name for name, at in self._at.items() if at <= now}
        for name in rested:
            del self._at[name]
        return (names | rested) & self._kinds.keys()

    def end(self) -> None:
        """Stop waiting; the threads end by themselves within a second."""
        for waiting in self._waiting.values():
            waiting.end()


class _WaitingThread:
    """Waits with one client for all datasets of one kind of source, and notifies of each once."""

    def __init__(self, kind: str, open_client: Callable[[], Waiter], notify: Callable[[str], None]) -> None:
        self.armed = Armed()
        self._open, self._notify = open_client, notify
        self._ended = threading.Event()
        threading.Thread(target=self._wait, name=f"follow {kind}", daemon=True).start()

    def end(self) -> None:
        self._ended.set()
        self.armed.wake()

    def _wait(self) -> None:
        waiter: Waiter | None = None
        failures = 0
        while not self._ended.is_set():
            awaited = self.armed.current(self._ended.is_set)
            found: Iterable[str] = ()
            try:
                waiter = waiter or self._open()
                found, failures = waiter.wait_for(awaited, WAIT_S), 0
            except Exception as error:  # the drains meet the same error and report it
                logger.info("waiting for %s datasets: %s", len(awaited), error)
                found, failures = awaited, failures + 1
                _close(waiter)
                waiter = None
            for name in found:
                if self.armed.remove(name, awaited[name]):
                    self._notify(name)
            if failures:
                self._ended.wait(follow_pause_s(failures))
        _close(waiter)


def _close(waiter: Waiter | None) -> None:
    if waiter is not None:
        with suppress(HeadraceError):
            waiter.close()
