"""Types of the callbacks that report progress."""

from collections.abc import Callable

PrintLine = Callable[[str], None]
ProgressCallback = Callable[[int, int], None]  # done, total: offsets, or records without known offsets
