"""Errors of a follower's datasets, and the pauses before they are retried."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.callbacks import PrintLine
from headrace.exceptions import HeadraceError, PermanentError
from headrace.retries import follow_pause_s

logger = logging.getLogger(__name__)


class Backoff:
    """The last error of a dataset, or of building: printed once, retried after growing pauses (`follow_pause_s`)."""

    def __init__(self, name: str, print_line: PrintLine) -> None:
        self._name, self._print_line = name, print_line
        self.error: HeadraceError | None = None
        self._attempts = 0
        self._again_at = 0.0
        self._was_printed = False

    @property
    def seconds_left(self) -> float:
        """Seconds until the next attempt."""
        return max(self._again_at - time.monotonic(), 0.0)

    @property
    def is_waiting(self) -> bool:
        """Whether the next attempt is not yet due."""
        return self.error is not None and self.seconds_left > 0

    @contextmanager
    def catch_errors(self) -> Iterator[None]:
        """Catch an error of the block; a block without an error ends the backoff."""
        try:
            yield
        except HeadraceError as error:
            self.failed(error)
        except Exception as error:  # from a declaration's code, or a defect: the other datasets continue
            self.failed(unexpected_error(self._name, error))
        else:
            self.succeeded()

    def print_once(self, error: HeadraceError, *, is_told: bool = False) -> None:
        """Print the error, unless the last one had the same text; is_told: another subject has printed it."""
        if self.error is None or str(error) != str(self.error):
            if not is_told:
                self._print_line(f"{error}")
            self._was_printed = not is_told
        self.error = error

    def failed(self, error: HeadraceError, *, is_told: bool = False) -> None:
        """Print the error, and pause before the next attempt."""
        self.print_once(error, is_told=is_told)
        self._attempts += 1
        self._again_at = time.monotonic() + follow_pause_s(self._attempts)

    def succeeded(self) -> None:
        """Clear the error and, if it was printed, print that the subject continues."""
        if self.error is not None and self._was_printed:
            self._print_line(f"{self._name}: continues")
        self.error, self._attempts = None, 0


def unexpected_error(name: str, error: Exception) -> HeadraceError:
    """Log the traceback of an error that is no HeadraceError, and return a HeadraceError for it."""
    logger.warning("%s: unexpected error", name, exc_info=error)
    return PermanentError(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}")
