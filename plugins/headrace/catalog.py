"""All declarations of a deployment: each is loaded separately, so a broken file stops only its own dataset."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from headrace import __version__
from headrace.checked_contracts import CheckedContracts
from headrace.dataset import Dataset, dataset_names, load_dataset
from headrace.exceptions import DatasetError
from headrace.sources.declarations import names_file

DAG = re.compile(r"""\bdag\s*=\s*(["'])([a-z][a-z0-9_]{0,40})\1""")  # in a declaration's text


@dataclass(frozen=True, slots=True)
class InvalidDeclaration:
    """A declaration that cannot be used, and why.

    is_file, dag: whether it comes from a file, and which DAG it shares, as far as the declaration's text tells. They
    decide only which DAG reports the fault. path: the file. since: when it was last changed.
    """

    name: str
    error: DatasetError
    is_file: bool = False
    path: Path | None = None
    since: datetime | None = None
    dag: str | None = None

    @property
    def dag_id(self) -> str:
        """The DAG that reports the fault: the dataset's own, or one beside the shared DAG, which is not stopped."""
        dag_id = dag_of(self.name, is_file=self.is_file, dag=self.dag)
        return dag_id if self.dag is None or self.is_file else f"{dag_id}.broken"


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

    @property
    def shared(self) -> dict[str, list[Dataset]]:
        """The usable datasets of each shared DAG, by the declared `dag`."""
        found: dict[str, list[Dataset]] = {}
        for dataset in self.datasets.values():
            if dataset.dag is not None:
                found.setdefault(dataset.dag, []).append(dataset)
        return found


def load_declarations(datasets_dir: Path, home: Path | None = None) -> Declarations:
    """Load every declaration. One that raises an error does not affect the others.

    home: HEADRACE_HOME, for those who decode nothing: contracts that another process has compiled, from files that have
    not changed, are not compiled here until they are used. Defaults to none: all are compiled.
    """
    checked = None if home is None else CheckedContracts(datasets_dir, home, __version__)
    known = frozenset[str]() if checked is None else checked.names
    datasets: dict[str, Dataset] = {}
    faults: dict[str, InvalidDeclaration] = {}
    for name in dataset_names(datasets_dir):
        try:
            datasets[name] = _usable(datasets_dir, name, is_checked=name in known)
        except DatasetError as error:
            path = datasets_dir / f"{name}.py"
            text = _text(path)
            dag = DAG.search(text)
            faults[name] = InvalidDeclaration(
                name, error, names_file(text), path, _changed_at(path), dag[2] if dag else None
            )
    if checked is not None:
        checked.remember(datasets)
    for name, refusal in _of_taken_dags(Declarations(datasets, faults)).items():
        path = datasets_dir / f"{name}.py"
        faults[name] = InvalidDeclaration(name, refusal, path=path, since=_changed_at(path), dag=datasets.pop(name).dag)
    return Declarations(datasets, faults)


def _of_taken_dags(declared: Declarations) -> dict[str, DatasetError]:
    """Why datasets cannot share a DAG: it has the dag_id of another dataset's own."""
    own = {name for name, dataset in declared.datasets.items() if dataset.dag is None and not dataset.source.is_file}
    own |= {name for name, fault in declared.faults.items() if fault.dag is None and not fault.is_file}
    return {
        dataset.name: DatasetError(
            f"{dataset.name}: dag is {dag!r}, expected another one: dataset {dag} has a DAG of its own, ingest_{dag}; "
            f"choose another name, or give dataset {dag} dag={dag!r} too"
        )
        for dag, datasets in declared.shared.items()
        if dag in own
        for dataset in datasets
    }


def load_declaration(datasets_dir: Path, name: str) -> Dataset:
    """Load one declaration and compile its contract.

    Raises DatasetError, in one line, for any error in the file: also for sys.exit(), for infinite recursion and for a
    fault that shows only when the contract is compiled, such as a zone that does not exist.
    """
    return _usable(datasets_dir, name, is_checked=False)


def _usable(datasets_dir: Path, name: str, *, is_checked: bool) -> Dataset:
    path = datasets_dir / f"{name}.py"
    try:
        dataset = load_dataset(datasets_dir, name)
        if not is_checked:
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


def dag_of(name: str, *, is_file: bool, dag: str | None = None) -> str:
    """The id of the DAG that ingests a dataset; dag: the declared one, which others share."""
    return f"load_{name}" if is_file else f"ingest_{dag or name}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _changed_at(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
