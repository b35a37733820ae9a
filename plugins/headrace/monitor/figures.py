"""The types of the figures; page, JSON, Prometheus and `headrace status` show the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from headrace.command import Command
from headrace.escaping import visible
from headrace.postgres.ledger import RunContext


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """A partition of a dataset's open generation: a row of the view headrace.status."""

    partition: int
    next_offset: int
    end_offset: int | None
    lag: int
    lag_s: float | None
    behind_open_transaction: int | None
    staged: int
    dead: int
    tombstones: int
    rows_per_s: float | None
    staging_freshness_s: float | None
    last_committed_at: datetime | None
    observed_at: datetime | None
    partition_topic: str | None = None  # of a dataset of several topics, with its partition
    topic_partition: int | None = None

    @property
    def label(self) -> str:
        """`[3]`, of several topics `[3] orders_eu[1]`."""
        topic = "" if self.partition_topic is None else f" {self.partition_topic}[{self.topic_partition}]"
        return f"[{self.partition}]{topic}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetStatus:
    """A dataset: sums over its partitions, and its own figures.

    lag: unread records. lag_s: age of the first of them; None if unknown.
    staging_freshness_s, mart_freshness_s: time from the source to there, of the newest batch's last record.
    stale_s: age of the oldest record that is not in every mart; 0 if all observed records are.
    recent_dead, dead_since: dead letters of the last hour that were neither replayed nor acknowledged, and the first
    one's batch. recent_records: all records of that hour. acknowledged: dead letters that were, and not replayed.
    rows_per_s: while draining, over the last hour. batches: number of ledger lines.
    last_error: why the last plan failed. drain_error: why a drain failed, until its offsets are committed.
    last_command, drain_command: the remedy, if the error has one. last_cause, drain_cause: what it has in common with
    errors of other datasets; None if nothing. error_since, drain_failing_since: when it began. last_run, drain_run: the
    task that met it last; None outside Airflow.
    paused_at, paused_by, pause_reason: of the pause that has not ended (`headrace pause`).
    """

    dataset: str
    generation: int | None = None
    topic: str | None = None
    lag: int = 0
    lag_s: float | None = 0.0
    behind_open_transaction: int = 0
    staging_freshness_s: float | None = None
    mart_freshness_s: float | None = None
    stale_s: float | None = None
    staged: int = 0
    dead: int = 0
    tombstones: int = 0
    ignored: int = 0
    recent_dead: int = 0
    recent_records: int = 0
    dead_since: datetime | None = None
    acknowledged: int = 0
    rows_per_s: float | None = None
    batches: int = 0
    last_committed_at: datetime | None = None
    has_marts: bool = False
    unbuilt_batches: int = 0
    unbuilt_s: float = 0.0
    dead_by_reason: Mapping[str, int] = field(default_factory=dict)
    observed_at: datetime | None = None
    last_error: str | None = None
    last_command: Command | None = None
    last_cause: str | None = None
    error_since: datetime | None = None
    last_run: RunContext | None = None
    drain_error: str | None = None
    drain_command: Command | None = None
    drain_failed_at: datetime | None = None
    drain_cause: str | None = None
    drain_failing_since: datetime | None = None
    drain_run: RunContext | None = None
    followed_by: str | None = None
    follower_lost_at: datetime | None = None
    paused_at: datetime | None = None
    paused_by: str | None = None
    pause_reason: str | None = None
    partitions: Sequence[PartitionStatus] = ()

    @property
    def recent_dead_percent(self) -> float | None:
        """The share of the last hour's records that wait as dead letters; None without records."""
        if not self.recent_records:
            return None
        return min(100.0 * self.recent_dead / self.recent_records, 100.0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever ingested."""
        return self.generation is None


@dataclass(frozen=True, slots=True)
class DeadLetterSample:
    """The beginning of a dead letter, and its reason."""

    dataset: str
    reason: str
    generation: int
    partition: int
    offset: int
    timestamp: str | None  # as Postgres writes it: its year may be beyond Python's range
    detail: str
    json_path: str | None
    size: int | None  # of the value, in bytes; None for a tombstone
    value: str | None  # its beginning; other bytes than text are escaped


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """A line of the ledger."""

    dataset: str
    seq: int
    kind: str
    partition: int
    start_offset: int
    end_offset: int
    staged: int
    dead: int
    tombstones: int
    seconds: float
    committed_at: datetime
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int | None  # -1: of an unmapped task; None: unknown


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The last build of a model; failed_tests are those of its last build with tests.

    message: why it failed; the first line of Postgres's message. behind: of one that was skipped, the models whose
    failure is why. failing_since: when the failure began. reads: the datasets whose batches it claims. run: the task
    that built it last; None outside Airflow.
    """

    model: str
    kind: str
    status: str
    rows: int | None
    seconds: float
    failed_tests: Sequence[str]
    message: str | None
    finished_at: datetime
    unbuilt_batches: int
    behind: Sequence[str] = ()
    failing_since: datetime | None = None
    reads: Sequence[str] = ()
    run: RunContext | None = None


@dataclass(frozen=True, slots=True)
class BuildStatus:
    """A build, with its models summed up."""

    build_id: UUID
    status: str
    models: int
    rows: int
    passes: int
    seconds: float
    failed_tests: int
    selection: str | None
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class MinuteSeries:
    """The last hour by minute: committed records, and the lag at each minute's end."""

    minutes: Sequence[int]  # their starts, in seconds since 1970
    rows: Mapping[str, Sequence[int]]
    lag: Mapping[str, Sequence[int | None]]


@dataclass(frozen=True, slots=True)
class Status:
    """All figures of one snapshot."""

    at: datetime
    datasets: Sequence[DatasetStatus]
    models: Sequence[ModelStatus]
    builds: Sequence[BuildStatus]
    batches: Sequence[BatchStatus]
    dead_letters: Sequence[DeadLetterSample]
    history: MinuteSeries

    def document(self) -> dict[str, Any]:
        """The figures as JSON types; times are ISO 8601."""
        document: dict[str, Any] = _plain(self)
        return document


def _plain(value: Any) -> Any:
    """JSON types, with texts in visible characters; secrets were masked when the texts were stored.

    dataclasses.asdict took four times as long: seconds for 10,000 datasets.
    """
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {visible(str(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        if all(type(each) in _NUMBERS for each in value):
            return list(value)
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, str | UUID | Command):
        return visible(str(value))
    return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}


_NUMBERS = {int, float, type(None)}
