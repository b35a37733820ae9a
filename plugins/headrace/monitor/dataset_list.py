"""The list of `headrace datasets`: what a deployment declares, without any service, and what is known to be paused."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from headrace.catalog import InvalidDeclaration, dag_of, load_declarations
from headrace.dataset import Dataset
from headrace.durations import duration
from headrace.output import aligned, shown
from headrace.postgres.pauses import Pause

FILE_SCHEDULE_S = 3600  # of load_<dataset>; a file's schedule_s is not used
HEADINGS = ("dataset", "source", "format", "key", "DAG", "every")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDataset:
    """A declaration, as it is listed; of one that cannot be used only name, DAG and error are known.

    kind: topic, stream or file. format: of a file its suffix. key: fields of the contract. schedule_s: seconds between
    the runs of the DAG. pause: the one that has not ended.
    """

    dataset: str
    kind: str | None = None
    source: str | None = None
    format: str | None = None
    key: tuple[str, ...] = ()
    dag: str
    schedule_s: int | None = None
    description: str = ""
    pause: Pause | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DatasetList:
    """All declarations, in alphabetical order. pauses_known: whether Postgres could be asked for their pauses."""

    datasets: list[ListedDataset]
    pauses_known: bool = True

    def document(self) -> dict[str, Any]:
        """One JSON document."""
        pauses = [None if each.pause is None else each.pause.document() for each in self.datasets]
        datasets = [asdict(each) | {"pause": pause} for each, pause in zip(self.datasets, pauses, strict=True)]
        return {"datasets": datasets, "pauses_known": self.pauses_known}

    def lines(self) -> Iterator[str]:
        """A table; behind it a line for each dataset that is paused, or whose declaration cannot be used."""
        if not self.datasets:
            yield "no datasets are declared; `headrace infer` writes a declaration"
            return
        yield from aligned([HEADINGS, *(_cells(each) for each in self.datasets)])
        yield from (f"{each.dataset}: {each.pause.text()}" for each in self.datasets if each.pause is not None)
        yield from (shown(each.error) for each in self.datasets if each.error is not None)
        if not self.pauses_known:
            yield "which of them are paused is not known: Postgres cannot be asked"


def list_datasets(datasets_dir: Path, pauses: Mapping[str, Pause] | None = None) -> DatasetList:
    """List the declarations of a folder. pauses: those that have not ended; None if they are not known."""
    declared = load_declarations(datasets_dir)
    every = {dag: min(dataset.schedule_s for dataset in datasets) for dag, datasets in declared.shared.items()}
    usable = {name: _listed(dataset, every) for name, dataset in declared.datasets.items()}
    faulty = {name: _faulty(fault) for name, fault in declared.faults.items()}
    paused = pauses or {}
    return DatasetList(
        [replace((usable | faulty)[name], pause=paused.get(name)) for name in declared.names], pauses is not None
    )


def _listed(dataset: Dataset, every: Mapping[str, int]) -> ListedDataset:
    """every: seconds between the runs of each shared DAG."""
    source = dataset.source
    return ListedDataset(
        dataset=dataset.name,
        kind=source.kind,
        source=source.name,
        format=_suffix(source.name) if source.is_file else dataset.format.name,
        key=dataset.key_fields,
        dag=dag_of(dataset.name, is_file=source.is_file, dag=dataset.dag),
        schedule_s=FILE_SCHEDULE_S if source.is_file else every.get(dataset.dag or "", dataset.schedule_s),
        description=dataset.description,
    )


def _suffix(path: str) -> str:
    """A file's suffix, which decides how it is read: ndjson, csv, parquet."""
    return PurePath(path.removesuffix(".gz")).suffix.removeprefix(".")


def _faulty(fault: InvalidDeclaration) -> ListedDataset:
    return ListedDataset(dataset=fault.name, dag=fault.dag_id, error=str(fault.error))


def _cells(each: ListedDataset) -> tuple[str, ...]:
    if each.error is not None:
        return (each.dataset, "cannot be used", "", "", each.dag, "")
    source, key = f"{each.kind} {each.source}", ", ".join(each.key)
    return (each.dataset, source, each.format or "", key, each.dag, duration(each.schedule_s))
