"""All declarations of a deployment: each is loaded separately, so a broken file stops only its own dataset."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from headrace.dataset import Dataset, dataset_names, load_dataset
from headrace.exceptions import DatasetError
from headrace.sources.declarations import names_file


@dataclass(frozen=True, slots=True)
class InvalidDeclaration:
    """A declaration that cannot be used, and why.

    is_file: whether it comes from a file, as far as the declaration's text tells. It decides only under which name
    the dataset's DAG reports the fault: load_<name> or ingest_<name>. path: the file. since: when it was last changed.
    """

    name: str
    error: DatasetError
    is_file: bool = False
    path: Path | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Declarations:
    """The datasets that can be used, and the faults of the others, by name."""

    datasets: Mapping[str, Dataset] = field(default_factory=dict)
    faults: Mapping[str, InvalidDeclaration] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The names of all of them, in alphabetical order."""
        return sorted({*self.datasets, *self.faults})

    @property
    def streams(self) -> list[str]:
        """The names of datasets that come from a topic or a stream, broken declarations included."""
        usable = {name for name, dataset in self.datasets.items() if not dataset.source.is_file}
        return sorted(usable | {name for name, fault in self.faults.items() if not fault.is_file})


def load_declarations(datasets_dir: Path) -> Declarations:
    """Load every declaration. One that raises an error does not affect the others."""
    datasets: dict[str, Dataset] = {}
    faults: dict[str, InvalidDeclaration] = {}
    for name in dataset_names(datasets_dir):
        try:
            datasets[name] = load_declaration(datasets_dir, name)
        except DatasetError as error:
            path = datasets_dir / f"{name}.py"
            faults[name] = InvalidDeclaration(name, error, _is_file(path), path, _changed_at(path))
    return Declarations(datasets, faults)


def load_declaration(datasets_dir: Path, name: str) -> Dataset:
    """Load one declaration and compile its contract.

    Raises DatasetError, in one line, for any error in the file: also for sys.exit(), for infinite recursion and for a
    fault that shows only when the contract is compiled, such as a zone that does not exist.
    """
    path = datasets_dir / f"{name}.py"
    try:
        dataset = load_dataset(datasets_dir, name)
        _ = dataset.compiled
    except DatasetError as error:
        raise DatasetError(_one_line(error)) from error
    except (Exception, SystemExit) as error:
        raise DatasetError(
            f"{path}: found {type(error).__name__}: {_one_line(error)}, expected a declaration that can be used; "
            "correct the file"
        ) from error
    return dataset


def by_priority(names: Sequence[str], datasets_dir: Path) -> list[str]:
    """The names by the priority of their declarations, the highest first; in the given order where it is the same.

    A declaration that cannot be used has the default: what reads it names its fault.
    """
    if len(names) < 2:
        return list(names)
    priorities: dict[str, int] = {}
    for name in names:
        with suppress(DatasetError):
            priorities[name] = load_declaration(datasets_dir, name).priority
    return sorted(names, key=lambda name: -priorities.get(name, Dataset.priority))


def dag_of(name: str, *, is_file: bool) -> str:
    """The id of the DAG that ingests a dataset."""
    return f"load_{name}" if is_file else f"ingest_{name}"


def _is_file(path: Path) -> bool:
    try:
        return names_file(path.read_text(errors="replace"))
    except OSError:
        return False


def _changed_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
