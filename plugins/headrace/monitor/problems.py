"""Problems, the most severe first, each with one command that remedies or explains it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

from headrace.catalog import InvalidDeclaration, dag_of, load_declarations
from headrace.command import Command
from headrace.dataset import Dataset
from headrace.durations import duration
from headrace.monitor.figures import DatasetStatus, ModelStatus, Status
from headrace.output import shown
from headrace.settings import Settings

UNBUILT_S = 900.0  # build_marts runs at least every ten minutes
UNSEEN_RUNS = 3  # a source not checked for this many intervals of its DAG
UNSEEN_S = 120.0  # and for at least this time
# consequences of a pause, or what it may have been begun for: they are problems again once it ends
UNTOLD_WHILE_PAUSED = ("source", "drain", "lag", "freshness", "unseen", "follower")

Severity = Literal["error", "warning"]
ProblemKind = Literal[
    "source",
    "drain",
    "lag",
    "freshness",
    "unseen",
    "model",
    "tests",
    "unbuilt",
    "follower",
    "dead_letters",
    "declaration",
    "paused",
]
DatasetState = Literal[
    "broken", "paused", "failing", "late", "unseen", "behind", "building", "current", "empty", "removed"
]


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault for an operator; `command` remedies or explains it."""

    severity: Severity
    kind: ProblemKind
    about: str  # a dataset, or a model as marts.<model>
    text: str
    command: Command
    dataset: str | None = None

    def line(self) -> str:
        """One line for a log."""
        return f"{self.about}: {self.text}; run `{self.command}`"


@dataclass(frozen=True, slots=True)
class AlertThresholds:
    """The thresholds of a dataset's declaration, and its other attributes that affect its state."""

    max_lag: int | None = None
    max_freshness_s: float | None = None
    schedule_s: float = 60.0
    is_file: bool = False
    dag: str | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> "AlertThresholds":
        """The thresholds of a declaration."""
        is_file = dataset.source.is_file
        schedule_s = 3600.0 if is_file else dataset.schedule_s
        return cls(dataset.max_lag, dataset.max_freshness_s, schedule_s, is_file, dataset.dag)


@dataclass(frozen=True, slots=True)
class Overview:
    """A status with its problems, each dataset's state in a word, and the thresholds."""

    status: Status
    problems: Sequence[Problem]
    states: Mapping[str, DatasetState]
    limits: Mapping[str, AlertThresholds]
    faults: Mapping[str, InvalidDeclaration] = field(default_factory=dict)

    def is_declared(self, dataset: str) -> bool:
        """Whether the deployment has a declaration of it, usable or not; if not, it is only in the database."""
        return dataset in self.limits or dataset in self.faults

    def dag_of(self, dataset: str) -> str:
        """The DAG that ingests a dataset, or that says why it cannot."""
        if dataset in self.faults:
            return self.faults[dataset].dag_id
        found = self.limits.get(dataset, AlertThresholds())
        return dag_of(dataset, is_file=found.is_file, dag=found.dag)

    def document(self) -> dict[str, Any]:
        """The JSON of /headrace/status and of `headrace status --json`."""
        document = self.status.document()
        for number, dataset in enumerate(self.status.datasets):
            name, plain = dataset.dataset, document["datasets"][number]
            limits = self.limits.get(name, AlertThresholds())
            judged = {"state": self.states[name], "max_lag": limits.max_lag, "max_freshness_s": limits.max_freshness_s}
            document["datasets"][number] = {"dataset": plain["dataset"]} | judged | plain
        problems = [asdict(problem) | {"command": str(problem.command)} for problem in self.problems]
        return {"at": document.pop("at"), "problems": problems, **document}


def find_problems(status: Status, settings: Settings) -> Overview:
    """Find the problems of a status, with this deployment's declarations."""
    declared = load_declarations(settings.datasets_dir)
    limits = {name: AlertThresholds.of(dataset) for name, dataset in declared.datasets.items()}
    return find_problems_by(status, limits, declared.faults)


def find_problems_by(
    status: Status,
    limits: Mapping[str, AlertThresholds],
    faults: Mapping[str, InvalidDeclaration] = MappingProxyType({}),
) -> Overview:
    """Find the problems by these thresholds and faults; datasets that are no longer declared have neither."""
    problems = [_of_fault(fault) for fault in faults.values()]
    states: dict[str, DatasetState] = {}
    for dataset in status.datasets:
        name = dataset.dataset
        limit = limits.get(name)
        if limit is None:
            states[name] = "broken" if name in faults else "removed"
            continue
        found = list(_told(dataset, limit, status.at))
        problems += found
        states[name] = _state(dataset, {problem.kind for problem in found})
    for model in status.models:
        problems += _of_model(model)
    problems.sort(key=lambda problem: (problem.severity != "error", problem.kind != "declaration"))
    return Overview(status, problems, states, limits, faults)


def over_thresholds(overview: Overview) -> list[Problem]:
    """The problems that fail the DAG check_freshness: exceeded thresholds, and declarations without readable ones."""
    return [problem for problem in overview.problems if problem.kind in ("declaration", "lag", "freshness")]


def _of_fault(fault: InvalidDeclaration) -> Problem:
    text = f"nothing is ingested: {str(fault.error).removeprefix(f'{fault.name}: ')}"
    return _problem("error", "declaration", fault.name, text, Command("describe", fault.name), fault.name)


