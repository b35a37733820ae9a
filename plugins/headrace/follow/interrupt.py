"""Interrupts a running dbt build when following stops."""

import _thread
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BUILD_GRACE_S = 2.0  # a build may continue this long after the stop


@contextmanager
def interrupt_build_on(stop: threading.Event) -> Iterator[None]:
    """Interrupt the block BUILD_GRACE_S after `stop` is set; the claims of its build roll back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            if stop.is_set() and not ended.wait(BUILD_GRACE_S):
                _thread.interrupt_main()
                return

    def interrupt(*_: object) -> None:
        if not ended.is_set():  # if not, the build has already ended
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    watcher = threading.Thread(target=watch, name="follow: stop", daemon=True)
    watcher.start()
    try:
        yield
        ended.set()
    except KeyboardInterrupt:
        stop.set()
    finally:
        ended.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
