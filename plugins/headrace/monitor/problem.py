"""A problem: what an operator has to know and to do, one per cause."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, TypedDict, Unpack

from headrace.command import Command
from headrace.durations import duration
from headrace.monitor.runbook import address
from headrace.output import shown
from headrace.postgres.ledger import RunContext

# causes that several datasets share
UNSEEN = "sources are not checked"
LOST = "a follower was lost"
BEHIND = "the marts are behind"

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
    "airflow",
    "import_error",
]


class Known(TypedDict, total=False):
    """What may be known of a problem: see Problem."""

    dataset: str | None
    datasets: Sequence[str]
    models: Sequence[str]
    since: datetime | None
    run: RunContext | None
    log: str | None
    cause: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """A fault for an operator; `command` remedies or explains it.

    about: a dataset, a model as marts.<model>, or what several of them share, such as a broker that does not answer.
    dataset: the only one that it is about, if there is one. datasets, models: all that are affected.
    since: when it began, as far as is known. run: the task that failed last, whose log tells more.
    log: where its log is, if no task has it. cause: problems with the same one are one problem; None for one of a
    dataset's own.
    """

    severity: Severity
    kind: ProblemKind
    about: str
    text: str
    command: Command
    dataset: str | None = None
    datasets: Sequence[str] = ()
    models: Sequence[str] = ()
    since: datetime | None = None
    run: RunContext | None = None
    log: str | None = None
    cause: str | None = None

    @property
    def runbook(self) -> str:
        """The section of the runbook: docs/runbook.md#<section>."""
        return address(self.kind, self.text)

    @property
    def log_text(self) -> str | None:
        """Where its log is, in words."""
        if self.run is None:
            return self.log
        task = "" if self.run.task_id is None else f", task {self.run.task_id}"
        mapped = "" if self.run.map_index in (None, -1) else f"[{self.run.map_index}]"
        attempt = "" if self.run.try_number is None else f", try {self.run.try_number}"
        return shown(f"Airflow: DAG {self.run.dag_id}, run {self.run.run_id}{task}{mapped}{attempt}")

    def age(self, at: datetime) -> str | None:
        """How long it has lasted, for people; None if that is not known."""
        return None if self.since is None else duration(max((at - self.since).total_seconds(), 0.0))

    def line(self) -> str:
        """One line for a log."""
        return f"{self.about}: {self.text}; run `{self.command}`"

    def document(self, at: datetime) -> dict[str, Any]:
        """The problem as JSON types; at: now."""
        values = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("run", "cause")}
        return values | {
            "command": str(self.command),
            "datasets": list(self.datasets),
            "models": list(self.models),
            "since": None if self.since is None else self.since.isoformat(timespec="milliseconds"),
            "age_s": None if self.since is None else round((at - self.since).total_seconds(), 1),
            "runbook": self.runbook,
            "log": self.log_text,
        }


def problem_of(
    severity: Severity, kind: ProblemKind, about: str, text: str, command: Command, **known: Unpack[Known]
) -> Problem:
    """A problem of the dataset `about`, in visible characters; known: what else is known of it."""
    name = shown(about)
    given: dict[str, Any] = {"dataset": about, "datasets": (name,), **known}
    for field in ("log", "cause"):
        given[field] = None if given.get(field) is None else shown(" ".join(given[field].split()))
    return Problem(severity, kind, name, shown(" ".join(text.split())), command, **given)
