"""Reloads that are killed, frozen or concurrent: the whole range is replaced, or nothing."""

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from threading import Event

import psutil
import psycopg
import pytest

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from tests.support import topics
from tests.support.interrupts import apart, at, killed_at, signal_itself, wait_until_stopped
from tests.support.jobs import jobs, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_nothing_left, assert_proven, coordinates
from tests.support.reloads import CONTENT, reload_lines, reloaded, state
from tests.support.stage import Stage


@pytest.mark.parametrize("step", ["shelved", "held", "before_commit"])
def test_reload_killed_at_any_step_changes_nothing_and_the_next_one_does_it(step: str, stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [*jobs(300), (0, b"bad", b"bad")])
    drain_dataset(stage.deployment, "jobs")
    content = stage.query(CONTENT)
    stage.execute("update staging.jobs set location = 'WRONG'")
    before = state(stage)
    killed_at(step, reloaded, stage, "1970-01-01", "2100-01-01")
    assert_nothing_left(stage)
    assert state(stage) == before
    reloaded(stage, "1970-01-01", "2100-01-01")
    assert stage.query(CONTENT) == content
    assert_proven(stage)


def test_reload_lets_a_drain_go_on_while_it_reads(stage: Stage) -> None:
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    sent: list[tuple[int, int]] = []

    def drain_more() -> None:
        sent.extend(send_jobs(stage, 90))
        drain_dataset(stage.deployment, "jobs")

    result = reloaded(stage, "1970-01-01", "2100-01-01", barrier=at("read", drain_more, occurrence=1))
    assert [(each.start, each.end) for each in result.partitions] == [(0, 100)] * 3
    assert len(sent) == 90
    assert len(coordinates(stage)) == 390
    batches = "select distinct kind from staging.jobs inner join headrace.batches on _batch_id = batch_id where _offset"
    assert stage.query(f"{batches} < 100") == [("reload",)]
    assert stage.query(f"{batches} >= 100") == [("drain",)]
    assert_proven(stage)


def test_reload_and_drain_that_meet_take_turns(stage: Stage) -> None:
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    send_jobs(stage, 90)
    holding, waiting = Event(), Event()

    def hold() -> None:
        holding.set()
        assert waiting.wait(20)

    with ThreadPoolExecutor(2) as pool:
        reload = pool.submit(reloaded, stage, 0, 100, 0, barrier=at("held", hold, occurrence=1))
        assert holding.wait(20)
        drain = pool.submit(drain_dataset, stage.deployment, "jobs")
        with psycopg.connect(stage.dsn, autocommit=True) as connection:
            waits = (
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            for _ in range(200):
                if connection.execute(waits).fetchone() != (0,):
                    break
                connection.execute("select pg_sleep(0.05)")
            else:
                pytest.fail("the drain did not wait")
        waiting.set()
        reload.result(30)
        drain.result(30)
    assert len(coordinates(stage)) == 390
    assert_proven(stage)


def test_reload_frozen_with_its_lock_is_ended_by_a_drain_and_changes_nothing(stage: Stage) -> None:
    settings = replace(stage.deployment.settings, lock_timeout_ms=100, stuck_after_ms=400)
    stage = replace(stage, deployment=Deployment.from_settings(settings))
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    before = state(stage)
    send_jobs(stage, 90)
    barrier = at("replaced", partial(signal_itself, signal.SIGSTOP), occurrence=1)
    with apart(reloaded, stage, "1970-01-01", "2100-01-01", barrier=barrier) as frozen:
        wait_until_stopped(frozen)
        drain_dataset(stage.deployment, "jobs")
        psutil.Process(frozen.pid).resume()
        frozen.join(20)
        assert frozen.exitcode == 1
    assert len(coordinates(stage)) == 390
    assert state(stage)[1:3] == before[1:3]
    assert reload_lines(stage) == []
    assert_proven(stage)


def test_reloads_of_the_same_range_at_once_leave_one_row_each(stage: Stage) -> None:
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    content = stage.query(CONTENT)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: reloaded(stage, 0, 100, 1), range(3)))
    assert stage.query(CONTENT) == content
    assert stage.value("select count(*) from staging._replaced_jobs") == 300
    assert_proven(stage)
