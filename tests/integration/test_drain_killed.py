"""Drains that are killed, cut off, frozen or concurrent: still exactly once."""

import os
import re
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import psutil
import pytest

from headrace.exceptions import CheckpointMoved, HeadraceError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.plan import Plan
from headrace.ingest.runner import RunOptions, drain_plan, plan, remaining_plan
from tests.support.interrupts import STEPS, apart, at, drain, drain_that_gets, wait_until_stopped
from tests.support.jobs import send_jobs
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.sessions import assert_session_ended, headrace, wait_for_batches
from tests.support.stage import Stage, with_batch_rows, with_settings

SLOW = (
    "create function slow() returns trigger language plpgsql as $$begin perform pg_sleep(0.05); return new; end$$",
    "create trigger slow before insert on headrace.batches for each row execute function slow()",
)


@pytest.mark.parametrize("step", STEPS)
def test_drain_killed_at_any_step_goes_on_where_it_was(step: str, stage: Stage) -> None:
    stage = with_batch_rows(stage, 20)
    sent = send_jobs(stage, 200)
    with drain_that_gets(signal.SIGKILL, step, stage) as process:
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
    assert_nothing_left(stage)
    assert_ledger(stage)
    assert 0 < stage.value("select count(*) from staging.jobs") < 200
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_retry_of_a_pinned_plan_goes_on_behind_what_its_killed_attempt_committed(stage: Stage) -> None:
    """As Airflow retries a mapped drain: with the share that its plan task pinned."""
    sent = send_jobs(stage, 200)
    deployment, jobs = stage.deployment, stage.deployment.dataset("jobs")
    pinned = plan(deployment, jobs)
    assert remaining_plan(deployment, pinned) == pinned
    drain_plan(deployment, jobs, pinned.limited(90))
    retried = Plan.from_dict(pinned.to_dict())
    with pytest.raises(CheckpointMoved):
        drain_plan(deployment, jobs, retried)
    assert drain_plan(deployment, jobs, remaining_plan(deployment, retried)).records == 110
    assert_ledger(stage, sent)
    assert remaining_plan(deployment, retried).ranges == {}


@pytest.mark.parametrize(
    ("number", "parallel"),
    [(signal.SIGKILL, "1"), (signal.SIGTERM, "1"), (signal.SIGKILL, "3"), (signal.SIGINT, "3")],
    ids=lambda value: getattr(value, "name", value),
)
def test_drain_command_that_gets_a_signal_leaves_nothing_behind_and_the_next_one_completes_it(
    number: signal.Signals, parallel: str, stage: Stage
) -> None:
    stage = with_batch_rows(stage, 20)
    stage.execute(*SLOW)
    sent = send_jobs(stage, 900)
    with headrace(stage, "drain", "jobs", "--parallel", parallel) as process:
        wait_for_batches(stage, 3)
        if number is signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        process.wait(10)
        assert process.returncode != 0
        assert_session_ended(process.pid)  # the workers of a drain end with it
        assert_nothing_left(stage)
    assert_ledger(stage)
    assert 0 < stage.value("select count(*) from staging.jobs") < 900
    stage.execute("drop trigger slow on headrace.batches")
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


