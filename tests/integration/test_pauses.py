"""Paused datasets: nothing reads them until they are resumed, and everything says why."""

import json
import threading
import time
from uuid import uuid4

import pytest

from headrace.airflow import connections
from headrace.airflow.compat import AirflowSkipException
from headrace.airflow.operators import DrainOperator, LoadOperator, PlanOperator
from headrace.exceptions import DatasetPaused, UsageError
from headrace.follow.leases import held_lease
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.pauses import pause_dataset, resume_dataset
from headrace.ingest.plans import plan_together
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.marts.build import BuildResult
from headrace.postgres.ledger import RunContext
from headrace.repair.reload import reload_range
from headrace.verify import verify
from tests.support import topics
from tests.support.command_line import assert_refused, run
from tests.support.following import Following, until
from tests.support.interrupts import at
from tests.support.jobs import job, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, environment
from tests.support.stage import Stage, with_batch_rows

WHY = "the broker is upgraded"


def staged(stage: Stage) -> int:
    return int(stage.value("select count(*) from staging.jobs"))


def test_paused_dataset_is_neither_drained_nor_loaded_and_every_command_says_why(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    send_jobs(stage, 30)
    done = run(stage, "pause", "jobs", "users", "--why", f" {WHY}\n", "--json")
    first = json.loads(done.stdout)["datasets"][0]
    assert (done.status, first["why"], first["changed"]) == (0, WHY, True)
    assert "@" in first["paused_by"]

    refused = f"jobs: paused by {first['paused_by']} since "
    nowhere = {"HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}  # the source is not asked
    assert_refused(run(stage, "drain", "jobs", **nowhere), refused, f"UTC: {WHY}; ", "`headrace resume jobs`")
    assert_refused(run(stage, "load", "users"), "users: paused by ", WHY)
    again = run(stage, "pause", "jobs", "--why", "another")
    assert (again.status, again.stdout.startswith(f"jobs: is paused by {first['paused_by']}")) == (0, True)
    assert f"jobs: paused by {first['paused_by']} since" in run(stage, "datasets").stdout
    assert run(stage, "describe", "jobs").stdout.startswith(refused)
    figures = json.loads(run(stage, "status", "--json").stdout)["datasets"]
    found = [(each["state"], each["pause_reason"]) for each in figures if each["dataset"] in ("jobs", "users")]
    assert found == [("paused", WHY), ("paused", WHY)]
    assert run(stage, "status", "--check").status == 1

    jobs = stage.deployment.dataset("jobs")
    assert reload_range(stage.deployment, jobs, "0", "5", partition=0).partitions[0].replaced == 5
    assert verify(stage.deployment, "jobs", deep=True).is_clean
    assert staged(stage) == 30
    assert not stage.value("select exists (select from headrace.observations where error is not null)")

    assert "jobs: resumed; it was paused by" in run(stage, "resume", "jobs").stdout
    assert run(stage, "resume", "jobs").stdout == "jobs: is not paused\n"
    drain_dataset(stage.deployment, "jobs")
    assert staged(stage) == 60
    history = stage.query(
        "select dataset, why, resumed_at > paused_at, resumed_by = paused_by, resumed_login = paused_login "
        "from headrace.pauses order by dataset"
    )
    assert history == [("jobs", WHY, True, True, True), ("users", WHY, None, None, None)]


def test_drain_whose_dataset_is_paused_meanwhile_commits_its_batch_and_ends(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("headrace.postgres.pauses.WATCH_S", 0.0)
    sent = send_jobs(stage, 400)
    ours = with_batch_rows(stage, 10).deployment
    jobs = ours.dataset("jobs")
    barrier = at("committed", lambda: pause_dataset(ours, "jobs", WHY), occurrence=1)
    result = drain_plan(ours, jobs, plan(ours, jobs), options=RunOptions(barrier=barrier))
    assert 10 <= result.records < 400
    assert f"{WHY}; this drain ended after its last batch" in caplog.text
    assert staged(stage) == result.records
    resume_dataset(ours, "jobs")
    drain_dataset(ours, "jobs")
    assert staged(stage) == 400
    assert_ledger(stage, sent)


def test_tasks_of_a_paused_dataset_are_skipped_with_the_reason(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(stage.deployment.settings).items():
        if name.startswith("HEADRACE_"):
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(connections, "run_context", RunContext)
    send_jobs(stage, 30)
    (share,) = PlanOperator(task_id="plan", dataset="jobs").execute({})
    pause_dataset(stage.deployment, "jobs", WHY)
    pause_dataset(stage.deployment, "users", WHY)
    for task in (
        PlanOperator(task_id="plan_2", dataset="jobs"),
        DrainOperator(task_id="drain", dataset="jobs", share=share),  # it was planned before
        LoadOperator(task_id="load", dataset="users"),
    ):
        with pytest.raises(AirflowSkipException, match=f"paused by .*: {WHY}; nothing was read; `headrace resume "):
            task.execute({})
    assert staged(stage) == 0


def test_follow_leaves_a_dataset_while_it_is_paused_and_goes_on_by_itself(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.follow.follower.RECHECK_S", 0.5)
    monkeypatch.setattr("headrace.follow.follower.build", lambda *_, **__: BuildResult(uuid4(), (), 0.0))
    ours = stage.deployment

    def count_is(number: int) -> bool:
        return stage.value("select to_regclass('staging.jobs') is not null") and staged(stage) == number

    send_jobs(stage, 3)
    with Following(ours) as following:
        until(lambda: count_is(3))
        pause_dataset(ours, "jobs", WHY)
        until(lambda: held_lease(ours, "jobs") is None)
        assert following.lines[-1].startswith("jobs: paused by") and following.lines[-1].endswith(WHY)
        topics.send(servers(stage), topic_of(stage), [(0, b"7", job(7))])
        time.sleep(2)
        assert count_is(3)
        resume_dataset(ours, "jobs")
        until(lambda: count_is(4))
        assert held_lease(ours, "jobs") is not None
        assert following.said("jobs: resumed") == 1


def test_pause_is_of_two_at_once_the_first_and_its_reason_is_a_text(stage: Stage) -> None:
    for why, message in ((" \n", "--why: found a blank text"), ("x" * 1001, "expected at most 1000")):
        with pytest.raises(UsageError, match=message):
            pause_dataset(stage.deployment, "jobs", why)
    barrier, begun = threading.Barrier(4), []

    def begin(number: int) -> None:
        barrier.wait()
        begun.append(pause_dataset(stage.deployment, "jobs", f"reason {number}"))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(is_new for _, is_new in begun) == [False, False, False, True]
    assert len({pause.why for pause, _ in begun}) == 1
    assert stage.value("select count(*) from headrace.pauses") == 1
    with pytest.raises(DatasetPaused):
        drain_dataset(stage.deployment, "jobs")
    planned = plan_together(stage.deployment, [stage.deployment.dataset("jobs")], RunContext())
    assert (list(planned.paused), planned.plans, planned.errors) == (["jobs"], [], {})
