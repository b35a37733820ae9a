"""A follower's schedule: which models a build includes, under a steady flow, in a pause and after an error."""

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from headrace.follow import schedule
from headrace.follow.schedule import Schedule, Selection
from headrace.marts.build import BuildResult
from headrace.marts.claims import NodeResult
from headrace.marts.readers import Readers

READERS = {
    "jobs": Readers(("jobs",), ("per_minute", "latest", "revenues", "top")),
    "events": Readers(("events",), ("per_minute",)),
    "unread": Readers(),
}


def result(seconds: Mapping[str, float], readers: Mapping[str, Readers] = READERS) -> BuildResult:
    now = datetime.now(UTC)
    nodes = tuple(
        NodeResult("marts", model, "model", "success", 1, spent, (), None, now, now) for model, spent in seconds.items()
    )
    return BuildResult(uuid4(), (nodes,), 0.0, readers)


@pytest.fixture
def steady(monkeypatch: pytest.MonkeyPatch) -> Schedule:
    """Everything was built once; each model that reads models takes half a share."""
    monkeypatch.setattr(schedule, "SHARE_S", 0.2)
    made = Schedule()
    first = made.next()
    assert first == Selection(None)
    made.built(first, result(dict.fromkeys(("jobs", "events", "per_minute", "latest", "revenues", "top"), 0.1)))
    assert made.next() is None
    return made


def build(made: Schedule, *datasets: str) -> list[str]:
    for dataset in datasets:
        made.add(dataset)
    selection = made.next()
    assert selection is not None and selection.select is not None
    made.built(selection, result({}))
    return selection.select


def test_schedule_takes_models_that_read_models_in_turns_under_a_steady_flow(steady: Schedule) -> None:
    assert build(steady, "jobs") == ["jobs", "per_minute", "latest"]
    assert build(steady, "jobs") == ["jobs", "revenues", "top"]
    assert build(steady, "jobs", "events") == ["events", "jobs", "per_minute", "latest"]


def test_schedule_takes_a_model_that_needs_more_than_a_share_alone(steady: Schedule) -> None:
    assert build(steady, "jobs") == ["jobs", "per_minute", "latest"]
    steady.add("jobs")
    selection = steady.next()
    assert selection is not None
    steady.built(selection, result({"per_minute": 5.0}))
    assert build(steady, "jobs") == ["jobs", "per_minute"]
    assert build(steady, "jobs") == ["jobs", "latest", "revenues"]


def test_schedule_builds_all_that_is_due_in_a_pause_and_then_waits(steady: Schedule) -> None:
    build(steady, "jobs")
    assert steady.seconds_left == 0
    assert build(steady) == ["revenues", "top"]
    assert steady.seconds_left is None
    build(steady, "jobs")
    assert steady.seconds_left == pytest.approx(schedule.FURTHER_S, abs=0.5)
    assert steady.next() is None
    steady.build_due()
    assert build(steady) == ["revenues", "top"]


def test_schedule_builds_nothing_for_a_dataset_without_models(steady: Schedule) -> None:
    steady.add("unread")
    assert steady.next() is None


def test_schedule_builds_all_models_of_a_dataset_that_it_does_not_know(steady: Schedule) -> None:
    assert build(steady, "rides") == ["source:staging.rides+,resource_type:model"]


def test_schedule_builds_a_failed_dataset_as_a_whole_after_a_recheck(steady: Schedule) -> None:
    steady.add("jobs")
    selection = steady.next()
    assert selection is not None
    steady.failed(selection)
    steady.add("jobs")
    assert steady.next() is None  # it would fail again
    # a model that failed reads both datasets
    assert build(steady, "rides") == ["source:staging.rides+,resource_type:model"]
    steady.recheck(())
    again = steady.next()
    assert again is not None
    assert again.select == [f"source:staging.{name}+,resource_type:model" for name in ("events", "jobs")]
    assert steady.built(again, result({}))


def test_schedule_builds_everything_again_after_that_failed() -> None:
    made = Schedule()
    whole = made.next()
    assert whole is not None
    made.failed(whole)
    assert made.next() is None
    made.recheck(())
    assert made.next() == Selection(None)
