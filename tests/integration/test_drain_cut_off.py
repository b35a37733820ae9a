"""Drains that lose their connection, meet a deadlock or wait for a lock: every batch is committed once."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from headrace.exceptions import DatabaseUnavailable
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import drain_plan, plan
from headrace.postgres.lock_watchdog import LockTimeouts
from tests.support.interrupts import CuttingProxy, at, drain
from tests.support.jobs import send_jobs
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.stage import Stage, with_batch_rows, with_settings


@pytest.mark.parametrize("mode", ["before", "after", "late"])
@pytest.mark.parametrize("cuts", [1, 3])
def test_drain_cut_off_at_commit_commits_its_batch_exactly_once(mode: str, cuts: int, stage: Stage) -> None:
    sent = send_jobs(stage, 100, 1)
    dataset = stage.deployment.dataset("jobs")
    planned = plan(stage.deployment, dataset)
    with CuttingProxy(stage.dsn, mode, cuts) as proxy:
        behind_proxy = with_settings(stage, postgres_dsn=proxy.dsn, batch_rows=50)
        result = drain_plan(behind_proxy.deployment, dataset, planned)
        assert proxy.cuts == 0
    assert result.records == 100
    assert_ledger(stage, sent)
    assert_nothing_left(stage)


def test_drain_cut_off_at_every_commit_gives_up_and_leaves_the_ledger_right(stage: Stage) -> None:
    sent = send_jobs(stage, 100, 1)
    dataset = stage.deployment.dataset("jobs")
    planned = plan(stage.deployment, dataset)
    with CuttingProxy(stage.dsn, "before", 1_000) as proxy, pytest.raises(DatabaseUnavailable) as caught:
        drain_plan(with_settings(stage, postgres_dsn=proxy.dsn).deployment, dataset, planned)
    assert "\n" not in str(caught.value)
    assert_ledger(stage, [])
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


@pytest.mark.parametrize("step", ["advanced", "staged", "before_commit", "committed"])
def test_drain_whose_backend_is_terminated_tries_again(step: str, stage: Stage) -> None:
    sent = send_jobs(stage, 100, 1)

    def terminate() -> None:
        killed = stage.query(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and application_name = 'headrace drain jobs'"
        )
        assert killed == [(True,)]
        time.sleep(0.05)

    drain(with_batch_rows(stage, 50), at(step, terminate, occurrence=1))
    assert_ledger(stage, sent)


def test_drain_in_a_deadlock_tries_again(stage: Stage) -> None:
    sent = send_jobs(stage, 50, 1)
    database = stage.value("select current_database()")
    stage.execute(f"alter database {database} set deadlock_timeout = '100ms'")
    blocking = threading.Event()

    def rival() -> None:
        with psycopg.connect(stage.dsn) as connection:
            connection.execute("set deadlock_timeout = '20s'")
            connection.execute("select 1 from headrace.datasets where dataset = 'jobs' for update")
            blocking.set()
            connection.execute("update headrace.checkpoints set updated_at = now() where dataset = 'jobs'")

    with ThreadPoolExecutor(1) as pool:
        futures: list[Any] = []

        def meet() -> None:
            futures.append(pool.submit(rival))
            assert blocking.wait(30)
            time.sleep(0.1)

        drain(stage, at("advanced", meet, occurrence=1))
        futures[0].result(10)
    assert_ledger(stage, sent)


def test_drain_that_waits_too_long_for_a_lock_tries_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LockTimeouts, "server_lock_timeout_ms", property(lambda _: 50))
    sent = send_jobs(stage, 50, 1)
    dataset = stage.deployment.dataset("jobs")
    planned = plan(stage.deployment, dataset)
    with psycopg.connect(stage.dsn) as rival:
        rival.execute("update headrace.checkpoints set updated_at = now() where dataset = 'jobs'")
        threading.Timer(0.4, rival.commit).start()
        drain_plan(stage.deployment, dataset, planned)
    assert_ledger(stage, sent)


def test_drain_that_waits_for_ever_for_a_lock_gives_up_in_one_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LockTimeouts, "server_lock_timeout_ms", property(lambda _: 10))
    sent = send_jobs(stage, 50, 1)
    dataset = stage.deployment.dataset("jobs")
    planned = plan(stage.deployment, dataset)
    with psycopg.connect(stage.dsn) as rival:
        rival.execute("update headrace.checkpoints set updated_at = now() where dataset = 'jobs'")
        with pytest.raises(
            DatabaseUnavailable, match=r"^postgres: canceling statement due to lock timeout.*nothing was"
        ) as e:
            drain_plan(stage.deployment, dataset, planned)
        assert "\n" not in str(e.value)
        assert rival.execute("select 1").fetchone() == (1,)  # not a drain of ours: it was not ended
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)
