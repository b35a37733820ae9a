"""Types of the functions that callers hand in: to hear how far a run is, and to stop it at a step."""

from collections.abc import Callable

PrintLine = Callable[[str], None]
ProgressCallback = Callable[[int, int], None]  # done, in all: offsets, or records where no offsets are known
Barrier = Callable[[str], None]  # called at named steps, for tests


def no_barrier(_step: str) -> None:
    """Do nothing; only tests stop a run at named steps."""
