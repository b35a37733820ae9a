"""Builds in the status: models, their tests, and failures until a build succeeds."""

from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from headrace.monitor.problems import find_problems
from tests.support.stage import Stage, offline_stage
from tests.support.status_rows import read


@pytest.fixture
def stage(database: str, session_home: Path) -> Stage:
    return offline_stage(database, session_home)


def test_models_show_their_last_build_and_the_tests_of_the_last_one_that_tested(stage: Stage) -> None:
    line = (
        "insert into headrace.builds (build_id, pass, schema, model, kind, status, rows, seconds, failed_tests, "
        "message, has_claim, selection, project, tested, started_at, finished_at) values "
        "(gen_random_uuid(), 1, 'marts', '{}', 'model', '{}', 5, 1.5, '{}', {}, true, 'a part', 'p', {}, now(), "
        "now() - interval '{} s')"
    )
    stage.execute(
        line.format("jobs", "failed tests", '{"unique_jobs: 3 rows"}', "null", "true", 60),
        line.format("jobs", "success", "{}", "null", "false", 10),
        line.format("users", "error", "{}", "E'no such column\\nline 2'", "true", 30),
        line.format("rides", "success", "{}", "null", "true", 20),
    )
    overview = find_problems(read(stage), stage.deployment.settings)
    models = {model.model: model for model in overview.status.models}
    assert (models["jobs"].status, list(models["jobs"].failed_tests)) == ("success", ["unique_jobs: 3 rows"])
    assert (models["users"].status, models["users"].message) == ("error", "no such column")
    assert [(each.kind, each.about, str(each.command)) for each in overview.problems] == [
        ("tests", "marts.jobs", "headrace build --select jobs"),
        ("model", "marts.users", "headrace build --select users"),
    ]
    assert len(overview.status.builds) == 4


def built(
    stage: Stage,
    seconds_ago: int,
    *models: tuple[str, str, str],
    selection: str | None = None,
    tested: bool = True,
) -> None:
    """A build's lines, each (model, kind, status), so many seconds ago."""
    build_id = uuid4()
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        for model, kind, status in models:
            connection.execute(
                "insert into headrace.builds (build_id, pass, schema, model, kind, status, seconds, failed_tests, "
                "message, has_claim, selection, project, tested, started_at, finished_at) values "
                "(%s, 1, 'marts', %s, %s, %s, 1, %s, %s, false, %s, 'p', %s, now(), now() - make_interval(secs => %s))",
                (
                    build_id, model, kind, status, ["t: 1 rows"] if status == "failed tests" else [],
                    "no" if status == "error" else None, selection, tested, seconds_ago,
                ),
            )  # fmt: skip


def failing(stage: Stage) -> list[str]:
    return [problem.about for problem in find_problems(read(stage), stage.deployment.settings).problems]


def test_failure_of_dbt_itself_is_over_with_the_next_build(stage: Stage) -> None:
    built(stage, 60, ("jobs", "model", "success"))
    built(stage, 50, ("dbt", "project", "error"))
    assert failing(stage) == ["dbt"]
    built(stage, 40, ("jobs", "model", "success"), selection="--select jobs")
    assert failing(stage) == []
    assert [build.status for build in read(stage).builds] == ["success", "error", "success"]  # it did happen


def test_failure_of_a_model_is_over_with_its_own_success_alone(stage: Stage) -> None:
    built(stage, 60, ("jobs", "model", "error"), ("users", "model", "success"))
    built(stage, 50, ("users", "model", "success"), selection="--select users")
    assert failing(stage) == ["marts.jobs"]
    built(stage, 40, ("jobs", "model", "success"), selection="--select jobs")
    assert failing(stage) == []


def test_failure_of_a_model_that_the_project_no_longer_has_is_over_with_the_next_whole_build(stage: Stage) -> None:
    built(stage, 60, ("old", "model", "error"), ("users", "model", "success"))
    built(stage, 50, ("users", "model", "success"), selection="--select users")
    assert failing(stage) == ["marts.old"]
    built(stage, 40, ("new", "model", "success"), ("users", "model", "success"), tested=False)
    built(stage, 30, ("newer", "model", "success"), selection="--select newer")
    assert failing(stage) == []
    assert {model.model for model in read(stage).models} == {"new", "newer", "users"}


def test_failed_test_of_no_model_is_over_with_the_next_whole_build_that_tests(stage: Stage) -> None:
    built(stage, 60, ("adds_up", "test", "failed tests"), ("users", "model", "success"))
    built(stage, 50, ("users", "model", "success"), tested=False)
    built(stage, 40, ("users", "model", "success"), selection="--select users")
    assert failing(stage) == ["marts.adds_up"]
    built(stage, 30, ("users", "model", "success"))
    assert failing(stage) == []
