"""The thresholds of declarations, imported again only when a file changes: the page refreshes every few seconds."""

import time
from collections.abc import Mapping
from pathlib import Path

from headrace.catalog import InvalidDeclaration, load_declarations
from headrace.monitor.problems import AlertThresholds

FAULTY_S = 30.0  # a fault may end without a change of its file, which may import others


class DeclarationCache:
    """The thresholds of the last read; used by one thread."""

    def __init__(self) -> None:
        self._files: object = None
        self._read_at = float("-inf")
        self._limits: Mapping[str, AlertThresholds] = {}
        self._faults: Mapping[str, InvalidDeclaration] = {}

    def read(self, datasets_dir: Path) -> tuple[Mapping[str, AlertThresholds], Mapping[str, InvalidDeclaration]]:
        """The thresholds of usable datasets, and the faults of the others."""
        files = datasets_dir, {(path.name, *_version(path)) for path in datasets_dir.glob("*.py")}
        is_old = self._faults and time.monotonic() - self._read_at > FAULTY_S
        if files != self._files or is_old:
            declared = load_declarations(datasets_dir)
            self._limits = {name: AlertThresholds.of(dataset) for name, dataset in declared.datasets.items()}
            self._faults = declared.faults
            self._files, self._read_at = files, time.monotonic()
        return self._limits, self._faults


def _version(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # just deleted
        return 0, 0
    return found.st_mtime_ns, found.st_size
