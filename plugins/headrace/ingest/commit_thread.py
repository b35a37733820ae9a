"""A thread that runs one call at a time while its caller continues: a batch commits while the next one is read.

A commit spends nearly all of its time waiting for Postgres. A queue of several commits would only take more memory.
"""

import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")

# How long the reading thread keeps the interpreter after Postgres has answered the commit thread. With Python's 5 ms
# and some twenty answers per batch, waiting took a seventh of a drain's time.
SWITCH_INTERVAL_S = 0.000_5


class CommitThread(Generic[T]):
    """Runs calls one after the other; as a context manager, waits at the end for the last call.

    If the block raises, that error is raised and not the last call's. `settled` is called only for calls that succeed.
    """

    def __init__(self, settled: Callable[[T], None]) -> None:
        """settled: called with a call's result, in the caller's thread."""
        self._settled = settled
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="headrace commit")
        self._running: Future[T] | None = None

    def __enter__(self) -> Self:
        self._interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        try:
            self._settle(hides_errors=kind is not None)
        finally:
            sys.setswitchinterval(self._interval)
            self._pool.shutdown()

    def wait(self) -> None:
        """Wait for the previous call; raise its error."""
        self._settle()

    def run(self, call: Callable[[], T]) -> None:
        """Start a call after the previous one has ended; raise the previous one's error."""
        self._settle()
        self._running = self._pool.submit(call)

    def _settle(self, *, hides_errors: bool = False) -> None:
        running, self._running = self._running, None
        if running is None or (hides_errors and running.exception() is not None):
            return
        self._settled(running.result())
