"""What is wrong, the worst first, and the one command that mends it or says more."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from headrace.dataset import Dataset, File, dataset_names, load_dataset
from headrace.durations import duration
from headrace.exceptions import DatasetError
from headrace.settings import Settings
from headrace.status import DatasetStatus, ModelStatus, Status

UNBUILT_S = 900.0  # build_marts runs every ten minutes, whatever happens
UNSEEN_RUNS = 3  # a dataset at whose source nobody looked for so many of its DAG's intervals
UNSEEN_S = 120.0  # and for so long
LAPSED_S = 3600.0  # a follower that was lost longer ago is history

Severity = Literal["error", "warning"]
Kind = Literal[
    "source", "lag", "freshness", "unseen", "model", "tests", "unbuilt", "follower", "dead_letters", "declaration"
]
State = Literal["failing", "late", "unseen", "behind", "building", "current", "empty"]

_COMMAND = re.compile(r"`(headrace [^`]+)`")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that somebody should look at; `command` is what to run."""

    severity: Severity
    kind: Kind
    about: str  # a dataset, or a model as marts.<model>
    text: str
    command: str
    dataset: str | None = None

    def line(self) -> str:
        """One line for a log."""
        return f"{self.about}: {self.text}; run `{self.command}`"


@dataclass(frozen=True, slots=True)
class Limits:
    """The thresholds of a dataset's declaration, and what else of it matters to its state."""

    max_lag: int | None = None
    max_freshness_s: float | None = None
    schedule_s: float = 60.0
    is_file: bool = False

    @classmethod
    def of(cls, dataset: Dataset) -> "Limits":
        """Those of a declaration."""
        is_file = isinstance(dataset.source, File)
        return cls(dataset.max_lag, dataset.max_freshness_s, 3600.0 if is_file else dataset.schedule_s, is_file)


@dataclass(frozen=True, slots=True)
class Overview:
    """A status as it is judged: what is wrong, each dataset's state in a word, and the limits that they have."""

    status: Status
    problems: Sequence[Problem]
    states: Mapping[str, State]
    limits: Mapping[str, Limits]

    def dag_of(self, dataset: str) -> str:
        """The DAG that ingests a dataset."""
        return f"load_{dataset}" if self.limits.get(dataset, Limits()).is_file else f"ingest_{dataset}"

    def document(self) -> dict[str, Any]:
        """As plain types: the JSON of /headrace/status and of `headrace status --json`."""
        document = self.status.document()
        for number, dataset in enumerate(document["datasets"]):
            name = dataset["dataset"]
            limits = self.limits.get(name, Limits())
            judged = {"state": self.states[name], "max_lag": limits.max_lag, "max_freshness_s": limits.max_freshness_s}
            document["datasets"][number] = {"dataset": name} | judged | dataset
        return {"at": document.pop("at"), "problems": [asdict(problem) for problem in self.problems], **document}


def judge(status: Status, settings: Settings) -> Overview:
    """Say what is wrong, by the declarations of this deployment."""
    limits: dict[str, Limits] = {}
    problems: list[Problem] = []
    for name in dataset_names(settings.datasets_dir):
        try:
            limits[name] = Limits.of(load_dataset(settings.datasets_dir, name))
        except DatasetError as error:
            problems.append(_problem("error", "declaration", name, f"{error}", f"headrace describe {name}", name))
    return judge_by(status, limits, problems)


def judge_by(status: Status, limits: Mapping[str, Limits], more: Sequence[Problem] = ()) -> Overview:
    """Say what is wrong, by these limits; datasets that are no longer declared have none."""
    problems = list(more)
    states: dict[str, State] = {}
    for dataset in status.datasets:
        limit = limits.get(dataset.dataset)
        found = list(_of_dataset(dataset, limit, status.at)) if limit else []
        problems += found
        states[dataset.dataset] = _state(dataset, {problem.kind for problem in found})
    for model in status.models:
        problems += _of_model(model)
    problems.sort(key=lambda problem: (problem.severity != "error", problem.kind != "declaration"))
    return Overview(status, problems, states, limits)


def beyond(overview: Overview) -> list[Problem]:
    """The problems that break a threshold of a declaration: what the DAG check_freshness fails with."""
    return [problem for problem in overview.problems if problem.kind in ("lag", "freshness")]


