"""Statuses that were made up."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from headrace.monitor.figures import (
    BatchStatus,
    BuildStatus,
    DatasetStatus,
    DeadLetterSample,
    ModelStatus,
    PartitionStatus,
    Status,
    TimeSeries,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=\"alert('2')\">{{ 7 * 7 }}"


def seconds_ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def partition(number: int = 0, **values: Any) -> PartitionStatus:
    given: dict[str, Any] = {
        "partition": number, "next_offset": 1000, "end_offset": 1000, "lag": 0, "lag_s": 0.0,
        "behind_open_transaction": 0, "staged": 990, "dead": 10, "tombstones": 0, "rows_per_s": 12345.0,
        "staging_freshness_s": 0.42, "last_committed_at": seconds_ago(12), "observed_at": seconds_ago(3),
    }  # fmt: skip
    return PartitionStatus(**given | values)


def dataset(name: str = "jobs", **values: Any) -> DatasetStatus:
    given: dict[str, Any] = {
        "dataset": name, "generation": 1, "topic": name, "staging_freshness_s": 0.42, "mart_freshness_s": 1.9,
        "stale_s": 0.0, "staged": 990, "dead": 10, "rows_per_s": 12345.0, "batches": 7, "has_marts": True,
        "last_committed_at": seconds_ago(12), "observed_at": seconds_ago(3), "partitions": [partition()],
    }  # fmt: skip
    return DatasetStatus(**given | values)


def model(name: str = "jobs", **values: Any) -> ModelStatus:
    given: dict[str, Any] = {
        "model": name, "kind": "model", "status": "success", "rows": 10, "seconds": 0.3, "failed_tests": (),
        "message": None, "finished_at": seconds_ago(20), "unbuilt_batches": 0,
    }  # fmt: skip
    return ModelStatus(**given | values)


def dead_letter(**values: Any) -> DeadLetterSample:
    given: dict[str, Any] = {
        "dataset": "jobs", "reason": "invalid_json", "generation": 1, "partition": 0, "offset": 5, "timestamp": None,
        "detail": "no JSON", "json_path": "$", "size": 3, "value": "abc",
    }  # fmt: skip
    return DeadLetterSample(**given | values)


def status(*datasets: DatasetStatus, **values: Any) -> Status:
    names = [each.dataset for each in datasets if not each.is_empty]
    minutes = [int(NOW.timestamp()) - 60 * number for number in reversed(range(60))]
    given: dict[str, Any] = {
        "at": NOW, "datasets": datasets, "models": (), "builds": (), "batches": (), "dead_letters": (),
        "history": TimeSeries(60, minutes, {name: [5] * 60 for name in names}, {name: [0] * 60 for name in names}),
    }  # fmt: skip
    return Status(**given | values)


def batch(**values: Any) -> BatchStatus:
    given: dict[str, Any] = {
        "dataset": "jobs", "seq": 7, "kind": "drain", "partition": 0, "start_offset": 0, "end_offset": 1000,
        "staged": 990, "dead": 10, "tombstones": 0, "seconds": 0.2, "committed_at": seconds_ago(12),
        "dag_id": "ingest_jobs", "run_id": "scheduled__2026-03-01T12:00:00+00:00", "task_id": "drain", "map_index": 0,
    }  # fmt: skip
    return BatchStatus(**given | values)


def build(**values: Any) -> BuildStatus:
    given: dict[str, Any] = {
        "build_id": UUID(int=1), "status": "success", "models": 3, "rows": 100, "passes": 1, "seconds": 4.0,
        "failed_tests": 0, "selection": None, "finished_at": seconds_ago(20),
    }  # fmt: skip
    return BuildStatus(**given | values)
