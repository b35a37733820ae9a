"""The folder of a deployment's own files: declarations, dbt project, data files, state.

In a checkout of this repository it is the checkout. For an installed package it is the nearest folder, from the
current one upwards, that has both datasets/ and dbt/, as `headrace new` makes them; else the current one.
"""

import os
from collections.abc import Mapping
from pathlib import Path

_LIBRARY = Path(__file__).resolve().parent
_CHECKOUT = _LIBRARY.parents[1]
IS_CHECKOUT = _LIBRARY.parent.name == "plugins"  # of an installed package it is site-packages


def project_folder(current: Path | None = None) -> Path:
    """The project's folder. current: where the search begins. Defaults to the current folder."""
    if IS_CHECKOUT:
        return _CHECKOUT
    try:
        start = Path.cwd() if current is None else current
    except FileNotFoundError:  # the current folder was removed
        start = Path(os.sep)
    found = (
        folder for folder in (start, *start.parents) if (folder / "datasets").is_dir() and (folder / "dbt").is_dir()
    )
    return next(found, start)


def project_paths(project: Path) -> Mapping[str, Path]:
    """The default of each setting that names a place, for a project in this folder.

    A checkout has its declarations in plugins/datasets/, any other project in datasets/.
    """
    is_checkout = IS_CHECKOUT and project == _CHECKOUT
    return {
        "home": project / ".headrace",
        "datasets_dir": project / "plugins" / "datasets" if is_checkout else project / "datasets",
        "dbt_dir": project / "dbt",
        "data_dir": project / "data-files",
    }


PROJECT = project_folder()
PATHS = project_paths(PROJECT)
