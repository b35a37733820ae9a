"""Drains that are killed, cut off, frozen or in each other's way: exactly once all the same."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from headrace.deployment import Deployment
from headrace.exceptions import CheckpointMoved, DatabaseUnavailable, HeadraceError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.plan import Plan
from headrace.ingest.runner import RunOptions, drain_plan, plan, remaining_plan
from headrace.postgres.lock_watchdog import LockTimeouts
from tests.support.interrupts import STEPS, CuttingProxy, apart, at, drain, drain_that_gets, wait_until_stopped
from tests.support.jobs import send_jobs
from tests.support.ledger_checks import assert_ledger, assert_nothing_left, environment
from tests.support.stage import Stage

HEADRACE = Path(sys.executable).with_name("headrace")
SLOW = (
    "create function slow() returns trigger language plpgsql as $$begin perform pg_sleep(0.05); return new; end$$",
    "create trigger slow before insert on headrace.batches for each row execute function slow()",
)


def with_batch_rows(stage: Stage, rows: int) -> Stage:
    return with_settings(stage, batch_rows=rows)


def with_settings(stage: Stage, **settings: Any) -> Stage:
    return Stage(Deployment.from_settings(replace(stage.deployment.settings, **settings)), stage.dsn)


def _heed_interrupts() -> None:
    # a shell starts what it puts in the background with SIGINT ignored, and processes inherit that
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def headrace(stage: Stage, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A running `headrace` command, in a session of its own, which is gone at the end."""
    process = subprocess.Popen(
        [HEADRACE, *arguments],
        env=environment(stage.deployment.settings),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_heed_interrupts,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # workers too: they hold the pipes
        process.communicate()


def assert_session_ended(session: int) -> None:
    """Assert that no process of a session runs any more, or will in a moment."""
    for _ in range(100):
        left = [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if session_of(path) == session]
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"still running: {left}")


def session_of(stat: Path) -> int | None:
    try:
        state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
    except OSError:
        return None
    return None if state == "Z" else int(session)


def wait_for_batches(stage: Stage, count: int) -> None:
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        for _ in range(3_000):
            if connection.execute("select count(*) from headrace.batches").fetchall()[0][0] >= count:
                return
            time.sleep(0.005)
    raise AssertionError(f"no {count} batches in time")


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
    [(signal.SIGKILL, "1"), (signal.SIGTERM, "1"), (signal.SIGINT, "1"), (signal.SIGKILL, "3"), (signal.SIGINT, "3")],
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
    assert stderr == "headrace: jobs: a process of the drain was killed; what it had committed stays; drain again\n"
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
            assert blocking.wait(5)
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
