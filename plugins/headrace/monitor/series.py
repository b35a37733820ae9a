"""The charts of the last hour: committed records and lag, by minute."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from psycopg import Connection

from headrace.monitor.figures import DatasetStatus, MinuteSeries
from headrace.sql_files import read_sql

MINUTES = 60


def read_history(connection: Connection[Any], at: datetime, datasets: Sequence[DatasetStatus]) -> MinuteSeries:
    """Read the hour before `at`; every dataset that ever ingested anything has a line."""
    this_minute = at.replace(second=0, microsecond=0)
    first = this_minute - timedelta(minutes=MINUTES - 1)
    committed = connection.execute(read_sql("headrace.monitor", "committed_by_minute"), (first,)).fetchall()
    # also the sample before the first minute: it has the topic's end at that time
    samples = connection.execute(read_sql("headrace.monitor", "samples"), (first,)).fetchall()
    minutes = [first + timedelta(minutes=number) for number in range(MINUTES)]
    shown = [each for each in datasets if not each.is_empty]
    return MinuteSeries(
        [int(minute.timestamp()) for minute in minutes],
        _records(minutes, shown, committed),
        _lags(minutes, shown, committed, samples),
    )


def _records(
    minutes: Sequence[datetime], datasets: Sequence[DatasetStatus], committed: Iterable[Sequence[Any]]
) -> dict[str, list[int]]:
    """Records committed per dataset and minute."""
    index_of = {minute: number for number, minute in enumerate(minutes)}
    counts = {each.dataset: [0] * len(minutes) for each in datasets}
    for dataset, _partition, _generation, minute, records, _end in committed:
        if dataset in counts and minute in index_of:
            counts[dataset][index_of[minute]] += records
    return counts


def _lags(
    minutes: Sequence[datetime],
    datasets: Sequence[DatasetStatus],
    committed: Iterable[Sequence[Any]],
    samples: Iterable[Sequence[Any]],
) -> dict[str, list[int | None]]:
    """Lag per dataset at the end of each minute: the sum over its partitions, None without a sample."""
    generations = {each.dataset: each.generation for each in datasets}
    known = set(minutes)
    reached: dict[tuple[str, int], dict[datetime, int]] = {}
    for dataset, partition, generation, minute, _records_of, end in committed:
        if minute in known and end is not None and generation == generations.get(dataset):
            reached.setdefault((dataset, partition), {})[minute] = end
    seen: dict[tuple[str, int], dict[datetime, tuple[int, int]]] = {}
    for dataset, partition, minute, end, next_offset in samples:
        seen.setdefault((dataset, partition), {})[minute] = (end, next_offset)
    lags: dict[str, list[int | None]] = {each.dataset: [None] * len(minutes) for each in datasets}
    for each in datasets:
        line = lags[each.dataset]
        for status in each.partitions:
            key = each.dataset, status.partition
            behind = _lag_by_minute(minutes, seen.get(key, {}), reached.get(key, {}))
            behind[-1] = status.lag  # the newest minute equals the current figure
            for number, lag in enumerate(behind):
                if lag is not None:
                    line[number] = (line[number] or 0) + lag
    return lags


def _lag_by_minute(
    minutes: Sequence[datetime], seen: Mapping[datetime, tuple[int, int]], reached: Mapping[datetime, int]
) -> list[int | None]:
    """A partition's lag at the end of each minute: the last observed end of its topic minus the checkpoint.

    Within a minute the sample, the largest lag that a plan found, counts: a drain right after it would hide it.
    """
    lag: list[int | None] = []
    end: int | None = None
    position: int | None = None
    for minute in sorted(minute for minute in seen if minute < minutes[0]):
        end, position = seen[minute]
    for minute in minutes:
        sample = seen.get(minute)
        if sample is not None:
            end, position = sample
        worst = None if end is None or position is None else max(end - position, 0)
        if minute in reached:
            position = max(reached[minute], position or 0)
        lag.append(worst)
    return lag
