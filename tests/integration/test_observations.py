"""What plans and drains record: samples of the lag, and their errors."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headrace.deployment import Deployment
from headrace.exceptions import (
    CheckpointMoved,
    DatabaseError,
    DatasetError,
    FileSourceError,
    SettingError,
    SourceChanged,
    SourceError,
    TopicMissing,
)
from headrace.ingest import observations, runner
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import drain_plan, plan
from headrace.monitor.problems import Overview, find_problems
from headrace.monitor.status import read_status
from headrace.postgres.connection import database as connected
from headrace.postgres.ledger import RunContext
from headrace.repair.generations import adopt, reset
from tests.support import topics
from tests.support.jobs import send_jobs, servers, topic_of
from tests.support.stage import Stage


def overview(stage: Stage) -> Overview:
    return find_problems(read_status(stage.deployment.connect("test")), stage.deployment.settings)


def test_topic_recreated_is_a_problem_with_its_command_until_it_is_adopted(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    assert overview(stage).problems == []
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 3)
    with pytest.raises(SourceChanged):
        drain_dataset(stage.deployment, "jobs")
    found = overview(stage)
    assert found.states["jobs"] == "failing"
    assert [str(problem.command) for problem in found.problems] == ["headrace adopt jobs"]
    assert "it was deleted and created again" in found.problems[0].text
    adopt(stage.deployment, stage.deployment.dataset("jobs"))
    drain_dataset(stage.deployment, "jobs")
    assert overview(stage).problems == []


def test_topic_that_was_never_there_is_no_problem_and_one_that_is_gone_is(stage: Stage) -> None:
    jobs = stage.deployment.dataset("jobs")
    topic = topic_of(stage)
    topics.delete(servers(stage), topic)
    with pytest.raises(TopicMissing):
        plan(stage.deployment, jobs)
    assert overview(stage).problems == []
    topics.create(servers(stage), topic, 3)
    send_jobs(stage, 3)
    drain_dataset(stage.deployment, "jobs")
    topics.delete(servers(stage), topic)
    with pytest.raises(TopicMissing):
        plan(stage.deployment, jobs)
    assert overview(stage).states["jobs"] == "failing"


def test_plans_sample_the_lag_and_say_how_long_records_wait(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    assert stage.value("select count(*) from headrace.samples") == 3
    send_jobs(stage, 60)
    plan(stage.deployment, stage.deployment.dataset("jobs"))
    jobs = next(each for each in overview(stage).status.datasets if each.dataset == "jobs")
    assert jobs.lag == 60
    assert jobs.lag_s is not None
    assert 0 <= jobs.lag_s < 60
    assert overview(stage).states["jobs"] == "behind"
    assert overview(stage).status.history.lag["jobs"][-1] == 60
    drain_dataset(stage.deployment, "jobs")
    assert overview(stage).states["jobs"] in ("current", "building")
    assert sum(overview(stage).status.history.rows["jobs"]) == 90


def problems(stage: Stage) -> list[tuple[str, str]]:
    return [(problem.kind, str(problem.command)) for problem in overview(stage).problems]


def test_drain_into_a_full_database_is_a_problem_until_what_it_was_to_read_is_committed(stage: Stage) -> None:
    send_jobs(stage, 30)
    stage.execute(
        "create function is_full() returns trigger language plpgsql as "
        "$$begin raise 'No space left on device' using errcode = '53100'; end$$",
        "create trigger is_full before insert on staging.jobs for each statement execute function is_full()",
    )
    with pytest.raises(DatabaseError, match="No space left on device"):
        drain_dataset(stage.deployment, "jobs")
    assert problems(stage) == [("drain", "headrace drain jobs")]
    assert "No space left on device" in overview(stage).problems[0].text
    assert overview(stage).states["jobs"] == "failing"
    planned = plan(stage.deployment, stage.deployment.dataset("jobs"))  # which succeeds, and mends nothing
    assert problems(stage) == [("drain", "headrace drain jobs")]
    stage.execute("drop trigger is_full on staging.jobs")
    first, *rest = planned.split(3)
    drain_plan(stage.deployment, stage.deployment.dataset("jobs"), first)
    assert problems(stage) == [("drain", "headrace drain jobs")]  # a part of it is still to be read
    for share in rest:
        drain_plan(stage.deployment, stage.deployment.dataset("jobs"), share)
    assert problems(stage) == []


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SourceError("t[0]: a broken batch; drain again"), "t[0]: a broken batch; drain again"),
        (ValueError("line one\nline two"), "ValueError: line one line two"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_drain_that_fails_of_anything_is_a_problem_until_a_reset_or_a_success(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: Exception, text: str
) -> None:
    send_jobs(stage, 3)

    def fail(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(runner, "drain", fail)
        with pytest.raises(type(error)):
            drain_dataset(stage.deployment, "jobs")
    assert problems(stage) == [("drain", "headrace drain jobs")]
    assert overview(stage).problems[0].text.endswith(f": {text}")
    if isinstance(error, ValueError):
        reset(stage.deployment, stage.deployment.dataset("jobs"))
    else:
        drain_dataset(stage.deployment, "jobs")
    assert problems(stage) == []


def test_drain_that_another_run_overtook_is_no_problem(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    send_jobs(stage, 3)

    def fail(*_: Any, **__: Any) -> None:
        raise CheckpointMoved("jobs[0]: another run committed first; retry the task")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "drain", fail)
        with pytest.raises(CheckpointMoved):
            drain_dataset(stage.deployment, "jobs")
    assert problems(stage) == []


def test_file_that_a_command_names_wrongly_is_no_problem_and_the_declared_one_is(stage: Stage, tmp_path: Path) -> None:
    for name in ("absent.ndjson", "users.txt"):
        with pytest.raises(FileSourceError):
            load_file(stage.deployment, "users", path=tmp_path / name)
    assert problems(stage) == []
    declared = stage.deployment.settings.datasets_dir / "users.py"
    declared.write_text(declared.read_text().replace("users.ndjson", "absent.ndjson"))
    with pytest.raises(FileSourceError):
        load_file(stage.deployment, "users")
    assert problems(stage) == [("source", "headrace load users")]


def test_plan_without_a_setting_is_a_problem_in_airflow_and_none_in_a_shell(stage: Stage) -> None:
    def lacking() -> dict[str, Any]:
        raise SettingError("kafka: no address")

    deployment = Deployment(stage.deployment.settings, stage.deployment.connect, lacking, lambda: "")
    jobs = deployment.dataset("jobs")
    with pytest.raises(SettingError):
        plan(deployment, jobs)
    assert problems(stage) == []
    with pytest.raises(SettingError):
        plan(deployment, jobs, run=RunContext("ingest_jobs", "r", "plan", 1, -1))
    assert [kind for kind, _ in problems(stage)] == ["source"]


def test_error_of_a_partition_that_the_source_no_longer_has_is_over_with_the_next_plan(stage: Stage) -> None:
    stage.execute("insert into headrace.observations (dataset, partition) values ('jobs', 7)")
    with connected(stage.deployment.connect("test")) as connection:
        observations.save_error(connection, "jobs", ValueError("no broker"))
    assert overview(stage).problems[0].text == "ValueError: no broker"
    drain_dataset(stage.deployment, "jobs")
    assert problems(stage) == []


def test_file_that_did_not_change_is_looked_at_all_the_same_after_a_correction(stage: Stage, tmp_path: Path) -> None:
    declared, correction = tmp_path / "users.ndjson", tmp_path / "correction.ndjson"
    declared.write_text('{"USERID": 1, "LOCATION": "A"}\n')
    correction.write_text('{"USERID": 1, "LOCATION": "B"}\n')
    settings = replace(stage.deployment.settings, data_dir=tmp_path)
    ours = replace(stage, deployment=Deployment.from_settings(settings))
    load_file(ours.deployment, "users")
    load_file(ours.deployment, "users", path=correction)
    ours.execute("update headrace.observations set observed_at = now() - interval '9 h', error = 'x'")
    assert [kind for kind, _ in problems(ours)] == ["source"]
    load_file(ours.deployment, "users")  # each hour
    assert problems(ours) == []


def test_file_whose_table_does_not_fit_is_a_problem(stage: Stage) -> None:
    stage.execute("alter table staging.users drop column location")
    with pytest.raises(DatasetError, match="has no column location"):
        load_file(stage.deployment, "users")
    assert [kind for kind, _ in problems(stage)] == ["source"]
