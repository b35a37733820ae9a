"""Creates a project folder, and replaces its dbt package by that of the installed version."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from headrace.command import Command
from headrace.exceptions import UsageError

TEMPLATE = Path(__file__).with_name("project")
PACKAGE = Path("packages", "headrace_dbt")  # below the dbt project


def create(project: Path) -> list[Path]:
    """Create a project folder; return the paths of its files, relative to it.

    Raises UsageError if the folder has something in it already: nothing is overwritten.
    """
    if project.exists() and (not project.is_dir() or any(project.iterdir())):
        raise UsageError(
            f"{project}: found a folder or file with contents, expected none; name a new folder, or run "
            f"`{Command('new', str(project), '--upgrade')}` for the dbt package of this version"
        )
    made = []
    for source, place in _files(TEMPLATE):
        target = project / place
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        made.append(place)
    return sorted(made)


def upgrade(project: Path) -> bool:
    """Replace the project's dbt package by that of this version; return whether it differed.

    All else in the folder belongs to its authors. Raises UsageError for a folder without a dbt project.
    """
    dbt = project / "dbt"
    if not (dbt / "dbt_project.yml").is_file():
        raise UsageError(
            f"{project}: found no dbt/dbt_project.yml, expected a project made by `{Command('new', str(project))}`; "
            "name its folder",
            command=Command("new", str(project)),
        )
    if not package_differs(dbt):
        return False
    target, copy = dbt / PACKAGE, dbt / PACKAGE.with_name("headrace_dbt.new")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(TEMPLATE / "dbt" / PACKAGE, copy)
    shutil.rmtree(target, ignore_errors=True)
    copy.rename(target)
    return True


def package_differs(dbt: Path) -> bool:
    """Whether a dbt project's copy of headrace_dbt is not that of this version; False for a project without one."""
    target = dbt / PACKAGE
    return target.is_dir() and _contents(target) != _contents(TEMPLATE / "dbt" / PACKAGE)


def _contents(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.suffix in (".sql", ".yml")
    }


def _files(folder: Path, place: Path = Path()) -> Iterator[tuple[Path, Path]]:
    """The files below a folder of the template, and where they belong; follows links."""
    for path in sorted(folder.iterdir()):
        if path.name == "__pycache__":
            continue
        name = path.name.removesuffix(".txt")
        name = f".{name.removeprefix('dot-')}" if name.startswith("dot-") else name
        if path.is_dir():
            yield from _files(path, place / name)
        else:
            yield path, place / name