def _of_dataset(dataset: DatasetStatus, limits: Limits, at: datetime) -> Iterator[Problem]:
    name = dataset.dataset
    read = f"headrace load {name}" if limits.is_file else f"headrace drain {name}"
    unseen_s = None if dataset.observed_at is None else (at - dataset.observed_at).total_seconds()
    if dataset.last_error is not None:
        found = _COMMAND.search(dataset.last_error)
        text = dataset.last_error.removeprefix(f"{name}: ")
        yield _problem("error", "source", name, text, found[1] if found else read, name)
    elif unseen_s is not None and unseen_s > max(UNSEEN_RUNS * limits.schedule_s, UNSEEN_S):
        text = f"nobody has looked at its source for {duration(unseen_s)}: is its DAG paused, or the scheduler down?"
        yield _problem("warning", "unseen", name, text, read, name)
    yield from _beyond(dataset, limits, unseen_s, read)
    if dataset.has_marts and dataset.unbuilt_s > UNBUILT_S:
        text = f"{dataset.unbuilt_batches} batches are not in every mart, the oldest for {duration(dataset.unbuilt_s)}"
        yield _problem("warning", "unbuilt", name, text, "headrace build", name)
    if dataset.follower_lost_at is not None and (at - dataset.follower_lost_at).total_seconds() < LAPSED_S:
        lost = duration((at - dataset.follower_lost_at).total_seconds())
        text = f"its follower was lost {lost} ago without a goodbye; scheduled runs took over"
        yield _problem("warning", "follower", name, text, f"headrace follow {name}", name)
    if dataset.recent_dead:
        most = f", most often {next(iter(dataset.dead_by_reason))}" if dataset.dead_by_reason else "; none waits now"
        text = f"{dataset.recent_dead:,} records became dead letters in the last hour{most}"
        yield _problem("warning", "dead_letters", name, text, f"headrace dead-letters {name}", name)


def _beyond(dataset: DatasetStatus, limits: Limits, unseen_s: float | None, read: str) -> Iterator[Problem]:
    name = dataset.dataset
    if limits.max_lag is not None and dataset.lag > limits.max_lag:
        text = f"{dataset.lag:,} unread records, expected at most {limits.max_lag:,}"
        yield _problem("error", "lag", name, text, read, name)
    if limits.max_freshness_s is None or dataset.is_empty:
        return
    allowed = duration(limits.max_freshness_s)
    if dataset.stale_s is None or dataset.stale_s > limits.max_freshness_s:
        waited = "an unknown time" if dataset.stale_s is None else f"up to {duration(dataset.stale_s)}"
        command = read if dataset.lag else "headrace build"
        where = "at the source" if dataset.lag else "in staging"
        text = f"a record has waited {where} for {waited}, expected it in every mart after {allowed}"
        yield _problem("error", "freshness", name, text, command, name)
    elif unseen_s is None or unseen_s > limits.max_freshness_s:
        seen = "never" if unseen_s is None else f"{duration(unseen_s)} ago"
        text = f"its source was last looked at {seen}, expected its records in every mart after {allowed}"
        yield _problem("error", "freshness", name, text, read, name)


def _of_model(model: ModelStatus) -> Iterator[Problem]:
    about = model.model if model.kind == "project" else f"marts.{model.model}"
    again = "headrace build" if model.kind in ("project", "test") else f"headrace build --select {model.model}"
    if model.status == "error":
        text = f"failed at {model.finished_at:%H:%M:%S} UTC: {model.message or 'no message'}"
        yield _problem("error", "model", about, text, again)
    elif model.failed_tests:
        yield _problem("error", "tests", about, f"failed {'; '.join(model.failed_tests)}", again)


def _state(dataset: DatasetStatus, kinds: set[Kind]) -> State:
    if "source" in kinds:
        return "failing"
    if kinds & {"lag", "freshness"}:
        return "late"
    if dataset.is_empty:
        return "empty"
    if "unseen" in kinds:
        return "unseen"
    if dataset.lag:
        return "behind"
    if dataset.has_marts and dataset.unbuilt_batches:
        return "building"
    return "current"


def _problem(
    severity: Severity, kind: Kind, about: str, text: str, command: str, dataset: str | None = None
) -> Problem:
    return Problem(severity, kind, about, " ".join(text.split()), command, dataset)
