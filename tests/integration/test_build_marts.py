"""The marts against a plain-Python oracle, on a real Postgres."""

import os
import re
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from headrace.exceptions import BuildError, UsageError
from headrace.marts.build import build
from headrace.marts.claims import NodeResult, record
from tests.support.warehouse import ALL_OF_JOBS, COLUMNS, MARTS, START, RandomBatches, Warehouse, job, shared_warehouse

# the models that read marts.jobs, or what was made of it
DOWNSTREAM = (
    "jobs_per_minute",
    "visitor_revenues",
    "top_users_by_location",
    "latest_jobs_by_location",
    "latest_jobs_by_service",
)


@pytest.fixture
def warehouse(postgres_dsn: str, session_home: Path) -> Warehouse:
    """Everything is built on nothing: no record is staged."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    warehouse.empty()
    return warehouse


def test_first_build_makes_every_mart_and_the_next_one_does_not_start_dbt(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.clear()
    batches = RandomBatches(3)
    for dataset in [*COLUMNS, *COLUMNS]:
        warehouse.stage(dataset, *batches.batch(dataset))
    warehouse.build()
    warehouse.assert_right()
    monkeypatch.setattr("headrace.marts.dbt.DbtRunner.run_pass", None)  # to start dbt would fail
    result = warehouse.build()
    assert result.passes == ()
    assert result.summary() == "build: nothing new; every model has built every batch"


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


def test_build_with_something_dropped_makes_it_again(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job()))
    for gone in ("table marts.jobs_per_minute", "function marts.top_users"):
        warehouse.execute(f"drop {gone} cascade")
        warehouse.build()
        warehouse.assert_right()
        assert warehouse.query("select * from marts.top_users('A')") == []


def test_rows_of_a_batch_are_found_in_every_partition_from_its_first_to_its_last_offset(warehouse: Warehouse) -> None:
    for partition in range(3):
        warehouse.jobs(*((at, 100 * partition + at, job(minute=at)) for at in (7, 8, 9)), partition=partition)
        warehouse.build()
        warehouse.assert_right()


def test_downstream_built_alone_never_claims_more_than_its_upstream(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.jobs((1, 2, job(minute=5)))
    warehouse.users((1, 1, "C"))
    warehouse.build(select=DOWNSTREAM)
    assert {warehouse.claims()[model, "jobs"] for model in DOWNSTREAM} == {1}
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    assert {warehouse.claims()[model, "jobs"] for model in DOWNSTREAM} == {2}


def test_upstream_built_from_zero_makes_downstream_start_from_zero(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job(minute=1)), (1, 2, job(minute=2)))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.execute("update staging.jobs set jobcreatedate = jobcreatedate + interval '1 hour'")  # no batch tells
    warehouse.build(select="jobs", full_refresh=True)
    assert warehouse.marts()["jobs_per_minute"] != warehouse.expected()["jobs_per_minute"]
    warehouse.build(select="jobs_per_minute")
    warehouse.assert_right("jobs_per_minute")
    warehouse.build()
    warehouse.assert_right()


def test_dataset_that_was_reset_makes_its_models_start_from_zero(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job()), (1, 2, job(minute=2)))
    warehouse.jobs((2, 3, job()))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.execute(
        "truncate staging.jobs; delete from headrace.batches where dataset = 'jobs'; "
        "update headrace.datasets set last_seq = 0, built = gen_random_uuid() where dataset = 'jobs'"
    )
    warehouse.jobs((0, 1, job(minute=7)))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    assert warehouse.value("select count(*) from marts.jobs") == 1


@pytest.mark.parametrize(
    ("change", "back", "said"),
    [
        ("drop column minute cascade", "", "marts.jobs_per_minute.minute: found no column, expected timestamp"),
        ("add column extra text", "drop column extra", "extra: found text, expected no column as the model has it"),
        ("alter column jobs type int", "alter column jobs type bigint", "jobs: found integer, expected bigint"),
        (
            "alter column revenue type numeric(15,2)",
            "alter column revenue type numeric",
            "revenue: found numeric(15,2), expected numeric",
        ),
    ],
    ids=["missing", "surplus", "another type", "rounded"],
)
def test_table_whose_columns_are_not_the_models_is_refused_with_the_remedy(
    change: str, back: str, said: str, warehouse: Warehouse
) -> None:
    warehouse.jobs((0, 1, job()))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.jobs((1, 2, job(minute=5)))
    warehouse.execute(f"alter table marts.jobs_per_minute {change}")
    before = warehouse.claims()["jobs_per_minute", "jobs"]
    with pytest.raises(BuildError) as refused:
        warehouse.build(select="jobs jobs_per_minute")
    assert said in str(refused.value)
    remedy = (
        "nothing was changed; alter the table, which keeps grants and views: dbt run --full-refresh --select jobs_per"
    )
    assert remedy in str(refused.value)
    assert warehouse.claims()["jobs_per_minute", "jobs"] == before
    if back:
        warehouse.execute(f"alter table marts.jobs_per_minute {back}")
        warehouse.build(select="jobs jobs_per_minute")
    else:
        warehouse.build(select="jobs_per_minute", full_refresh=True)
    warehouse.assert_right("jobs", "jobs_per_minute")


def test_empty_run_moves_no_claim_and_keeps_the_functions(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()))
    warehouse.build(select=ALL_OF_JOBS)
    before = warehouse.claims()
    warehouse.jobs((1, 2, job()))
    no_tests = ("--exclude-resource-type", "unit_test", "--exclude-resource-type", "test")
    assert warehouse.run_dbt("build", "--empty", "--select", "+top_users", *no_tests) == (True, "")
    assert warehouse.claims() == before
    assert warehouse.query("select userid from marts.top_users('A')") == [(1,)]
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    warehouse.run_dbt("run", "--empty", "--full-refresh", "--select", "jobs", "rides")
    assert not {("jobs", "jobs"), ("rides", "rides")} & set(warehouse.claims())
    assert warehouse.marts()["jobs"] == set()
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()


def test_developers_target_builds_beside_production_with_claims_of_its_own(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job()))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.jobs((1, 2, job(minute=3)))
    assert warehouse.run_dbt("run", "--target", "dev") == (True, "")
    assert warehouse.marts("marts_dev") == warehouse.expected()
    assert warehouse.claims()["jobs", "jobs"] == 1
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.assert_right("jobs", "jobs_per_minute")


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


def test_aggregate_writes_the_touched_buckets_and_no_other(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"), (1, 2, "B"))
    warehouse.jobs(*((n, n, job(location=f"L{n % 50}", userid=1 + n % 2, minute=n)) for n in range(100)))
    warehouse.build(select=ALL_OF_JOBS)
    newest = {name: warehouse.value(f"select max(xmin::text::bigint) from marts.{name}") for name in DOWNSTREAM}
    # job 7 moves from minute 7 and L7 to minute 300 and L8, job 11 goes, job 500 comes late
    warehouse.jobs((100, 7, job(location="L8", userid=2, minute=300)), (101, 11, None))
    warehouse.jobs((102, 500, job(location="L20", userid=1, minute=20.5)))
    result = warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    rows = {node.model: node.rows for node in result.passes[0] if node.kind == "model"}
    assert rows["jobs"] == 3
    assert rows["jobs_per_minute"] == 4  # 7 and 11 are emptied, 20 and 300 counted again
    assert rows["visitor_revenues"] == 4  # (L7, 2), (L8, 2), (L11, 2), (L20, 1)

    def written(name: str, columns: str) -> set[tuple[object, ...]]:
        return set(warehouse.query(f"select {columns} from marts.{name} where xmin::text::bigint > %s", newest[name]))

    minutes = {START + timedelta(minutes=20), START + timedelta(minutes=300)}
    assert {minute for (minute,) in written("jobs_per_minute", "minute")} == minutes
    assert written("visitor_revenues", "location, userid") == {("L7", 2), ("L8", 2), ("L11", 2), ("L20", 1)}
    assert {location for (location,) in written("top_users_by_location", "location")} == {"L7", "L8", "L11", "L20"}
    assert {location for (location,) in written("latest_jobs_by_location", "location")} == {
        "L8",
        "L20",
    }  # others only lost


def test_tombstoned_and_replayed_records_leave_the_marts_right(warehouse: Warehouse) -> None:
    warehouse.jobs((5, 1, job(minute=1)), (6, 1, None))
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.jobs((4, 1, job(minute=9)))  # replayed: it keeps its old place, so the tombstone still wins
    warehouse.build(select="jobs jobs_per_minute")
    warehouse.assert_right("jobs", "jobs_per_minute")
    assert warehouse.value("select count(*) from marts.jobs") == 0


def test_user_who_moves_changes_every_location_with_a_job_of_theirs(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "C"), (1, 2, "C"))
    warehouse.jobs((0, 1, job("A")), (1, 2, job("B")), (2, 3, job("C")), (3, 4, job("A", userid=2)))
    warehouse.build(select="+top_users_by_location")
    warehouse.users((2, 1, "B"))
    warehouse.build(select="+top_users_by_location")
    warehouse.assert_right("visitor_revenues", "top_users_by_location")
    assert {location for location, userid, _ in warehouse.marts()["visitor_revenues"] if userid == 1} == {"A", "C"}
    warehouse.users((3, 1, None))
    warehouse.build(select="+top_users_by_location")
    warehouse.assert_right("visitor_revenues", "top_users_by_location")
    assert {userid for _, _, userid, _ in warehouse.marts()["top_users_by_location"]} == {2}


def test_reloaded_rows_correct_the_buckets_in_which_they_were(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "C"))
    warehouse.jobs((0, 1, job("A", minute=1)), (1, 2, job("A", minute=2)))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.jobs((0, 1, job("B", minute=8)))  # the same offset: the old row moves to staging._replaced_jobs
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    warehouse.jobs((1, 9, job("B", minute=9)))  # job 2 is left without any row
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()
    assert warehouse.query("select jobidentifier from marts.jobs order by 1") == [(1,), (9,)]


def test_case_queries_run_unchanged_and_agree_with_marts_and_functions(warehouse: Warehouse) -> None:
    warehouse.users(*((n, n, "LOC_1294" if n % 5 == 0 else "LOC_7") for n in range(30)))
    warehouse.jobs(
        *(
            (
                n,
                n,
                job("LOC_1294", n % 30, str(n % 7), minute=n // 2, status="NO SUCCESS" if n % 4 == 0 else "SUCCESS"),
            )
            for n in range(200)
        )
    )
    warehouse.build(select=ALL_OF_JOBS)
    with psycopg.connect(warehouse.dsn, options="-c search_path=marts") as connection:
        top = connection.execute(
            "SELECT j.userid FROM jobs j JOIN users u ON j.userid = u.userid WHERE j.location = 'LOC_1294' AND "
            "u.location <> j.location GROUP BY j.userid HAVING SUM(j.revenue) > 0 ORDER BY SUM(j.revenue) DESC LIMIT 5;"
        ).fetchall()
        connection.execute(
            "PREPARE jobs_by_location(text) AS SELECT jobidentifier, userid, jobstatus, revenue, jobdate FROM jobs "
            "WHERE location = $1 ORDER BY jobdate DESC LIMIT 5;"
        )
        connection.execute(
            "PREPARE jobs_by_service(text) AS SELECT jobidentifier, userid, jobstatus, revenue, jobdate FROM jobs "
            "WHERE servicename = $1 ORDER BY jobdate DESC LIMIT 5;"
        )
        latest = connection.execute("EXECUTE jobs_by_location('LOC_1294')").fetchall()
        by_service = connection.execute("EXECUTE jobs_by_service('Driver')").fetchall()
        functions = connection.execute("select * from top_users('LOC_1294')").fetchall()
        assert len(connection.execute("select * from top_users('LOC_1294', 100)").fetchall()) == len(
            warehouse.marts()["visitor_revenues"]
        )
        assert (
            connection.execute("select * from jobs_by_location('LOC_1294', 3)").fetchall()
            == connection.execute(
                "select jobidentifier, userid, jobstatus, revenue, jobdate from latest_jobs_by_location "
                "where rank <= 3 order by rank"
            ).fetchall()
        )
        assert len(connection.execute("select * from jobs_by_service('Driver')").fetchall()) == 5
    revenues = {userid: revenue for _, _, userid, revenue in warehouse.expected()["top_users_by_location"]}
    assert [revenues[userid] for (userid,) in top] == [revenue for _, revenue in functions]
    assert [row[4] for row in latest] == [row[4] for row in by_service]
    warehouse.assert_right()


def test_functions_and_prepared_statements_survive_a_full_refresh(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()))
    warehouse.build(select="+visitor_revenues")
    with psycopg.connect(warehouse.dsn, autocommit=True) as reader:
        reader.execute("prepare one (text) as select userid from marts.jobs where location = $1")
        assert reader.execute("execute one ('A')").fetchall() == [(1,)]
        warehouse.build(select="jobs visitor_revenues", full_refresh=True)
        assert reader.execute("execute one ('A')").fetchall() == [(1,)]
        assert reader.execute("select userid from marts.top_users('A')").fetchall() == [(1,)]
        assert reader.execute("select jobidentifier from marts.jobs_by_location('A', 1)").fetchall() == [(1,)]


@pytest.mark.parametrize(
    ("table", "unit", "column"),
    [
        ("jobs", "minute", "jobcreatedate"),
        ("events", "minute", "event_time"),
        ("rides", "hour", "tpep_pickup_datetime"),
    ],
    ids=["jobs", "events", "rides"],
)
def test_index_on_the_bucket_exists_and_is_used(warehouse: Warehouse, table: str, unit: str, column: str) -> None:
    bucket = f"(date_trunc('{unit}'::text, ({column} AT TIME ZONE 'UTC'::text)) AT TIME ZONE 'UTC'::text)"
    with psycopg.connect(warehouse.dsn) as connection:
        connection.execute("set enable_seqscan = off")
        plan = connection.execute(f"explain select count(*) from marts.{table} where {bucket} = '{START}'").fetchall()
    assert any("Index Cond" in line and bucket in line for (line,) in plan), plan


def test_function_whose_columns_changed_is_made_again(warehouse: Warehouse) -> None:
    warehouse.jobs((0, 1, job()))
    warehouse.build(select="jobs")
    warehouse.execute(
        "drop function if exists marts.jobs_by_location; create function marts.jobs_by_location(location text, "
        "max_rows integer default 5) returns table(jobidentifier text) language sql as 'select null::text'"
    )
    for _ in range(2):
        warehouse.build(select="jobs_by_location")
        assert warehouse.query("select jobidentifier, jobstatus from marts.jobs_by_location('A')") == [(1, "SUCCESS")]


def test_jobs_without_dates_or_revenue_are_kept_and_in_no_minute(warehouse: Warehouse) -> None:
    warehouse.users((0, 1, "B"))
    exact = job(revenue="71.30000000000001", minute=3)
    warehouse.jobs((0, 9, job(minute=None, revenue=None)), (1, 10, job(minute=None)), (2, 1000000, exact))
    warehouse.build(tests=True)
    warehouse.assert_right()
    warehouse.jobs((3, 1000000, job(minute=None, revenue=None)), (4, 9, exact))  # one loses its minute, one gets it
    warehouse.build(tests=True)
    warehouse.assert_right()
    assert warehouse.query("select jobidentifier, revenue, reported_revenue from marts.jobs order by 1") == [
        (9, Decimal("71.30000000000001"), Decimal("71.30000000000001")),
        (10, Decimal("1.00"), Decimal("1.00")),
        (1000000, 0, None),
    ]
    assert warehouse.query("select jobs, revenue from marts.jobs_per_minute") == [(1, Decimal("71.30000000000001"))]
    assert [row[0] for row in warehouse.query("select jobidentifier from marts.jobs_by_location('A')")] == [
        9,
        10,
        1000000,
    ]


def test_models_pass_their_unit_tests(warehouse: Warehouse) -> None:
    succeeded, messages = warehouse.run_dbt("test", "--select", "test_type:unit")
    assert succeeded, messages


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


def test_message_without_an_end_is_kept_in_part(warehouse: Warehouse) -> None:
    moment = datetime.now(UTC)
    result = NodeResult("marts", "jobs", "model", "error", None, 0.1, (), "nul \0" + "x" * 20_000, moment, moment)
    with psycopg.connect(warehouse.dsn, autocommit=True) as connection:
        record(connection, uuid4(), 1, (result,), None, "", True)
    (message,) = warehouse.query("select message from headrace.builds order by finished_at desc limit 1")[0]
    assert message.startswith("nul \\0xxx")
    assert message.endswith("xxx ... (10005 more characters)")


def test_build_of_an_unknown_selection_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(UsageError, match="--select jobz: found nothing of that name, expected a model"):
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


def test_build_forgets_claims_of_models_that_are_gone_or_no_longer_claim(warehouse: Warehouse) -> None:
    claim = (
        "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
        "values (%s, %s, 'jobs', 0, '{\"headrace.datasets\": \"before a rename\"}')"
    )
    for schema, model in (("marts", "renamed"), ("marts", "stg_kafka__jobs"), ("marts_dev", "renamed")):
        warehouse.execute(claim, schema, model)
    warehouse.jobs((0, 1, job()))
    lines: list[str] = []
    warehouse.build(select="jobs", print_line=lines.append)
    assert any(line.startswith("build: forgot the claims of renamed, stg_kafka__jobs:") for line in lines)
    assert {model for model, _ in warehouse.claims()} == set(MARTS)
    assert warehouse.value("select count(*) from headrace.claims where schema = 'marts_dev'") == 1
    warehouse.build()
    assert warehouse.build().passes == ()  # the datasets are no longer stale: no check runs dbt
    warehouse.assert_right()


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
