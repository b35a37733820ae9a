"""Trying again what a service failed at, a bounded number of times."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from headrace.exceptions import DatabaseUnavailable, SourceUnavailable

logger = logging.getLogger(__name__)

BASE_S = 1.0
JITTER = 0.1  # of the pause, either way: rivals in a deadlock do not meet again
# Not the other retriable errors: after one that kafka-python found in a record batch its poll() may spin, so a new
# process has to try; a checkpoint that moved is another run's, which should go on alone.
RETRIED_ERRORS = (DatabaseUnavailable, SourceUnavailable)

T = TypeVar("T")


class Retries:
    """How often the same work may still be tried again: `limit` times in a row.

    One budget for all layers of a run, so that their retries do not multiply.
    """

    def __init__(self, limit: int, sleep: Callable[[float], None] | None = None) -> None:
        self._limit = limit
        self._sleep = sleep or pause
        self._failures = 0

    def wait_to_retry(self, error: Exception) -> bool:
        """Whether to try again after this error; if so, waits before: 1 s, 2 s, 3 s ..., each give or take a tenth."""
        if self._failures >= self._limit:
            return False
        self._failures += 1
        pause_s = BASE_S * self._failures * random.uniform(1 - JITTER, 1 + JITTER)
        text = " ".join(str(error).split())
        logger.info("retry %d of %d in %.1f s: %s", self._failures, self._limit, pause_s, text)
        self._sleep(pause_s)
        return True

    def reset(self) -> None:
        """Progress was made: what fails from here on is another failure."""
        self._failures = 0

    def run(self, work: Callable[[], T]) -> T:
        """Do work that may be done again; raises what its last try raised, and at once what does not pass."""
        while True:
            try:
                return work()
            except RETRIED_ERRORS as error:
                if not self.wait_to_retry(error):
                    raise


def pause(seconds: float) -> None:
    """Wait; tests put something else in its place."""
    time.sleep(seconds)
