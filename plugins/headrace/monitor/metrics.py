"""The figures in Prometheus's text format."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from headrace.escaping import visible
from headrace.monitor.figures import DatasetStatus, ModelStatus
from headrace.monitor.problems import Overview

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# name, help, and the figure of a dataset that has ingested something
_OF_DATASETS: Sequence[tuple[str, str, Callable[[DatasetStatus], float | None]]] = (
    ("headrace_lag_seconds", "How long the first unread record has waited.", lambda each: each.lag_s),
    (
        "headrace_staging_freshness_seconds",
        "From source to staging, of the newest batch.",
        lambda each: each.staging_freshness_s,
    ),
    (
        "headrace_mart_freshness_seconds",
        "From source to every mart, of the newest batch that all have.",
        lambda each: each.mart_freshness_s,
    ),
    (
        "headrace_stale_seconds",
        "Age of the oldest record that is not in every mart; 0 when all are.",
        lambda each: each.stale_s,
    ),
    (
        "headrace_unbuilt_batches",
        "Ledger lines that not every mart has.",
        lambda each: each.unbuilt_batches if each.has_marts else None,
    ),
    (
        "headrace_last_batch_timestamp_seconds",
        "When the newest batch was committed.",
        lambda each: _epoch(each.last_committed_at),
    ),
    (
        "headrace_observed_timestamp_seconds",
        "When the source was last checked.",
        lambda each: _epoch(each.observed_at),
    ),
)
# likewise of a model of dbt
_OF_MODELS: Sequence[tuple[str, str, Callable[[ModelStatus], float | None]]] = (
    (
        "headrace_model_up",
        "Whether the model's last build succeeded and its last tests passed.",
        lambda each: each.status == "success" and not each.failed_tests,
    ),
    ("headrace_model_failed_tests", "Data tests that failed when they last ran.", lambda each: len(each.failed_tests)),
    ("headrace_model_rows", "Rows that the last build wrote.", lambda each: each.rows),
    ("headrace_model_build_seconds", "How long the last build of the model took.", lambda each: each.seconds),
    (
        "headrace_model_built_timestamp_seconds",
        "When the model was last built.",
        lambda each: each.finished_at.timestamp(),
    ),
)


def exposition(overview: Overview | None) -> bytes:
    """All metrics; for None, because the database did not answer, only headrace_up 0."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(overview))
    return visible(generate_latest(registry).decode(), keep="\n").encode()


class _Collector(Collector):
    def __init__(self, overview: Overview | None) -> None:
        self._overview = overview

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("headrace_up", "Whether Headrace's tables could be read.", value=bool(self._overview))
        if self._overview is None:
            return
        yield GaugeMetricFamily(
            "headrace_figures_timestamp_seconds",
            "When the figures were read.",
            value=self._overview.status.at.timestamp(),
        )
        # datasets that are no longer declared are left out: their lag would never fall
        declared = [each for each in self._overview.status.datasets if self._overview.is_declared(each.dataset)]
        datasets = [dataset for dataset in declared if not dataset.is_empty]
        yield from _records(datasets)
        yield from _freshness(datasets)
        yield from _states(datasets, declared, self._overview)
        yield from _limits(datasets, self._overview)
        yield from _dead_letters(datasets)
        yield from _models(self._overview)
        yield from _airflow(self._overview)
        yield from _problems(self._overview)


def _records(datasets: list[DatasetStatus]) -> Iterator[Metric]:
    lag = GaugeMetricFamily(
        "headrace_lag_records", "Unread records at the last check of the source.", labels=("dataset", "partition")
    )
    waiting = GaugeMetricFamily(
        "headrace_open_transaction_records", "Offsets that wait for an open transaction.", labels=("dataset",)
    )
    rows = CounterMetricFamily(
        "headrace_rows", "Records of the open generation, by outcome.", labels=("dataset", "outcome")
    )
    for dataset in datasets:
        for partition in dataset.partitions:
            lag.add_metric((dataset.dataset, str(partition.partition)), partition.lag)
        waiting.add_metric((dataset.dataset,), dataset.behind_open_transaction)
        for outcome, count in (
            ("staged", dataset.staged),
            ("dead", dataset.dead),
            ("tombstone", dataset.tombstones),
            ("ignored", dataset.ignored),
        ):
            rows.add_metric((dataset.dataset, outcome), count)
    yield from (lag, waiting, rows)


def _freshness(datasets: list[DatasetStatus]) -> Iterator[Metric]:
    for name, text, value in _OF_DATASETS:
        yield _gauge(name, text, {each.dataset: value(each) for each in datasets})


