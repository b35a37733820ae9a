"""What a build says of models, tests and calls that fail, and what it leaves behind."""

import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from headrace.exceptions import BuildError, UsageError
from headrace.marts import dbt
from headrace.marts.build import build
from headrace.marts.claims import NodeResult, record
from headrace.marts.enforced import enforced_tests
from headrace.postgres.ledger import RunContext
from tests.support.mart_rows import START, job
from tests.support.warehouse import Warehouse


@pytest.mark.security("U2")
def test_files_that_dbt_writes_are_closed_to_others_under_any_umask(warehouse: Warehouse, session_home: Path) -> None:
    warehouse.jobs((0, 1, job()))
    home = session_home / "dbt"
    for path in home.rglob("*"):  # other tests run dbt by hand, which leaves its files open
        path.chmod(path.stat().st_mode & 0o700)
    for path in home.glob("target-*/run"):  # rewritten files keep their modes: these are made again
        shutil.rmtree(path)
    umask = os.umask(0)
    try:
        warehouse.build()
        assert os.umask(0) == 0  # it is the caller's again
    finally:
        os.umask(umask)
    files = [home, *home.rglob("*")]
    assert any(path.is_file() for folder in home.glob("target-*/run") for path in folder.rglob("*"))
    assert [path for path in files if path.stat().st_mode & 0o077] == []


def test_profile_with_autocommit_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.jobs((0, 1, job()))
    profile = (warehouse.settings.dbt_dir / "profiles.yml").read_text()
    (tmp_path / "profiles.yml").write_text(profile.replace("type: postgres", "type: postgres\n      autocommit: true"))
    succeeded, messages = warehouse.run_dbt("run", "--select", "jobs", "--profiles-dir", str(tmp_path))
    assert not succeeded
    assert (
        "found a connection with autocommit, expected one transaction for the rows and what the model has seen"
        in messages
    )
    assert warehouse.claims()["jobs", "jobs"] == 0


def test_build_runs_the_data_tests_and_names_those_that_fail(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()), (1, 2, job(minute=4)))
    result = warehouse.build(tests=True)
    assert {node.status for node in result.passes[0]} == {"success"}
    warehouse.jobs((2, 3, job(minute=4)))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.tamper("update marts.jobs_per_minute set jobs = 7 where jobs = 1 and minute = %s", START)
    warehouse.tamper("update marts.jobs_per_minute set jobs = 7 where jobs = 2")  # the last build touched this one
    with pytest.raises(BuildError) as failure:
        build(warehouse.settings, select="jobs jobs_per_minute")
    (failed,) = warehouse.query("select failed_tests from headrace.builds where status = 'failed tests'")
    assert re.fullmatch(r"headrace_dbt_adds_up_to_jobs_per_minute_.*: 1 rows", failed[0][0])
    assert f"marts.jobs_per_minute: test {failed[0][0]} found, expected none" in str(failure.value)
    warehouse.build(select="jobs jobs_per_minute", full_refresh=True, tests=True)
    warehouse.assert_right("jobs", "jobs_per_minute")
    # a test whose constraint the table has is left out, and only then
    assert "not_null_jobs_userid" in _enforced(warehouse)
    warehouse.execute("alter table marts.jobs alter column userid drop not null")
    warehouse.tamper("update marts.jobs set userid = null where jobidentifier = 1")
    assert "not_null_jobs_userid" not in _enforced(warehouse)
    warehouse.execute("alter table marts.jobs add constraint later not null userid not valid")
    assert "not_null_jobs_userid" not in _enforced(warehouse)
    warehouse.users((1, 9, "C"))
    with pytest.raises(BuildError, match="not_null_jobs_userid: 1 rows"):
        warehouse.build(tests=True)


def _enforced(warehouse: Warehouse) -> set[str]:
    (manifest,) = dbt._manifests.values()
    with psycopg.connect(warehouse.dsn) as connection:
        return {manifest.nodes[test].name for test in enforced_tests(connection, manifest)}


def test_message_without_an_end_is_kept_in_part(warehouse: Warehouse) -> None:
    moment = datetime.now(UTC)
    result = NodeResult("marts", "jobs", "model", "error", None, 0.1, (), "nul \0" + "x" * 20_000, moment, moment)
    with psycopg.connect(warehouse.dsn, autocommit=True) as connection:
        record(connection, uuid4(), 1, (result,), None, "", True, RunContext())
    (message,) = warehouse.query("select message from headrace.builds order by finished_at desc limit 1")[0]
    assert message.startswith("nul \\0xxx")
    assert message.endswith("xxx ... (10005 more characters)")


def test_build_of_an_unknown_selection_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(UsageError, match="--select jobz: found nothing of that name, did you mean jobs"):
        warehouse.build(select="jobz")


def test_build_that_is_called_wrongly_is_refused_in_one_line_and_leaves_no_state(
    warehouse: Warehouse,
) -> None:
    before = warehouse.query("select count(*) from headrace.builds")
    for options, text in (
        ({"select": "bad:x"}, "'bad' is not a valid method name"),
        ({"select": "state:modified"}, "no comparison manifest"),
        ({"vars": "x: ["}, "is not valid YAML"),
        ({"select": "jobz"}, "found nothing of that name"),
    ):
        with pytest.raises(UsageError) as refused:
            warehouse.build(**options)
        assert text in str(refused.value)
        assert "\n" not in str(refused.value)
    assert warehouse.query("select count(*) from headrace.builds") == before


def test_build_is_not_up_to_date_while_something_has_failed_since_the_last_whole_one(warehouse: Warehouse) -> None:
    warehouse.build(tests=True)
    assert warehouse.build(tests=True).passes == ()
    failed = (
        "insert into headrace.builds (build_id, pass, schema, model, kind, status, seconds, message, has_claim, "
        "selection, project, tested, started_at, finished_at) values "
        "(gen_random_uuid(), 1, 'marts', %s, %s, 'error', 1, 'no', false, '--select x', 'p', false, now(), now())"
    )
    for model, kind in (("dbt", "project"), ("users", "model")):
        warehouse.execute(failed, model, kind)
        assert warehouse.build(tests=True).passes != ()  # the printed command does something
        assert warehouse.build(tests=True).passes == ()


def test_build_of_a_broken_model_names_it_and_keeps_the_others(warehouse: Warehouse) -> None:
    selection = "jobs jobs_per_minute latest_jobs_by_service"
    warehouse.jobs((0, 1, job()))
    warehouse.build(select=selection)
    warehouse.jobs((1, 2, job(minute=4)))
    warehouse.execute("alter table marts.jobs_per_minute drop column revenue")
    with pytest.raises(BuildError) as failure:
        warehouse.build(select=selection)
    assert "marts.jobs_per_minute: found " in str(failure.value)
    assert "its claim was rolled back with its rows" in str(failure.value)
    assert warehouse.claims()["jobs", "jobs"] == 2
    assert warehouse.claims()["latest_jobs_by_service", "jobs"] == 2
    assert warehouse.claims()["jobs_per_minute", "jobs"] == 1
    assert (
        warehouse.query(
            "select 1 from pg_stat_activity where application_name like 'headrace-%' and datname = current_database()"
        )
        == []
    )
    warehouse.build(select="jobs_per_minute", full_refresh=True)
    warehouse.assert_right("jobs", "jobs_per_minute", "latest_jobs_by_service")