@pytest.mark.parametrize("victim", ["worker", "server that workers are forked from"])
def test_drain_whose_worker_is_killed_says_so_in_one_line(stage: Stage, victim: str) -> None:
    stage = with_batch_rows(stage, 20)
    stage.execute(*SLOW)
    sent = send_jobs(stage, 900)
    with headrace(stage, "drain", "jobs", "--parallel", "3") as process:
        wait_for_batches(stage, 2)
        children = psutil.Process(process.pid).children()
        server = next(child for child in children if "forkserver" in " ".join(child.cmdline()))
        workers = server.children()
        assert len(workers) == 3
        (workers[0] if victim == "worker" else server).kill()
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 1
    assert stderr == "headrace: jobs: a process of the drain was killed; its commits stay; drain again\n"
    psutil.wait_procs(workers, timeout=20)
    assert not any(worker.is_running() for worker in workers)
    assert_nothing_left(stage)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_drain_interrupted_inside_its_transaction_leaves_nothing_locked(stage: Stage) -> None:
    stage = with_batch_rows(stage, 20)
    sent = send_jobs(stage, 100)

    def interrupt() -> None:
        raise KeyboardInterrupt

    for step in STEPS:
        with pytest.raises(KeyboardInterrupt):
            drain(stage, at(step, interrupt, occurrence=1))
        assert_nothing_left(stage)
        assert_ledger(stage)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_drains_at_once_of_the_same_plan_commit_every_batch_once(stage: Stage) -> None:
    stage = with_batch_rows(stage, 50)
    sent = send_jobs(stage, 300)
    dataset = stage.deployment.dataset("jobs")
    planned = plan(stage.deployment, dataset)
    meeting = threading.Barrier(4)

    def run(_: int) -> HeadraceError | None:
        try:
            drain_plan(
                stage.deployment,
                dataset,
                planned,
                options=RunOptions(barrier=at("fetched", lambda: meeting.wait(20), occurrence=1)),
            )
        except CheckpointMoved as error:
            return error
        return None

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(run, range(4)))
    assert [outcome for outcome in outcomes if outcome]
    assert all(
        re.fullmatch(
            r"jobs\[\d\]: checkpoint is \d+, this batch starts at \d+: another run committed first; retry the task",
            str(o),
        )
        for o in outcomes
        if o
    )
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_drain_commands_at_once_end_well_or_say_that_another_was_first(stage: Stage) -> None:
    stage = with_batch_rows(stage, 20)
    sent = send_jobs(stage, 1_200)
    with headrace(stage, "drain", "jobs") as first, headrace(stage, "drain", "jobs") as second:
        for process in (first, second):
            _, stderr = process.communicate(timeout=30)
            if process.returncode:
                assert process.returncode == 1
                assert re.fullmatch(
                    r"headrace: jobs\[\d\]: checkpoint is .* another run committed first; retry the task\n", stderr
                )
            else:
                assert stderr == ""
        assert 0 in (first.returncode, second.returncode)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


@pytest.mark.parametrize("step", ["advanced", "staged", "before_commit"])
def test_drain_frozen_in_its_transaction_is_ended_by_its_replacement_and_writes_nothing_later(
    step: str, stage: Stage
) -> None:
    stage = with_settings(stage, batch_rows=20, lock_timeout_ms=100, stuck_after_ms=400)
    sent = send_jobs(stage, 100, 1)
    with drain_that_gets(signal.SIGSTOP, step, stage) as frozen:
        wait_until_stopped(frozen)
        drain_dataset(stage.deployment, "jobs")
        assert_ledger(stage, sent)
        os.kill(frozen.pid, signal.SIGCONT)
        frozen.join(20)
        assert frozen.exitcode == 1  # CheckpointMoved
    assert_ledger(stage, sent)
    assert_nothing_left(stage)


def test_drain_frozen_before_its_transaction_finds_its_batch_taken_and_writes_nothing(stage: Stage) -> None:
    stage = with_batch_rows(stage, 20)
    sent = send_jobs(stage, 100, 1)
    with drain_that_gets(signal.SIGSTOP, "fetched", stage, occurrence=1) as frozen:
        wait_until_stopped(frozen)
        drain_dataset(stage.deployment, "jobs")
        os.kill(frozen.pid, signal.SIGCONT)
        frozen.join(20)
        assert frozen.exitcode == 1
    assert_ledger(stage, sent)


def drain_then_fork_and_drain(stage: Stage) -> None:
    drain_dataset(stage.deployment, "jobs", max_records=10)
    process = get_context("fork").Process(target=drain_dataset, args=(stage.deployment, "jobs"))
    process.start()
    process.join(20)
    assert process.exitcode == 0
    assert stage.value("select count(*) from staging.jobs") == 30


def test_drain_in_a_forked_process_shares_nothing_with_its_parent(stage: Stage) -> None:
    sent = send_jobs(stage, 30)
    with apart(drain_then_fork_and_drain, stage) as parent:
        parent.join(30)
        assert parent.exitcode == 0
    assert_ledger(stage, sent)
