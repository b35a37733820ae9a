"""`headrace check --marts`, and the two other checks that find a wrong grain."""

from contextlib import suppress
from dataclasses import replace

import psycopg
import pytest
from click.testing import CliRunner, Result

from headrace.check.scratch import scratch_schema
from headrace.cli import main
from headrace.exceptions import BuildError
from headrace.marts.audit import audit
from headrace.postgres.connection import connector
from tests.support.mart_rows import job
from tests.support.random_models import Model
from tests.support.random_project import RandomProject

JOBS = Model(
    "jobs",
    "select jobidentifier, userid, location, revenue from {{ current('jobs') }}",
    {"jobidentifier": "int", "userid": "int", "location": "text", "revenue": "num"},
    ("jobidentifier",),
)
USERS = Model("users", "select userid, location as home from {{ current('users') }}", {"userid": "int", "home": "text"})
# rows of one job depend on other jobs of its location: location is the grain, jobidentifier is not
PEERS = Model(
    "peers",
    "select jobidentifier, location, count(*) over (partition by location) as peers from {{ ref('jobs') }}",
    {"jobidentifier": "int", "location": "text", "peers": "int"},
    ("jobidentifier",),
    grain={"jobidentifier": {"jobs": "jobidentifier"}},
    unique=True,
)
RIGHT_PEERS = replace(PEERS, grain={"location": {"jobs": "location"}})
HOMES = Model(
    "homes",
    "select userid, home, count(*) as jobs, sum(revenue) as revenue\n"
    "from {{ ref('jobs') }} as jobs inner join {{ ref('users') }} as users using (userid)\ngroup by userid, home",
    {"userid": "int", "home": "text", "jobs": "int", "revenue": "num"},
    ("userid",),
    grain={"userid": {"jobs": "userid", "users": "userid"}},
)
EVERYTHING = """
select (
    select jsonb_agg(to_jsonb(s) order by identifier) from headrace.model_states as s
), (
    select jsonb_agg(to_jsonb(u) order by identifier, upstream) from headrace.model_upstreams as u
), (
    select jsonb_agg(to_jsonb(c) order by identifier, dataset) from headrace.claims as c
), (
    select jsonb_agg(to_jsonb(b) order by seq) from headrace.batches as b
), (
    select jsonb_agg(name order by name) from headrace.model_locks
), (
    select jsonb_agg(nspname order by nspname) from pg_namespace where nspname !~ '^pg_'
), (
    select jsonb_agg(image order by image) from (
        select j.xmin || j::text as image from staging.jobs as j
        union all select u.xmin || u::text from staging.users as u
        union all select p.xmin || p::text from random.peers as p
        union all select l.xmin || l::text from random_log.jobs as l
    ) as images
)
"""


def check(project: RandomProject, *arguments: str) -> Result:
    variables = {
        "HEADRACE_HOME": str(project.folder.parent),
        "HEADRACE_DBT_DIR": str(project.folder),
        "HEADRACE_POSTGRES_DSN": project.warehouse.dsn,
    }
    return CliRunner().invoke(main, ["check", "--marts", *arguments], env=variables)


def test_wrong_grain_is_found_by_the_check_by_an_audit_of_everything_and_by_a_build(project: RandomProject) -> None:
    project.models = (JOBS, USERS, PEERS, HOMES)
    project.write()
    warehouse = project.warehouse
    warehouse.users((0, 1, "A"), (1, 2, "B"))
    warehouse.jobs((0, 1, job()), (1, 2, job()), (2, 3, job()))
    project.run()
    warehouse.execute("create schema headrace_check_deadbeef_log")  # of a check that was killed
    before = warehouse.query(EVERYTHING.replace("'^pg_'", "'^pg_|^headrace_check_'"))
    found = check(project, "--seed", "7", "--rounds", "3")
    print(found.output)
    assert found.exit_code == 1, found.output
    assert "peers.sql: after random changes the incremental build of peers has jobidentifier=" in found.output
    assert ": peers is " in found.output
    assert "correct grain or touched, or remove grain; repeat: headrace check --marts peers --seed 7" in found.output
    assert found.output.endswith("\n1 faults\n"), found.output
    right = [line for line in found.output.splitlines() if "rows changed in 3 builds" in line]
    assert [line.partition(":")[0] for line in right] == ["homes", "jobs", "users"]
    assert not any(": 0 rows" in line for line in right), right
    assert warehouse.query(EVERYTHING) == before

    settings = replace(warehouse.settings, dbt_dir=project.folder)
    warehouse.jobs((3, 3, job(location="Z")))
    with pytest.raises(BuildError, match=r"random.peers: an audit found jobidentifier=.*: peers is"):
        audit(settings, select="peers+ +peers")

    project.replace(replace(PEERS, sql=f"{PEERS.sql} where true"))  # another definition: the grain counts again
    project.run()
    warehouse.jobs((4, 3, job()))
    assert "an audit found jobidentifier=" in project.invoke("run")["peers"]

    project.replace(RIGHT_PEERS)
    clean = check(project, "peers", "--rounds", "2")
    assert clean.exit_code == 0, clean.output
    assert clean.output.endswith("\nevery incremental build equals its whole SELECT\n")


def test_scratch_schema_is_dropped_after_an_interrupt(project: RandomProject) -> None:
    dsn = project.warehouse.dsn
    schemas = "select count(*) from pg_namespace where nspname like 'headrace_check_%'"
    connect = connector(dsn, "check")
    with suppress(KeyboardInterrupt), scratch_schema(connect) as name:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f'create schema "{name}_log"; create table "{name}_log".logged ()'.encode())
        with scratch_schema(connect):  # a second check leaves the first one's alone
            assert project.warehouse.value(schemas) == 3
        raise KeyboardInterrupt
    assert project.warehouse.value(schemas) == 0
