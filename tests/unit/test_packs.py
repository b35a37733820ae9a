"""Packs: how the plans of many datasets become tasks, and what one that fails leaves undisturbed."""

from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import CheckpointMoved, DatabaseUnavailable, SourceError, SourceUnavailable
from headrace.ingest import packs
from headrace.ingest.drain import DrainResult
from headrace.ingest.packs import PackResult, drain_pack
from headrace.ingest.plan import Plan
from headrace.ingest.plans import PACK_DATASETS, Plans
from headrace.ingest.runner import RunOptions
from headrace.settings import Settings
from headrace.sources.base import Range

SETTINGS = Settings(drain_parallel_lag=1_000, drain_parallel_max=3)


def plan(name: str, *lags: int, start: int = 0) -> Plan:
    return Plan(name, 1, name, "id", {p: Range(start, start + lag) for p, lag in enumerate(lags)})


def names(found: list[list[Plan]]) -> list[list[str]]:
    return [[each.dataset for each in pack] for pack in found]


def planned(*plans: Plan, **attributes: dict[str, Any]) -> Plans:
    """attributes: of a dataset what is not the default."""
    defaults = {"priority": 1, "max_records_per_s": None}
    made = {each.dataset: SimpleNamespace(**(defaults | attributes.get(each.dataset, {}))) for each in plans}
    return Plans(plans=list(plans), datasets=cast(dict[str, Dataset], made))


def test_small_plans_share_a_pack_and_a_large_one_has_tasks_of_its_own() -> None:
    found = planned(plan("small", 10), plan("large", 600, 600, 600), plan("other", 20))
    assert names(found.packs(SETTINGS)) == [["large"], ["large"], ["large"], ["other", "small"]]


def test_packs_are_as_even_as_possible_and_limited_however_many_datasets_there_are() -> None:
    found = planned(*(plan(f"d{n:03}", 1 + n % 7) for n in range(10 * PACK_DATASETS)))
    made = found.packs(SETTINGS)
    assert sorted(name for pack in names(made) for name in pack) == [each.dataset for each in found.plans]
    lags = [sum(each.lag for each in pack) for pack in made]
    assert len(lags) == 3
    assert max(lags) - min(lags) <= 7
    assert Plans(idle=["d"]).packs(SETTINGS) == []


def test_highest_priority_is_first_and_a_rate_limit_lets_no_other_dataset_wait() -> None:
    limited = {"max_records_per_s": 5}
    found = planned(
        plan("a", 9), plan("slow", 90), plan("b", 2), plan("fits", 5), b={"priority": 3}, slow=limited, fits=limited
    )
    assert names(found.packs(SETTINGS)) == [["slow"], ["b", "a", "fits"]]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Exception]]:
    """Errors of the next drains, by dataset; a drain without one commits everything."""
    errors: dict[str, list[Exception]] = {}
    committed: dict[str, int] = {}

    def drain(deployment: Any, dataset: Any, left: Plan, *, options: RunOptions) -> DrainResult:
        result = DrainResult(dataset.name)
        if left.ranges:
            result.batches = 1
            if errors.get(dataset.name):
                if dataset.name == "half":
                    options.on_progress(result)
                raise errors[dataset.name].pop(0)
            result.seconds = deployment.settings.max_retries
            committed[dataset.name] = left.ends[0]
        return result

    monkeypatch.setattr(packs, "drain_plan", drain)
    monkeypatch.setattr(packs, "remaining_plan", lambda _, given: given.remaining(committed_of(given.dataset), {}))

    def committed_of(name: str) -> dict[int, int]:
        return {0: committed[name]} if name in committed else {}

    committed["before"] = 7  # of an attempt that was killed
    return errors


def run(*plans: Plan) -> PackResult:
    def opened(name: str) -> tuple[Deployment, Dataset]:
        made = Deployment(Settings(), lambda _: lambda: None, dict, str)  # type: ignore[arg-type, return-value]
        return made, cast(Dataset, SimpleNamespace(name=name, max_records_per_s=None))

    return drain_pack(opened, plans, RunOptions())


def test_dataset_that_fails_in_a_pack_stops_no_other_and_is_named(failing: dict[str, list[Exception]]) -> None:
    failing["half"], failing["wrong"] = [SourceError("bad batch")], [ValueError("odd")]
    done = run(plan("first", 5), plan("wrong", 5), plan("half", 5), plan("last", 5))
    assert [each.dataset for each in done.drained] == ["first", "last"]
    assert sorted(done.errors) == ["half", "wrong"]
    assert done.committed == {"first", "half", "last"}  # half committed a batch before it failed


def test_pack_that_is_tried_again_drains_what_is_left_and_names_all_that_it_committed(
    failing: dict[str, list[Exception]],
) -> None:
    done = run(plan("before", 7), plan("other", 5))
    assert [each.dataset for each in done.drained] == ["other"]
    assert done.committed == {"before", "other"}


def test_another_run_s_commit_leaves_the_rest_to_a_second_attempt(failing: dict[str, list[Exception]]) -> None:
    failing["moved"], failing["down"] = [CheckpointMoved("another run")], [SourceUnavailable("no answer")]
    done = run(plan("down", 5), plan("moved", 5), plan("fine", 5))
    assert sorted(done.errors) == ["down"]
    # the others do not wait for a broker that did not answer: their retries are 0
    assert [(each.dataset, each.seconds) for each in done.drained] == [("fine", 0), ("moved", 0)]


def test_pack_ends_at_once_when_postgres_cannot_be_reached(failing: dict[str, list[Exception]]) -> None:
    gone = DatabaseUnavailable("postgres did not answer")
    gone.__cause__ = psycopg.OperationalError("connection refused")
    failing["first"] = [gone]
    with pytest.raises(DatabaseUnavailable):
        run(plan("first", 5), plan("second", 5))
