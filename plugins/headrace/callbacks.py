"""Types of the functions that callers hand in to hear how far a run is."""

from collections.abc import Callable

PrintLine = Callable[[str], None]
ProgressCallback = Callable[[int, int], None]  # done, in all: offsets, or records where no offsets are known
