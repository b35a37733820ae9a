"""The files of declarations: which datasets a folder declares, without importing any of them."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from headrace.exceptions import DatasetError

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def dataset_names(datasets_dir: Path) -> list[str]:
    """The names of all declared datasets, in alphabetical order; imports nothing."""
    return sorted(path.stem for path in datasets_dir.glob("*.py") if NAME.fullmatch(path.stem))


def not_declared(datasets_dir: Path, name: str) -> DatasetError:
    """The error for a name that no declaration has, with the similar and the declared ones."""
    known = dataset_names(datasets_dir)
    return DatasetError(
        f"dataset {name!r}: not declared in {datasets_dir}{similar(name, known)}; "
        f"expected one of {', '.join(known) or 'none'}"
    )


def similar(name: str, known: Collection[str]) -> str:
    """A question that names what may have been meant: `, did you mean jobs?`; empty if nothing is similar."""
    found = get_close_matches(name.lower(), known, n=3)
    return f", did you mean {' or '.join(found)}?" if found else ""
