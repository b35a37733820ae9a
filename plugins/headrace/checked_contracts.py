"""Which contracts were compiled without a fault from their files as they are now.

Airflow parses DAG files in a new process every time, and most of a parse would be compiling contracts that have not
changed. Only contracts that are known to be valid are left out, and only for callers that ask for it. A process that
decodes records compiles their contracts, so it finds what no file shows, such as a changed variable.
"""

import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic

from headrace.private_files import read_bounded, replaced_file

BYTES_MAX = 16 * 1024 * 1024  # 100,000 names are a few MB
INSTALLED = {"site-packages", "dist-packages"}

Version = list[int]  # of a file: it changes when the file is written or replaced


class CheckedContracts:
    """The names of the datasets in a folder whose contracts are known to be valid.

    home: the folder in which they are remembered; without it nothing is. Everything is forgotten when a Python file
    below the folder changes, a module that its declarations import and that no package installer put there, or the
    version of Headrace, pydantic or Python.
    """

    def __init__(self, datasets_dir: Path, home: Path, version: str) -> None:
        folder = hashlib.sha256(str(datasets_dir.absolute()).encode()).hexdigest()[:12]
        self._path = home / f"contracts-{folder}.json"
        # of before the files are read: what changes meanwhile changes the next one
        self._state = _state(datasets_dir, (version, pydantic.VERSION, sys.version))
        self.names: frozenset[str] = frozenset(self._read())

    def remember(self, names: Iterable[str]) -> None:
        """Keep the names for the next process, after their declarations were imported here.

        A home that cannot be written to is left as it is.
        """
        found = frozenset(names)
        if found == self.names:
            return
        content = {"state": self._state, "modules": dict(_own_modules()), "names": sorted(found)}
        with suppress(OSError), replaced_file(self._path) as file:
            file.write(json.dumps(content).encode())

    def _read(self) -> list[str]:
        try:
            found: dict[str, Any] = json.loads(read_bounded(self._path, BYTES_MAX))
            is_same = found["state"] == self._state and all(
                _version(Path(path)) == version for path, version in found["modules"].items()
            )
            return list(map(str, found["names"])) if is_same else []
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # nothing yet, not ours, or a module is gone
            return []


def _state(datasets_dir: Path, versions: Iterable[str]) -> str:
    """Changes with every change of a Python file below the folder."""
    files = sorted((str(path), _version_or_none(path)) for path in datasets_dir.rglob("*.py"))
    return hashlib.sha256(repr((tuple(versions), files)).encode()).hexdigest()


def _own_modules() -> Iterator[tuple[str, Version]]:
    """The files of imported modules that are neither Python's nor installed: a project's helpers are among them."""
    library = sysconfig.get_paths()["stdlib"]
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not isinstance(name, str) or name.startswith(library) or INSTALLED & set(Path(name).parts):
            continue
        if (version := _version_or_none(Path(name))) is not None:
            yield name, version


def _version_or_none(path: Path) -> Version | None:
    try:
        return _version(path)
    except OSError:  # removed meanwhile, or a link to nothing
        return None


def _version(path: Path) -> Version:
    found = path.stat()
    return [found.st_mtime_ns, found.st_size, found.st_ino]
