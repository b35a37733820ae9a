"""A thread per dataset that waits at its source until something can be read."""

import queue
import threading
from collections.abc import Mapping

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.ingest.drain import DrainResult
from headrace.ingest.opening import open_source
from headrace.ingest.plan import Plan
from headrace.origin import Origin
from headrace.sources.base import Source, SourcePosition, assign

WAIT_S = 1.0  # a source waits for this long at a time; the thread ends within it


class Notifier:
    """Waits at a dataset's source and puts the dataset's name into a queue when a record can be read."""

    def __init__(self, deployment: Deployment, dataset: Dataset, notified: "queue.SimpleQueue[str]") -> None:
        self._deployment, self._dataset, self._notified = deployment, dataset, notified
        self._armed = threading.Event()
        self._ended = threading.Event()
        self._behind: Mapping[int, SourcePosition] = {}
        self._origins: Mapping[int, Origin] = {}
        self._pause = 0.0
        self._thread = threading.Thread(target=self._wait, name=f"follow {dataset.name}", daemon=True)
        self._thread.start()

    def notify_after(self, planned: Plan, result: DrainResult) -> None:
        """Notify when a record at or after the drained offsets can be read."""
        if any(result.next_offsets.get(p) != bounds.end for p, bounds in planned.ranges.items()):
            self._notified.put(self._dataset.name)  # the drain ran out of time: more can be read
            return
        self._origins, self._behind, self._pause = planned.origins, planned.behind, 0.0
        self._armed.set()

    def notify_in(self, seconds: float) -> None:
        """Notify after a pause, without asking the source."""
        self._behind, self._pause = {}, seconds
        self._armed.set()

    def end(self) -> None:
        """Stop waiting; the thread ends by itself within a second."""
        self._ended.set()
        self._armed.set()

    def _wait(self) -> None:
        source: Source | None = None
        while not self._ended.is_set():
            self._armed.wait()
            self._armed.clear()
            if self._ended.wait(self._pause):
                break
            try:
                source = source or open_source(self._deployment, self._dataset)
                assign(source, self._origins)
                while self._behind and not self._ended.is_set() and not source.wait(self._behind, WAIT_S):
                    if self._armed.is_set():
                        break
            except Exception:  # the drain meets the same error and reports it
                source = None
                if self._ended.wait(WAIT_S):
                    break
            if not self._ended.is_set():
                self._notified.put(self._dataset.name)
        if source is not None:
            source.close()
