"""The headrace command in a session of its own, and what is left of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.support.ledger_checks import environment
from tests.support.stage import Stage

HEADRACE = Path(sys.executable).with_name("headrace")


def _heed_interrupts() -> None:
    # a shell starts what it puts in the background with SIGINT ignored, and processes inherit that
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def headrace(stage: Stage, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A running `headrace` command, in a session of its own, which is gone at the end."""
    process = subprocess.Popen(
        [HEADRACE, *arguments],
        env=environment(stage.deployment.settings),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers too: they hold the pipes
        process.communicate()


def assert_session_ended(session: int) -> None:
    """Assert that no process of a session runs any more, or will in a moment."""
    for _ in range(100):
        left = [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if session_of(path) == session]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"still running: {left}")


def session_of(stat: Path) -> int | None:
    try:
        state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)


def wait_for_batches(stage: Stage, count: int) -> None:
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        for _ in range(3_000):
            if connection.execute("select count(*) from headrace.batches").fetchall()[0][0] >= count:
                return
            time.sleep(0.005)
    raise AssertionError(f"no {count} batches in time")
