"""What of the figures one page shows: the datasets that a search finds, so many at a time, and a few of all else.

The page's size depends on these numbers, not on how many datasets, partitions, models or problems there are; JSON and
Prometheus have all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from headrace.monitor.figures import DatasetStatus, ModelStatus, PartitionStatus
from headrace.monitor.problems import Overview, Problem, State

DATASETS = 50  # a page
PROBLEMS = 25
PARTITIONS = 200
REASONS = 20  # of a dataset
MODELS = 50
SERIES = 8  # of a chart; as many colours as there are
OTHERS = "other datasets"  # their sum is drawn too; no dataset can be called so
QUERY_LENGTH_MAX = 200

STATES: dict[State, str] = {
    "broken": "broken declaration",
    "failing": "failing",
    "late": "late",
    "unseen": "not looked at",
    "behind": "behind",
    "building": "building",
    "current": "up to date",
    "empty": "nothing yet",
    "removed": "no longer declared",
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What a page shows. found: how many datasets, or problems, the search found, of which these are some."""

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
    """What the page shows of a search: datasets in whose name, topic or state each of its words occurs.

    Problems are searched by the same words in what they are about and say. A page beyond the last is the last.
    """
    query = query[:QUERY_LENGTH_MAX]
    words = query.casefold().split()
    found = [each for each in overview.status.datasets if _has(words, each.dataset, each.topic, _state(overview, each))]
    problems = [each for each in overview.problems if _has(words, each.about, each.dataset, each.text)]
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
    """The charts' data, oldest minute first: the datasets of which there is most to draw, and the sum of the others."""
    history = overview.status.history
    names = [each.dataset for each in datasets]
    rows = _most({name: history.rows[name] for name in names if any(history.rows.get(name, ()))})
    lag = _most({name: history.lag[name] for name in names if any(history.lag.get(name, ()))})
    # a colour goes by a name's place among these: of a few datasets it stays when another one has nothing to draw
    colored = {*rows, *lag} if len(names) > DATASETS else names
    return {"minutes": list(history.minutes), "rows": rows, "lag": lag, "datasets": sorted(colored)}


def _most(series: Mapping[str, Sequence[int | None]]) -> dict[str, list[int | None]]:
    """The largest ones in the order that they were in; the last is the sum of the others, if there are any."""
    if len(series) <= SERIES:
        return {name: list(values) for name, values in series.items()}
    largest = sorted(series, key=lambda name: -sum(value or 0 for value in series[name]))[: SERIES - 1]
    others = [values for name, values in series.items() if name not in largest]
    summed = {OTHERS: [sum(value or 0 for value in minute) for minute in zip(*others, strict=True)]}
    return {name: list(series[name]) for name in series if name in largest} | summed
