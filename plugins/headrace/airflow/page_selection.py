"""The selection of figures for one page: the datasets of a search, a page at a time, and a few of everything else.

The page's size depends on these numbers, not on the numbers of datasets, partitions, models or problems; JSON and
Prometheus have all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from headrace.monitor.figures import DatasetStatus, ModelStatus, PartitionStatus
from headrace.monitor.problem import Problem
from headrace.monitor.problems import DatasetState, Overview

DATASETS = 50  # per page
PROBLEMS = 25
PARTITIONS = 200
REASONS = 20  # per dataset
MODELS = 50
SERIES = 8  # per chart, the number of colours
OTHERS = "other datasets"  # their sum is a line of the chart; no dataset can have this name
QUERY_LENGTH_MAX = 200

STATES: dict[DatasetState, str] = {
    "broken": "broken declaration",
    "paused": "paused",
    "failing": "failing",
    "late": "late",
    "unseen": "not checked",
    "behind": "behind",
    "building": "building",
    "current": "up to date",
    "empty": "nothing yet",
    "removed": "no longer declared",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """The contents of a page. found: how many datasets or problems the search found in all."""

    query: str
    page: int  # from 1
    pages: int
    datasets: Sequence[DatasetStatus]
    datasets_found: int
    problems: Sequence[Problem]
    problems_found: int
    partitions: Sequence[tuple[str, PartitionStatus]]
    partitions_found: int
    models: Sequence[ModelStatus]
    models_found: int
    history: Mapping[str, object]


def select(overview: Overview, query: str = "", page: int = 1) -> Selection:
    """Select for a search the datasets whose name, topic or state contains each of its words.

    Problems are searched by the same words in their subject and text. A page after the last is the last.
    """
    query = query[:QUERY_LENGTH_MAX]
    words = query.casefold().split()
    found = [each for each in overview.status.datasets if _has(words, each.dataset, each.topic, _state(overview, each))]
    problems = [each for each in overview.problems if _has(words, each.about, *each.datasets, *each.models, each.text)]
    pages = max(-(-len(found) // DATASETS), 1)
    page = min(max(page, 1), pages)
    shown = found[(page - 1) * DATASETS : page * DATASETS]
    partitions = ((each.dataset, partition) for each in shown for partition in each.partitions)
    models = [model for model in overview.status.models if model.kind in ("model", "project")]
    return Selection(
        query=query,
        page=page,
        pages=pages,
        datasets=shown,
        datasets_found=len(found),
        problems=problems[:PROBLEMS],
        problems_found=len(problems),
        partitions=list(islice(partitions, PARTITIONS)),
        partitions_found=sum(len(each.partitions) for each in shown),
        models=models[:MODELS],  # those that failed are first
        models_found=len(models),
        history=_history(overview, found),
    )


def _state(overview: Overview, dataset: DatasetStatus) -> str:
    return STATES[overview.states[dataset.dataset]]


def _has(words: Sequence[str], *texts: str | None) -> bool:
    if not words:
        return True
    text = " ".join(filter(None, texts)).casefold()
    return all(word in text for word in words)


def _history(overview: Overview, datasets: Sequence[DatasetStatus]) -> dict[str, object]:
    """The charts' data, oldest minute first: the datasets with the largest values, and the sum of the others."""
    history = overview.status.history
    names = [each.dataset for each in datasets]
    rows = _most({name: history.rows[name] for name in names if any(history.rows.get(name, ()))})
    lag = _most({name: history.lag[name] for name in names if any(history.lag.get(name, ()))})
    # a colour belongs to a name's place in this list: with few datasets it stays when another one has no values
    colored = {*rows, *lag} if len(names) > DATASETS else names
    return {"minutes": list(history.minutes), "rows": rows, "lag": lag, "datasets": sorted(colored)}


def _most(series: Mapping[str, Sequence[int | None]]) -> dict[str, list[int | None]]:
    """The largest series in their original order; the last is the sum of the others, if any."""
    if len(series) <= SERIES:
        return {name: list(values) for name, values in series.items()}
    largest = sorted(series, key=lambda name: -sum(value or 0 for value in series[name]))[: SERIES - 1]
    others = [values for name, values in series.items() if name not in largest]
    summed = {OTHERS: [sum(value or 0 for value in minute) for minute in zip(*others, strict=True)]}
    return {name: list(series[name]) for name in series if name in largest} | summed