def _told(dataset: DatasetStatus, limits: AlertThresholds, at: datetime) -> Iterator[Problem]:
    """The problems of a dataset; of a paused one the pause instead of those that come from not reading."""
    found = _of_dataset(dataset, limits, at)
    if dataset.paused_at is None:
        yield from found
        return
    age = duration((at - dataset.paused_at).total_seconds())
    text = f"paused for {age} by {dataset.paused_by}: {dataset.pause_reason}; nothing is read"
    yield _problem("warning", "paused", dataset.dataset, text, Command("resume", dataset.dataset), dataset.dataset)
    yield from (problem for problem in found if problem.kind not in UNTOLD_WHILE_PAUSED)


def _of_dataset(dataset: DatasetStatus, limits: AlertThresholds, at: datetime) -> Iterator[Problem]:
    name = dataset.dataset
    read = Command("load" if limits.is_file else "drain", name)
    unseen_s = None if dataset.observed_at is None else (at - dataset.observed_at).total_seconds()
    if dataset.last_error is not None:
        text = dataset.last_error.removeprefix(f"{name}: ")
        yield _problem("error", "source", name, text, dataset.last_command or read, name)
    if dataset.drain_error is not None:
        at_time = "" if dataset.drain_failed_at is None else f" at {dataset.drain_failed_at:%H:%M:%S} UTC"
        text = f"its drain failed{at_time}: {dataset.drain_error.removeprefix(f'{name}: ')}"
        yield _problem("error", "drain", name, text, dataset.drain_command or read, name)
    is_unseen = unseen_s is not None and unseen_s > max(UNSEEN_RUNS * limits.schedule_s, UNSEEN_S)
    if is_unseen and dataset.last_error is None:
        text = f"its source has not been checked for {duration(unseen_s)}: is its DAG paused, or the scheduler down?"
        yield _problem("warning", "unseen", name, text, read, name)
    yield from _beyond(dataset, limits, unseen_s, read)
    if dataset.has_marts and dataset.unbuilt_s > UNBUILT_S:
        text = f"{dataset.unbuilt_batches} batches are not in every mart, the oldest for {duration(dataset.unbuilt_s)}"
        yield _problem("warning", "unbuilt", name, text, Command("build"), name)
    # a run that has checked the source since has taken over
    lost_at = dataset.follower_lost_at
    if lost_at is not None and (dataset.observed_at is None or dataset.observed_at <= lost_at):
        lost = duration((at - lost_at).total_seconds())
        text = f"its follower was lost {lost} ago, and no other run has checked its source since"
        yield _problem("warning", "follower", name, text, Command("follow", name), name)
    if dataset.recent_dead and dataset.dead_by_reason:  # else all of them were replayed
        most = next(iter(dataset.dead_by_reason))
        text = f"{dataset.recent_dead:,} records became dead letters in the last hour, most often {most}"
        yield _problem("warning", "dead_letters", name, text, Command("dead-letters", name), name)


def _beyond(
    dataset: DatasetStatus, limits: AlertThresholds, unseen_s: float | None, read: Command
) -> Iterator[Problem]:
    name = dataset.dataset
    if limits.max_lag is not None and dataset.lag > limits.max_lag:
        text = f"{dataset.lag:,} unread records, expected at most {limits.max_lag:,}"
        yield _problem("error", "lag", name, text, read, name)
    if limits.max_freshness_s is None or dataset.is_empty:
        return
    allowed = duration(limits.max_freshness_s)
    if dataset.stale_s is None or dataset.stale_s > limits.max_freshness_s:
        waited = "an unknown time" if dataset.stale_s is None else f"up to {duration(dataset.stale_s)}"
        command = read if dataset.lag else Command("build")
        where = "at the source" if dataset.lag else "in staging"
        text = f"a record has waited {where} for {waited}, expected it in every mart after {allowed}"
        yield _problem("error", "freshness", name, text, command, name)
    elif unseen_s is None or unseen_s > limits.max_freshness_s:
        seen = "never" if unseen_s is None else f"{duration(unseen_s)} ago"
        text = f"its source was last checked {seen}, expected its records in every mart after {allowed}"
        yield _problem("error", "freshness", name, text, read, name)


def _of_model(model: ModelStatus) -> Iterator[Problem]:
    about = model.model if model.kind == "project" else f"marts.{model.model}"
    again = Command("build") if model.kind in ("project", "test") else Command("build", "--select", model.model)
    if model.status == "error":
        text = f"failed at {model.finished_at:%H:%M:%S} UTC: {model.message or 'no message'}"
        yield _problem("error", "model", about, text, again)
    elif model.failed_tests:
        yield _problem("error", "tests", about, f"failed {'; '.join(model.failed_tests)}", again)


def _state(dataset: DatasetStatus, kinds: set[ProblemKind]) -> DatasetState:
    if "paused" in kinds:
        return "paused"
    if kinds & {"source", "drain"}:
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
    severity: Severity, kind: ProblemKind, about: str, text: str, command: Command, dataset: str | None = None
) -> Problem:
    return Problem(severity, kind, shown(about), shown(" ".join(text.split())), command, dataset)
