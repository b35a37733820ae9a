"""Which contracts were compiled without a fault from their files as they are now.

Airflow parses DAG files in a new process every time, and most of a parse would be compiling contracts that have not
changed. Only what is known to be valid is left out, and only by those who ask for it: whoever decodes a record compiles
its contract, so what a file does not show, such as a changed package that it imports, is found there.
"""

import hashlib
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pydantic

from headrace.private_files import read_bounded, replaced_file

BYTES_MAX = 16 * 1024 * 1024  # 100,000 names are a few MB


class CheckedContracts:
    """The names of the datasets in a folder whose contracts are known to be valid.

    home: the folder in which they are remembered; without it nothing is. Everything is forgotten when a Python file
    below the folder, Headrace, pydantic or Python changes.
    """

    def __init__(self, datasets_dir: Path, home: Path, version: str) -> None:
        folder = hashlib.sha256(str(datasets_dir.absolute()).encode()).hexdigest()[:12]
        self._path = home / f"contracts-{folder}.json"
        # of before the files are read: what changes meanwhile changes the next one
        self._state = _state(datasets_dir, (version, pydantic.VERSION, sys.version))
        self.names: frozenset[str] = frozenset(self._read())

    def remember(self, names: Iterable[str]) -> None:
        """Keep the names for the next process; a home that cannot be written to is left as it is."""
        found = frozenset(names)
        if found == self.names:
            return
        with suppress(OSError), replaced_file(self._path) as file:
            file.write(json.dumps({"state": self._state, "names": sorted(found)}).encode())

    def _read(self) -> list[str]:
        try:
            found = json.loads(read_bounded(self._path, BYTES_MAX))
            return list(map(str, found["names"])) if found["state"] == self._state else []
        except (OSError, ValueError, TypeError, KeyError):  # nothing yet, or not ours
            return []


def _state(datasets_dir: Path, versions: Iterable[str]) -> str:
    """Changes with every change of a Python file below the folder."""
    files = sorted(_files(datasets_dir))
    return hashlib.sha256(repr((tuple(versions), files)).encode()).hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, int, int, int]]:
    for path in folder.rglob("*.py"):
        with suppress(OSError):  # removed meanwhile, or a link to nothing
            found = path.stat()
            yield str(path.relative_to(folder)), found.st_mtime_ns, found.st_size, found.st_ino
