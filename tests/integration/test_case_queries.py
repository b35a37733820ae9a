"""The case's queries and functions on the marts, and the indexes that they use; the commands of docs/psql.md."""

import re
import subprocess
from pathlib import Path

import psycopg
import pytest

from headrace.local.services import postgres_binary
from tests.support.mart_rows import START, job
from tests.support.warehouse import ALL_OF_JOBS, Warehouse


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


def test_psql_runs_every_command_of_its_page(warehouse: Warehouse) -> None:
    page = (Path(__file__).parents[2] / "docs/psql.md").read_text()
    blocks = re.findall(r"^```sql\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    argv = [str(postgres_binary("psql")), "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--quiet", warehouse.dsn]
    done = subprocess.run(argv, input="\n".join(blocks), capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for column in ("minute", "mart_freshness_s", "behind", "end_offset", "json_path", "mart_s"):
        assert column in done.stdout
