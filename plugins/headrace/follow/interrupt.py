"""Interrupts a running dbt build when following stops."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.callbacks import PrintLine

BUILD_GRACE_S = 2.0  # a build may continue this long after the stop
REPEAT_S = 10.0  # a destructor or a bare `except` may swallow the interrupt; dbt cancels its queries in less time


@contextmanager
def interrupt_build_on(stop: threading.Event, print_line: PrintLine) -> Iterator[None]:
    """Interrupt the block BUILD_GRACE_S after `stop` is set; the claims of its build roll back."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            if ended.wait(0.2):
                return
        seconds = BUILD_GRACE_S
        while main.ident is not None and not ended.wait(seconds):
            # a real signal: dbt waits for its threads in a lock, which _thread.interrupt_main does not end
            signal.pthread_kill(main.ident, signal.SIGINT)
            seconds = REPEAT_S

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
        print_line("build: interrupted, because following stops; its claims were rolled back; the next build continues")
    finally:
        ended.set()
        watcher.join()
        signal.signal(signal.SIGINT, before)
