"""The retry policy: which errors are retried, how often, and after which pauses.

Three layers retry. A run retries in its process, HEADRACE_MAX_RETRIES times in a row (`Retries`). If that is not
enough, Airflow starts the task again in a new process (TASK_RETRIES). A follower retries for as long as it runs
(`follow_pause_s`). Which of Postgres's errors are retriable is decided in `postgres.connection.is_retriable`.
"""

import logging
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from headrace.exceptions import DatabaseUnavailable, SourceUnavailable

logger = logging.getLogger(__name__)

BASE_S = 1.0
JITTER = 0.1  # of the pause, either way: two runs in a deadlock do not retry at the same time
FOLLOW_PAUSE_MAX_S = 30.0
FOLLOW_JITTER = 0.2
# Other retriable errors are left to a new process or another run. After an error in a record batch kafka-python's
# poll() may spin. A checkpoint that moved belongs to another run, which continues alone.
RETRIED_ERRORS = (DatabaseUnavailable, SourceUnavailable)

# of a task's default_args; Airflow doubles the delay with each retry
TASK_RETRIES: dict[str, Any] = {
    "retries": 3,
    "retry_delay": timedelta(seconds=10),
    "retry_exponential_backoff": True,
    "max_retry_delay": timedelta(minutes=5),
}
# of the follower's task: it retries by itself, and its DAG starts the next run at once
FOLLOW_TASK_RETRIES: dict[str, Any] = {"retries": 1, "retry_delay": timedelta(seconds=2)}

T = TypeVar("T")


class Retries:
    """A run's budget of retries: `limit` in a row, restored by each commit.

    The run and its commits share one budget, so that their retries do not multiply. tenacity counts per call and has
    no budget that two loops share.
    """

    def __init__(self, limit: int, sleep: Callable[[float], None] | None = None) -> None:
        self._limit = limit
        self._sleep = sleep or pause
        self._failures = 0

    def wait_to_retry(self, error: Exception) -> bool:
        """Whether to retry after this error; if so, first pause 1 s, 2 s, 3 s ..., each +- JITTER."""
        if self._failures >= self._limit:
            return False
        self._failures += 1
        pause_s = BASE_S * self._failures * random.uniform(1 - JITTER, 1 + JITTER)
        text = " ".join(str(error).split())
        logger.info("retry %d of %d in %.1f s: %s", self._failures, self._limit, pause_s, text)
        self._sleep(pause_s)
        return True

    def reset(self) -> None:
        """Restore the whole budget after progress."""
        self._failures = 0

    def run(self, work: Callable[[], T]) -> T:
        """Run idempotent work with retries; raise its last error, or at once one that is not in RETRIED_ERRORS."""
        while True:
            try:
                return work()
            except RETRIED_ERRORS as error:
                if not self.wait_to_retry(error):
                    raise


def follow_pause_s(attempts: int) -> float:
    """Seconds before the follower's next attempt, by failed attempts: 1, 2, 4 ... 30, each +- FOLLOW_JITTER."""
    return min(2.0 ** (attempts - 1), FOLLOW_PAUSE_MAX_S) * random.uniform(1 - FOLLOW_JITTER, 1 + FOLLOW_JITTER)


def pause(seconds: float) -> None:
    """Wait; tests replace this."""
    time.sleep(seconds)
