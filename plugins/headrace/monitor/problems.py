"""Problems, the most severe first: one per cause, each with one command that remedies or explains it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

from headrace.catalog import InvalidDeclaration, dag_of, load_declarations
from headrace.command import Command
from headrace.dataset import MAX_DEAD_PERCENT, Dataset
from headrace.durations import duration, percent
from headrace.monitor.airflow_health import AirflowHealth, with_airflow
from headrace.monitor.figures import DatasetStatus, Status
from headrace.monitor.grouping import one_per_cause, without_consequences
from headrace.monitor.model_problems import failed_readers, of_models
from headrace.monitor.problem import BEHIND, LOST, UNSEEN, Problem, ProblemKind, Severity, problem_of
from headrace.settings import Settings

UNBUILT_S = 900.0  # build_marts runs at least every ten minutes
UNSEEN_RUNS = 3  # a source not checked for this many intervals of its DAG
UNSEEN_S = 120.0  # and for at least this time
# consequences of a pause, or what it may have been begun for: they are problems again once it ends
UNTOLD_WHILE_PAUSED = ("source", "drain", "lag", "freshness", "unseen", "follower")

DatasetState = Literal[
    "broken", "paused", "failing", "late", "unseen", "behind", "building", "current", "empty", "removed"
]


@dataclass(frozen=True, slots=True)
class AlertThresholds:
    """The thresholds of a dataset's declaration, and its other attributes that affect its state."""

    max_lag: int | None = None
    max_freshness_s: float | None = None
    max_dead_percent: float = MAX_DEAD_PERCENT
    schedule_s: float = 60.0
    is_file: bool = False
    dag: str | None = None

    @classmethod
    def of(cls, dataset: Dataset) -> "AlertThresholds":
        """The thresholds of a declaration."""
        is_file = dataset.source.is_file
        return cls(
            dataset.max_lag,
            dataset.max_freshness_s,
            dataset.max_dead_percent,
            3600.0 if is_file else dataset.schedule_s,
            is_file,
            dataset.dag,
        )


@dataclass(frozen=True, slots=True)
class Overview:
    """A status with its problems, each dataset's state in a word, and the thresholds.

    problems: one per cause. late: for each dataset whose limits are exceeded, or not known, by which one; also if a
    problem explains it. airflow: None if it was not asked.
    """

    status: Status
    problems: Sequence[Problem]
    states: Mapping[str, DatasetState]
    limits: Mapping[str, AlertThresholds]
    faults: Mapping[str, InvalidDeclaration] = field(default_factory=dict)
    late: Sequence[Problem] = ()
    airflow: AirflowHealth | None = None

    def is_declared(self, dataset: str) -> bool:
        """Whether the deployment has a declaration of it, usable or not; if not, it is only in the database."""
        return dataset in self.limits or dataset in self.faults

    def dag_of(self, dataset: str) -> str:
        """The DAG that ingests a dataset, or that says why it cannot."""
        if dataset in self.faults:
            return self.faults[dataset].dag_id
        found = self.limits.get(dataset, AlertThresholds())
        return dag_of(dataset, is_file=found.is_file, dag=found.dag)

    def without_import_messages(self) -> "Overview":
        """The overview for users who may not see Airflow's import errors: file and message are left out."""
        text = "cannot be imported; who may see Airflow's import errors sees why"
        problems = [
            replace(each, about="a DAG file", text=text) if each.kind == "import_error" else each
            for each in self.problems
        ]
        return replace(self, problems=problems)

    def document(self) -> dict[str, Any]:
        """The JSON of /headrace/status and of `headrace status --json`."""
        document = self.status.document()
        for number, dataset in enumerate(self.status.datasets):
            name, plain = dataset.dataset, document["datasets"][number]
            limits = self.limits.get(name, AlertThresholds())
            judged = {
                "state": self.states[name],
                "max_lag": limits.max_lag,
                "max_freshness_s": limits.max_freshness_s,
                "max_dead_percent": limits.max_dead_percent,
                "recent_dead_percent": dataset.recent_dead_percent,
            }
            document["datasets"][number] = {"dataset": plain["dataset"]} | judged | plain
        problems = [problem.document(self.status.at) for problem in self.problems]
        airflow = {} if self.airflow is None else {"airflow": self.airflow.document()}
        return {"at": document.pop("at"), "problems": problems, **airflow, **document}


