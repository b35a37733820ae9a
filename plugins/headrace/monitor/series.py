"""The charts: committed records, dead letters, lag and freshness of each dataset by bucket of time."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from headrace.monitor.figures import DatasetStatus, TimeSeries
from headrace.sql_files import read_sql

# samples before the first bucket, from which its lag is known
BEFORE_S = 600


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A range of time up to now, in buckets. name: in the page's address."""

    name: str
    label: str
    bucket_s: int
    buckets: int

    @property
    def bucket_label(self) -> str:
        """A bucket's length in words."""
        if self.bucket_s == 60:
            return "minute"
        return f"{self.bucket_s // 60} min" if self.bucket_s < 3600 else f"{self.bucket_s // 3600} h"


HOUR = TimeRange("1h", "hour", 60, 60)
RANGES: Mapping[str, TimeRange] = {
    each.name: each
    for each in (
        HOUR,
        TimeRange("6h", "6 h", 300, 72),
        TimeRange("24h", "24 h", 1200, 72),
        TimeRange("7d", "7 d", 7200, 84),
    )
}


def read_series(
    connection: Connection[Any], at: datetime, datasets: Sequence[DatasetStatus], wanted: TimeRange = HOUR
) -> TimeSeries:
    """Read the range before `at`, from the ledger and the samples of lag; the database sums the buckets.

    The last bucket contains `at`. rows and lag have every dataset that ever ingested anything.
    """
    bucket_s = wanted.bucket_s
    first = int(at.timestamp()) // bucket_s * bucket_s - bucket_s * (wanted.buckets - 1)
    parameters = {"bucket_s": bucket_s, "first": first, "before": first - max(BEFORE_S, bucket_s)}
    committed = connection.execute(read_sql("headrace.monitor", "committed_by_bucket"), parameters).fetchall()
    samples = connection.execute(read_sql("headrace.monitor", "lag_by_bucket"), parameters).fetchall()
    shown = [each for each in datasets if not each.is_empty]
    return TimeSeries(
        bucket_s,
        [first + number * bucket_s for number in range(wanted.buckets)],
        lag=_lags(wanted.buckets, shown, committed, samples),
        **_committed(wanted.buckets, shown, committed),
    )


def _committed(buckets: int, datasets: Sequence[DatasetStatus], committed: Iterable[Sequence[Any]]) -> dict[str, Any]:
    """What was committed by bucket. Datasets without a record share one list of zeros."""
    none = [0] * buckets
    rows: dict[str, list[int]] = {each.dataset: none for each in datasets}
    dead: dict[str, list[int]] = {}
    freshness: dict[str, list[float | None]] = {}
    drained: dict[str, tuple[int, float]] = {}
    for dataset, _, _, bucket, records, died, _, freshness_s, seconds in committed:
        if dataset not in rows or not 0 <= bucket < buckets:
            continue
        if records:
            if rows[dataset] is none:
                rows[dataset] = [0] * buckets
            rows[dataset][bucket] += records
            sums = drained.get(dataset, (0, 0.0))
            drained[dataset] = sums[0] + records, sums[1] + seconds
        if died:
            dead.setdefault(dataset, [0] * buckets)[bucket] += died
        if freshness_s is not None:
            line = freshness.setdefault(dataset, [None] * buckets)
            line[bucket] = max(freshness_s, line[bucket] or 0.0)
    rates = {dataset: records / seconds for dataset, (records, seconds) in drained.items() if seconds > 0}
    return {"rows": rows, "dead": dead, "freshness_s": freshness, "rows_per_s": rates}


def _lags(
    buckets: int,
    datasets: Sequence[DatasetStatus],
    committed: Iterable[Sequence[Any]],
    samples: Iterable[Sequence[Any]],
) -> dict[str, list[int | None]]:
    """The largest lag per dataset and bucket: the sum over its partitions, None without a sample."""
    generations = {each.dataset: each.generation for each in datasets}
    reached: dict[tuple[str, int], dict[int, int]] = {}
    for dataset, partition, generation, bucket, _, _, end, *_ in committed:
        if end is not None and generation == generations.get(dataset):
            reached.setdefault((dataset, partition), {})[bucket] = end
    seen: dict[tuple[str, int], dict[int, tuple[int, int, int]]] = {}
    for dataset, partition, bucket, end, next_offset, lag in samples:
        seen.setdefault((dataset, partition), {})[bucket] = end, next_offset, lag
    lags: dict[str, list[int | None]] = {each.dataset: [None] * buckets for each in datasets}
    for each in datasets:
        line = lags[each.dataset]
        for status in each.partitions:
            key = each.dataset, status.partition
            behind = _lag_by_bucket(buckets, seen.get(key, {}), reached.get(key, {}))
            behind[-1] = status.lag  # the newest point equals the current figure
            for number, lag in enumerate(behind):
                if lag is not None:
                    line[number] = (line[number] or 0) + lag
    return lags


def _lag_by_bucket(
    buckets: int, seen: Mapping[int, tuple[int, int, int]], reached: Mapping[int, int]
) -> list[int | None]:
    """A partition's largest lag in each bucket: that of its samples, else its last end minus its checkpoint.

    A sample is the largest lag that plans found in a minute: a drain right after it would hide it. Buckets below 0 are
    before the range.
    """
    lag: list[int | None] = []
    end: int | None = None
    position: int | None = None
    for bucket in sorted(bucket for bucket in seen if bucket < 0):
        end, position, _ = seen[bucket]
    for bucket in range(buckets):
        sample = seen.get(bucket)
        worst = None if end is None or position is None else max(end - position, 0)
        if sample is not None:
            end, position, worst = sample
        lag.append(worst)
        if bucket in reached:
            position = max(reached[bucket], position or 0)
    return lag
