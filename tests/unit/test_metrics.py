"""Prometheus's text format, read back by the library's own parser."""

import re

from prometheus_client.parser import text_string_to_metric_families

from headrace.catalog import InvalidDeclaration
from headrace.exceptions import DatasetError
from headrace.monitor.airflow_health import AirflowHealth, ComponentHealth
from headrace.monitor.metrics import CONTENT_TYPE, exposition
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from tests.support.statuses import HOSTILE, dataset, model, partition, seconds_ago, status

OVERVIEW = find_problems_by(
    status(
        dataset(
            "jobs",
            lag=30,
            lag_s=4.5,
            stale_s=4.5,
            staged=990,
            dead=10,
            tombstones=2,
            dead_by_reason={"wrong_type": 7, HOSTILE: 1},
            partitions=[partition(0, lag=30), partition(1)],
            followed_by="host:1",
            paused_at=seconds_ago(90),
        ),
        dataset("users", lag_s=0.0, has_marts=False, mart_freshness_s=None, drain_error="no space left"),
        dataset("gone", lag=5, partitions=[partition(0, lag=5)]),
        dataset("rides", generation=None, last_error="no broker"),
        models=[model("jobs"), model("users", status="error"), model("rides", failed_tests=["a", "b"])],
    ),
    {
        "jobs": AlertThresholds(max_lag=20, max_freshness_s=60.0),
        "users": AlertThresholds(schedule_s=3600),
        "rides": AlertThresholds(),
    },
    {"events": InvalidDeclaration("events", DatasetError("a typo"))},
    airflow=AirflowHealth([ComponentHealth("scheduler", True, seconds_ago(2))]),
)

OF_EMPTY_ONES = ("headrace_source_failing", "headrace_drain_failing", "headrace_declaration_up", "headrace_paused")


def samples(overview: Overview | None) -> dict[tuple[str, ...], float]:
    text = exposition(overview).decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_have_the_figures_of_the_status() -> None:
    found = samples(OVERVIEW)
    assert found["headrace_up",] == 1
    assert found["headrace_lag_records", "jobs", "0"] == 30
    assert found["headrace_lag_records", "jobs", "1"] == 0
    assert found["headrace_lag_seconds", "jobs"] == 4.5
    assert found["headrace_stale_seconds", "jobs"] == 4.5
    assert found["headrace_staging_freshness_seconds", "jobs"] == 0.42
    assert found["headrace_mart_freshness_seconds", "jobs"] == 1.9
    assert found["headrace_rows_total", "jobs", "staged"] == 990
    assert found["headrace_rows_total", "jobs", "tombstone"] == 2
    assert found["headrace_dead_letters", "jobs", "wrong_type"] == 7
    assert found["headrace_dead_letters", "jobs", HOSTILE] == 1
    assert found["headrace_last_batch_timestamp_seconds", "jobs"] == seconds_ago(12).timestamp()
    assert (found["headrace_followed", "jobs"], found["headrace_followed", "users"]) == (1, 0)
    assert (found["headrace_paused", "jobs"], found["headrace_paused", "users"]) == (1, 0)
    assert found["headrace_paused_timestamp_seconds", "jobs"] == seconds_ago(90).timestamp()
    assert (found["headrace_source_failing", "rides"], found["headrace_source_failing", "jobs"]) == (1, 0)
    assert (found["headrace_max_lag_records", "jobs"], found["headrace_max_freshness_seconds", "jobs"]) == (20, 60)
    assert (found["headrace_check_interval_seconds", "jobs"], found["headrace_check_interval_seconds", "users"]) == (
        60,
        3600,
    )
    assert [found["headrace_model_up", name] for name in ("jobs", "users", "rides")] == [1, 0, 0]
    assert found["headrace_model_failed_tests", "rides"] == 2
    assert (found["headrace_problems", "error"], found["headrace_problems", "warning"]) == (5, 1)
    assert (found["headrace_declaration_up", "jobs"], found["headrace_declaration_up", "events"]) == (1, 0)
    assert (found["headrace_drain_failing", "jobs"], found["headrace_drain_failing", "users"]) == (0, 1)


def test_metrics_leave_out_what_is_unknown() -> None:
    names = samples(OVERVIEW).keys()
    assert ("headrace_mart_freshness_seconds", "users") not in names
    assert ("headrace_unbuilt_batches", "users") not in names
    assert ("headrace_max_lag_records", "users") not in names
    assert not [
        name for name in names if name[0] not in OF_EMPTY_ONES and name[1:2] == ("rides",) and "model" not in name[0]
    ]
    assert not [name for name in names if "gone" in name]  # no longer declared: its lag would never fall


def test_metrics_without_a_database_say_only_that() -> None:
    assert samples(None) == {("headrace_up",): 0}


def test_metrics_are_named_and_explained_as_prometheus_asks() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    for family in text_string_to_metric_families(exposition(OVERVIEW).decode()):
        assert re.fullmatch(r"headrace_[a-z_]+", family.name)
        assert family.documentation
        assert family.type in ("gauge", "counter")