def find_problems(status: Status, settings: Settings, airflow: AirflowHealth | None = None) -> Overview:
    """Find the problems of a status, with this deployment's declarations, and of Airflow itself."""
    declared = load_declarations(settings.datasets_dir, settings.home)
    limits = {name: AlertThresholds.of(dataset) for name, dataset in declared.datasets.items()}
    return find_problems_by(status, limits, declared.faults, airflow)


def find_problems_by(
    status: Status,
    limits: Mapping[str, AlertThresholds],
    faults: Mapping[str, InvalidDeclaration] = MappingProxyType({}),
    airflow: AirflowHealth | None = None,
) -> Overview:
    """Find the problems by these thresholds and faults; datasets that are no longer declared have neither.

    airflow: the health of Airflow itself; None if it was not asked.
    """
    found = [_of_fault(fault) for fault in faults.values()]
    late = list(found)
    states: dict[str, DatasetState] = {}
    for dataset in status.datasets:
        name = dataset.dataset
        limit = limits.get(name)
        if limit is None:
            states[name] = "broken" if name in faults else "removed"
            continue
        of_dataset = list(_told(dataset, limit, status.at))
        late += [problem for problem in of_dataset if problem.kind in ("lag", "freshness")]
        found += without_consequences(of_dataset)
        states[name] = _state(dataset, {problem.kind for problem in of_dataset})
    found += of_models(status.models)
    if airflow is not None:
        found = with_airflow(found, airflow)
    problems = one_per_cause(found, failed_readers(status.models))
    return Overview(status, problems, states, limits, faults, late, airflow)


def over_thresholds(overview: Overview) -> list[Problem]:
    """The problems that fail the DAG check_freshness: exceeded thresholds, and declarations without readable ones."""
    return list(overview.late)


def _of_fault(fault: InvalidDeclaration) -> Problem:
    error = str(fault.error).removeprefix(f"{fault.name}: ")
    # a module that several declarations import is one cause: their errors differ by their own paths only
    cause = f"declarations cannot be used: {error.replace(str(fault.path), '').strip(': ')}"
    text = f"nothing is ingested: {error}"
    return problem_of(
        "error", "declaration", fault.name, text, Command("describe", fault.name), since=fault.since, cause=cause
    )


def _told(dataset: DatasetStatus, limits: AlertThresholds, at: datetime) -> Iterator[Problem]:
    """The problems of a dataset; of a paused one the pause instead of those that come from not reading."""
    found = _of_dataset(dataset, limits, at)
    if dataset.paused_at is None:
        yield from found
        return
    age = duration((at - dataset.paused_at).total_seconds())
    text = f"paused for {age} by {dataset.paused_by}: {dataset.pause_reason}; nothing is read"
    resume = Command("resume", dataset.dataset)
    yield problem_of("warning", "paused", dataset.dataset, text, resume, since=dataset.paused_at)
    yield from (problem for problem in found if problem.kind not in UNTOLD_WHILE_PAUSED)


