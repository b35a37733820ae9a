"""Rate limits and priorities of datasets, in drains, in parallel drains and while following."""

import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from headrace.airflow.ingest_dag import ingest_dag
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.marts.build import BuildResult
from tests.support.following import Following, until
from tests.support.jobs import send_jobs
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage


def declare(stage: Stage, name: str = "jobs", **options: Any) -> None:
    """Declare a dataset that reads the topic of jobs."""
    folder = stage.deployment.settings.datasets_dir
    text = (folder / "jobs.py").read_text().replace('name="jobs"', f'name="{name}"')
    given = "".join(f"    {option}={value!r},\n" for option, value in options.items())
    (folder / f"{name}.py").write_text(text.replace("DATASET = Dataset(\n", f"DATASET = Dataset(\n{given}"))


def assert_pace(stage: Stage, dataset: str, per_s: float, bursts: int) -> None:
    """In no time between two commits more than its rate and the given number of bursts."""
    lines = stage.query(
        "select extract(epoch from committed_at)::float8, staged from headrace.batches "
        "where dataset = %s and staged > 0 order by committed_at",
        dataset,
    )
    for first, (began, _) in enumerate(lines):
        for last in range(first, len(lines)):
            read = sum(staged for _, staged in lines[first : last + 1])
            assert read <= (lines[last][0] - began) * per_s + bursts * per_s, lines


@pytest.mark.parametrize("parallel", [1, 2])
def test_drain_keeps_the_rate_of_its_dataset_in_all_of_its_processes_together(stage: Stage, parallel: int) -> None:
    declare(stage, max_records_per_s=80)
    sent = send_jobs(stage, 240)
    began = time.monotonic()
    _, result = drain_dataset(stage.deployment, "jobs", parallel=parallel)
    assert time.monotonic() - began >= 2
    assert result.records == 240
    # commits come when their turn comes: behind a delayed one the next may follow at once
    assert_pace(stage, "jobs", 80, 2)
    assert_ledger(stage, sent)


def test_drain_that_is_stopped_ends_in_its_rest_without_a_transaction(stage: Stage) -> None:
    declare(stage, max_records_per_s=0.01)
    send_jobs(stage, 30)
    jobs, stop = stage.deployment.dataset("jobs"), threading.Event()
    ended = threading.Event()

    def drain() -> None:
        drain_plan(stage.deployment, jobs, plan(stage.deployment, jobs), options=RunOptions(stop=stop.is_set))
        ended.set()

    threading.Thread(target=drain).start()
    until(lambda: stage.value("select count(*) from headrace.batches where staged > 0") == 1)
    assert stage.query("select from pg_stat_activity where state like %s", "idle in transaction%") == []
    assert not ended.is_set()
    stop.set()
    assert ended.wait(20)
    assert stage.value("select count(*) from staging.jobs") == 1


def test_follower_drains_by_priority_and_waits_for_no_rate_limit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_to_build = BuildResult(uuid4(), (), 0.0)
    monkeypatch.setattr("headrace.follow.follower.build", lambda *_, **__: nothing_to_build)
    declare(stage, "jobs_2", priority=5)
    declare(stage, max_records_per_s=20)
    sent = send_jobs(stage, 90)
    with Following(stage.deployment, ("jobs", "jobs_2")) as following:
        until(lambda: following.said("jobs_2: 90 records"), 60)
        assert following.lines[0].startswith("jobs_2: 90 records")
        assert not following.said("jobs: 90 records")
        until(lambda: stage.value("select count(*) from staging.jobs") == 90, 60)
    assert_pace(stage, "jobs", 20, 2)
    assert_ledger(stage, sent)
    assert {task.priority_weight for task in ingest_dag(stage.deployment.dataset("jobs_2")).tasks} == {5}
