"""Reset: delete what was staged of a dataset, so that the next drain starts from scratch."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.exceptions import CheckpointMoved
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.repair.generations import preview_reset, reset
from headrace.verify import verify
from tests.support import topics
from tests.support.interrupts import at, drain
from tests.support.jobs import produce_jobs, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, assert_nothing_left, totals
from tests.support.stage import Stage


def test_reset_and_drain_come_to_the_same_totals(stage: Stage, tmp_path: Path) -> None:
    produce_jobs(stage, tmp_path / "jobs.kafka", 1_000)
    drain_dataset(stage.deployment, "jobs")
    before = totals(stage)
    built = stage.value("select built from headrace.datasets where dataset = 'jobs'")
    deleted = reset(stage.deployment, stage.deployment.dataset("jobs"))
    assert deleted["staged"] + deleted["dead"] == 1_000
    for table in ("staging.jobs", "headrace.dead_letters", "headrace.checkpoints"):
        assert stage.value(f"select count(*) from {table}") == 0
    line = stage.query("select seq, kind, generation, staged, note from headrace.batches")
    counts = f"{deleted['staged']} staged, {deleted['dead']} dead, {deleted['batches']} batches, 3 checkpoints"
    assert line == [(1, "reset", 1, 0, f"deleted {counts}")]
    assert stage.value("select built from headrace.datasets where dataset = 'jobs'") != built
    drain_dataset(stage.deployment, "jobs")
    assert totals(stage) == before
    assert verify(stage.deployment, "jobs").is_clean
    assert stage.query("select distinct _generation from staging.jobs") == [(2,)]
    assert_ledger(stage)


def test_reset_of_nothing_deletes_nothing_and_can_be_repeated(stage: Stage) -> None:
    for _ in range(2):
        assert preview_reset(stage.deployment, stage.deployment.dataset("jobs")) == []
        assert set(reset(stage.deployment, stage.deployment.dataset("jobs")).values()) == {0}
        assert stage.value("select count(*) from headrace.batches") == 0
    sent = send_jobs(stage, 10)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_reset_of_one_dataset_leaves_the_others(stage: Stage) -> None:
    send_jobs(stage, 10)
    drain_dataset(stage.deployment, "jobs")
    load_file(stage.deployment, "users")
    before = totals(stage, "users")
    reset(stage.deployment, stage.deployment.dataset("jobs"))
    assert totals(stage, "users") == before
    assert load_file(stage.deployment, "users").unchanged


def test_reset_keeps_the_lines_of_earlier_ones_and_says_what_it_would_do(stage: Stage) -> None:
    dataset = stage.deployment.dataset("jobs")
    for number in (1, 2):
        sent = send_jobs(stage, 10, 1)
        drain_dataset(stage.deployment, "jobs")
        topics.delete_records(servers(stage), topic_of(stage), {0: number})
        drain_dataset(stage.deployment, "jobs")  # looks at the source
        first, gone = preview_reset(stage.deployment, dataset)
        assert first.startswith(f"jobs: deletes {10 * number - number + 1} staged, 0 dead, ")
        assert gone == (
            f"jobs[0]: what is staged of [0, {number}) cannot be read again: the source did not serve it when it was "
            "last checked"
        )
        assert stage.value("select count(*) from staging.jobs") == 10 * number - number + 1
        reset(stage.deployment, dataset)
    lines = stage.query("select seq, kind, generation from headrace.batches order by seq")
    assert lines == [(1, "reset", 1), (2, "reset", 2)]
    drain_dataset(stage.deployment, "jobs")
    assert verify(stage.deployment, "jobs", deep=True).is_clean
    assert_ledger(stage, [(0, n) for n in range(2, 20)])
    assert len(sent) == 10


@pytest.mark.parametrize("step", ["fetched", "advanced", "staged", "before_commit", "committed"])
def test_reset_while_a_drain_runs_waits_for_its_batch_and_fences_the_next(step: str, stage: Stage) -> None:
    sent = send_jobs(stage, 1_000, 1)
    dataset = stage.deployment.dataset("jobs")
    done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        futures: list[Future[Any]] = []

        def begin() -> None:
            futures.append(pool.submit(reset, stage.deployment, dataset))
            futures[0].add_done_callback(lambda _: done.set())
            done.wait(0.5)  # inside the drain's transaction the reset has to wait for it

        with pytest.raises(CheckpointMoved, match="generation 1 is closed or gone"):
            drain(stage, at(step, begin))
        futures[0].result(10)
    assert stage.value("select count(*) from staging.jobs") == 0
    assert stage.query("select kind from headrace.batches") == [("reset",)]
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)
    assert_nothing_left(stage)