def _of_dataset(dataset: DatasetStatus, limits: AlertThresholds, at: datetime) -> Iterator[Problem]:
    name = dataset.dataset
    read = Command("load" if limits.is_file else "drain", name)
    unseen_s = None if dataset.observed_at is None else (at - dataset.observed_at).total_seconds()
    yield from _failures(dataset, read)
    is_unseen = unseen_s is not None and unseen_s > max(UNSEEN_RUNS * limits.schedule_s, UNSEEN_S)
    if is_unseen and dataset.last_error is None:
        text = f"its source has not been checked for {duration(unseen_s)}: is its DAG paused, or the scheduler down?"
        yield problem_of("warning", "unseen", name, text, read, since=dataset.observed_at, cause=UNSEEN)
    yield from _beyond(dataset, limits, at, read)
    if dataset.has_marts and dataset.unbuilt_s > UNBUILT_S:
        text = f"{dataset.unbuilt_batches} batches are not in every mart, the oldest for {duration(dataset.unbuilt_s)}"
        since = at - timedelta(seconds=dataset.unbuilt_s)
        yield problem_of("warning", "unbuilt", name, text, Command("build"), since=since, cause=BEHIND)
    # a run that has checked the source since has taken over
    lost_at = dataset.follower_lost_at
    if lost_at is not None and (dataset.observed_at is None or dataset.observed_at <= lost_at):
        lost = duration((at - lost_at).total_seconds())
        text = f"its follower was lost {lost} ago, and no other run has checked its source since"
        yield problem_of("warning", "follower", name, text, Command("follow", name), since=lost_at, cause=LOST)
    if dataset.recent_dead and dataset.dead_by_reason:  # else all of them were replayed
        most = next(iter(dataset.dead_by_reason))
        text = f"{dataset.recent_dead:,} records became dead letters in the last hour, most often {most}"
        share, expected = dataset.recent_dead_percent, limits.max_dead_percent
        if share is not None:
            text += f": {percent(share)} of its records, expected at most {percent(expected)}"
        is_beyond = share is not None and share > expected
        severity: Severity = "error" if is_beyond else "warning"
        yield problem_of(severity, "dead_letters", name, text, Command("dead-letters", name), since=dataset.dead_since)


def _failures(dataset: DatasetStatus, read: Command) -> Iterator[Problem]:
    """The last plan's error, and the last drain's."""
    name = dataset.dataset
    log = f"headrace follow on {dataset.followed_by}" if dataset.followed_by else None
    if dataset.last_error is not None:
        yield problem_of(
            "error",
            "source",
            name,
            dataset.last_error.removeprefix(f"{name}: "),
            dataset.last_command or read,
            since=dataset.error_since,
            run=dataset.last_run,
            log=log,
            cause=dataset.last_cause,
        )
    if dataset.drain_error is not None:
        at_time = "" if dataset.drain_failed_at is None else f" at {dataset.drain_failed_at:%H:%M:%S} UTC"
        yield problem_of(
            "error",
            "drain",
            name,
            f"its drain failed{at_time}: {dataset.drain_error.removeprefix(f'{name}: ')}",
            dataset.drain_command or read,
            since=dataset.drain_failing_since or dataset.drain_failed_at,
            run=dataset.drain_run,
            log=log,
            cause=dataset.drain_cause,
        )


def _beyond(dataset: DatasetStatus, limits: AlertThresholds, at: datetime, read: Command) -> Iterator[Problem]:
    name = dataset.dataset
    if limits.max_lag is not None and dataset.lag > limits.max_lag:
        text = f"{dataset.lag:,} unread records, expected at most {limits.max_lag:,}"
        since = None if dataset.lag_s is None else at - timedelta(seconds=dataset.lag_s)
        yield problem_of("error", "lag", name, text, read, since=since)
    if limits.max_freshness_s is None or dataset.is_empty:
        return
    allowed = duration(limits.max_freshness_s)
    unseen_s = None if dataset.observed_at is None else (at - dataset.observed_at).total_seconds()
    if dataset.stale_s is None or dataset.stale_s > limits.max_freshness_s:
        waited = "an unknown time" if dataset.stale_s is None else f"up to {duration(dataset.stale_s)}"
        since = None
        if dataset.stale_s is not None:
            since = at - timedelta(seconds=dataset.stale_s - limits.max_freshness_s)
        command = read if dataset.lag else Command("build")
        where = "at the source" if dataset.lag else "in staging"
        text = f"a record has waited {where} for {waited}, expected it in every mart after {allowed}"
        yield problem_of("error", "freshness", name, text, command, since=since, cause=None if dataset.lag else BEHIND)
    elif unseen_s is None or unseen_s > limits.max_freshness_s:
        seen = "never" if unseen_s is None else f"{duration(unseen_s)} ago"
        text = f"its source was last checked {seen}, expected its records in every mart after {allowed}"
        yield problem_of("error", "freshness", name, text, read, since=dataset.observed_at, cause=UNSEEN)


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
