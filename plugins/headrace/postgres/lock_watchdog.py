"""Ends a frozen drain whose lock blocks its replacement; no other session is ended.

Neither statement_timeout nor transaction_timeout fires while a backend waits for COPY data, so a loader that was
stopped in the middle (SIGSTOP, a paused virtual machine) keeps its row lock until its backend is ended.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import Connection

from headrace.postgres.connection import Connect

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LockTimeouts:
    """How long transactions wait for locks.

    lock_timeout_ms: the longest wait for any other transaction. Defaults to 5000.
    stuck_s: a blocking drain of the same dataset is ended after it waited this long for its client only, without
    progress. Defaults to 10.
    """

    lock_timeout_ms: int = 5_000
    stuck_s: float = 10.0

    @property
    def server_lock_timeout_ms(self) -> int:
        """Long enough to find and end a stuck drain within one wait."""
        return self.lock_timeout_ms + int(self.stuck_s * 1000) + 5_000


# The signs of progress of a blocker: its statement, its state, the number of copied rows. A slow loader changes the
# last every 128 KiB that psycopg sends.
_BLOCKERS = """
select
    a.pid,
    a.backend_start,
    a.state,
    a.state_change,
    a.query_start,
    a.wait_event,
    c.bytes_processed,
    c.tuples_processed
from unnest(pg_blocking_pids(%(pid)s)) as blocking (pid)
inner join pg_stat_activity as a on blocking.pid = a.pid
left join pg_stat_progress_copy as c on a.pid = c.pid
where
    a.application_name = %(application_name)s
    and a.wait_event_type = 'Client'
    and a.state in ('active', 'idle in transaction')
"""


@contextmanager
def watch_locks(
    connection: Connection[Any], connect: Connect, dataset: str, limits: LockTimeouts, application_name: str
) -> Iterator[None]:
    """Name a transaction, limit its waits for locks, and end a stuck drain of the dataset that blocks it.

    Call it first inside the transaction. A drain that is only slow is never ended.
    """
    row = connection.execute(
        "select pg_backend_pid(), set_config('application_name', %s, true), set_config('lock_timeout', %s, true)",
        (application_name, f"{limits.server_lock_timeout_ms}ms"),
    ).fetchone()
    assert row is not None
    done = threading.Event()
    watch = threading.Thread(
        target=_watch, args=(done, connect, row[0], drain_name(dataset), limits), name="headrace-fence", daemon=True
    )
    watch.start()
    try:
        yield
    finally:
        done.set()


def drain_name(dataset: str) -> str:
    """The application_name of a dataset's drain; only sessions of this name may be ended."""
    return f"headrace drain {dataset}"


def _watch(done: threading.Event, connect: Connect, pid: int, application_name: str, limits: LockTimeouts) -> None:
    if done.wait(limits.lock_timeout_ms / 1000):
        return  # the usual case: no wait, no second connection
    try:
        with connect() as observer:
            observer.autocommit = True
            _end_stuck_blockers(done, observer, pid, application_name, limits)
    except psycopg.Error as error:
        logger.warning("lock_watchdog: cannot look for a stuck drain: %s", error)


def _end_stuck_blockers(
    done: threading.Event, observer: Connection[Any], pid: int, application_name: str, limits: LockTimeouts
) -> None:
    interval_s = min(0.5, limits.stuck_s / 4)
    parameters = {"pid": pid, "application_name": application_name}
    unchanged: dict[tuple[Any, ...], float] = {}
    while not done.wait(interval_s):
        seen = {tuple(row) for row in observer.execute(_BLOCKERS, parameters).fetchall()}
        unchanged = {blocker: unchanged.get(blocker, 0.0) + interval_s for blocker in seen}
        for blocker, waited_s in unchanged.items():
            if waited_s > limits.stuck_s:
                # only in the state that was seen: the pid may belong to another backend by now, or serve another client
                # of pgbouncer
                backend, started, _, changed, *_ = blocker
                observer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where pid = %s and backend_start = %s and state_change = %s",
                    (backend, started, changed),
                )
                logger.warning(
                    "lock_watchdog: ended backend %s (%s): it waited for its client for %.0f s and held a lock that "
                    "this run needs; its uncommitted work is rolled back",
                    backend,
                    application_name,
                    waited_s,
                )