def _states(datasets: list[DatasetStatus], declared: list[DatasetStatus], overview: Overview) -> Iterator[Metric]:
    yield _gauge(
        "headrace_source_failing",
        "Whether the last plan failed.",
        {each.dataset: each.last_error is not None for each in declared},
    )
    yield _gauge(
        "headrace_drain_failing",
        "Whether a drain failed and its offsets are not yet committed.",
        {each.dataset: each.drain_error is not None for each in declared},
    )
    yield _gauge(
        "headrace_declaration_up",
        "Whether the dataset's declaration can be used.",
        dict.fromkeys(overview.limits, 1) | dict.fromkeys(overview.faults, 0),
    )
    yield _gauge(
        "headrace_followed",
        "Whether a follower holds the dataset's lease.",
        {each.dataset: each.followed_by is not None for each in datasets},
    )
    yield _gauge(
        "headrace_paused",
        "Whether the dataset is paused: it is not read, and its lag is no problem.",
        {each.dataset: each.paused_at is not None for each in declared},
    )
    yield _gauge(
        "headrace_paused_timestamp_seconds",
        "When the dataset was paused.",
        {each.dataset: _epoch(each.paused_at) for each in declared},
    )


def _limits(datasets: list[DatasetStatus], overview: Overview) -> Iterator[Metric]:
    yield _gauge(
        "headrace_check_interval_seconds",
        "How often the source is checked by its DAG.",
        {each.dataset: limits.schedule_s for each in datasets if (limits := overview.limits.get(each.dataset))},
    )
    yield _gauge(
        "headrace_max_lag_records",
        "The declaration's max_lag.",
        {each.dataset: limits.max_lag for each in datasets if (limits := overview.limits.get(each.dataset))},
    )
    yield _gauge(
        "headrace_max_dead_percent",
        "The declaration's max_dead_percent.",
        {each.dataset: limits.max_dead_percent for each in datasets if (limits := overview.limits.get(each.dataset))},
    )
    yield _gauge(
        "headrace_max_freshness_seconds",
        "The declaration's max_freshness_s.",
        {each.dataset: limits.max_freshness_s for each in datasets if (limits := overview.limits.get(each.dataset))},
    )


def _dead_letters(datasets: list[DatasetStatus]) -> Iterator[Metric]:
    dead_letters = GaugeMetricFamily(
        "headrace_dead_letters", "Dead letters that were not replayed.", labels=("dataset", "reason")
    )
    for dataset in datasets:
        for reason, count in dataset.dead_by_reason.items():
            dead_letters.add_metric((dataset.dataset, reason), count)
    yield dead_letters
    yield _gauge(
        "headrace_acknowledged_dead_letters",
        "Dead letters that were acknowledged and not replayed.",
        {each.dataset: each.acknowledged for each in datasets},
    )
    yield _gauge(
        "headrace_recent_dead_percent",
        "The share of the last hour's records that are dead letters, neither replayed nor acknowledged.",
        {each.dataset: each.recent_dead_percent for each in datasets},
    )


def _models(overview: Overview) -> Iterator[Metric]:
    models = [model for model in overview.status.models if model.kind == "model"]
    for name, text, value in _OF_MODELS:
        yield _gauge(name, text, {each.model: value(each) for each in models}, "model")


def _airflow(overview: Overview) -> Iterator[Metric]:
    health = overview.airflow
    if health is None or health.error is not None:
        return
    known = [each for each in health.components if each.is_healthy is not None]
    yield _gauge(
        "headrace_airflow_up",
        "Whether a component of Airflow that was ever started has a recent heartbeat.",
        {each.name: each.is_healthy for each in known},
        "component",
    )
    yield _gauge(
        "headrace_airflow_heartbeat_timestamp_seconds",
        "The last heartbeat of a component of Airflow.",
        {each.name: _epoch(each.heartbeat_at) for each in known},
        "component",
    )
    yield GaugeMetricFamily(
        "headrace_dag_import_errors", "DAG files that Airflow cannot import.", value=len(health.import_errors)
    )


def _problems(overview: Overview) -> Iterator[Metric]:
    problems = GaugeMetricFamily("headrace_problems", "Problems that the page shows.", labels=("severity",))
    for severity in ("error", "warning"):
        problems.add_metric((severity,), sum(each.severity == severity for each in overview.problems))
    yield problems


def _gauge(name: str, text: str, values: Mapping[str, float | None], label: str = "dataset") -> Metric:
    """A gauge with one label; what is not known has no sample."""
    gauge = GaugeMetricFamily(name, text, labels=(label,))
    for key, value in values.items():
        if value is not None:
            gauge.add_metric((key,), float(value))
    return gauge


def _epoch(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
