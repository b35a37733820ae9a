"""A malicious role: its code gets no other rights, and its locks block no other role."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from headrace.exceptions import DatabaseError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.postgres.connection import connector
from headrace.postgres.migrations import migrate
from headrace.postgres.roles import DBT, separate
from headrace.sample.case_answers import read_case_answers
from headrace.verify import verify
from tests.support.role_checks import assert_denied
from tests.support.stage import Stage
from tests.support.warehouse import Warehouse

# what headrace_dbt plants: code that takes back the session's own rights and runs a program with them; called by a
# function that says it is immutable, so that an index may have it and the planner calls it
PLANTED = (
    """
create function marts.run_program() returns void language plpgsql as $$
begin
    execute 'reset role';
    copy (select 1) to program {command};
exception when insufficient_privilege then
    null; -- with rights that are not enough
end $$
""",
    """
create function marts.planted(bigint) returns bigint language plpgsql immutable as $$
begin
    perform marts.run_program();
    return $1;
end $$
""",
)


@pytest.fixture
def program(house: Stage, dbt: Stage) -> Iterator[Path]:
    """A file that a planted function's program makes, if it runs as the server's superuser."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-planted-"))
    folder.chmod(0o777)  # the server may be another user's
    dbt.execute(*(statement.format(command=f"'touch {folder}/ran'") for statement in PLANTED))
    try:
        yield folder / "ran"
    finally:
        shutil.rmtree(folder)
        house.execute("drop function marts.planted, marts.run_program cascade")


@pytest.mark.security("R1")
def test_verify_runs_no_view_in_place_of_a_mart(house: Stage, dbt: Stage, program: Path) -> None:
    dbt.execute(
        "alter table marts.users rename to users_aside",
        "create view marts.users as select marts.planted(userid) as userid, location from marts.users_aside",
    )
    try:
        for stage in (house, dbt):
            (print_line,) = verify(stage.deployment, "users").reports
            assert not program.exists(), print_line
            assert print_line.error is None
            assert [finding.found for finding in print_line.findings] == ["a view in the place of marts.users"]
    finally:
        dbt.execute("drop view marts.users", "alter table marts.users_aside rename to users")
    (print_line,) = verify(house.deployment, "users").reports
    assert print_line.counts["keys of marts.users equal to staging's"] == 21_467


@pytest.mark.security("R1")
@pytest.mark.parametrize(
    ("plant", "remove", "named"),
    [
        (
            "create index planted on marts.users ((userid + marts.planted(1)))",
            "drop index marts.planted",
            "function marts.planted(bigint)",
        ),
        (
            "create statistics marts.planted on (userid + marts.planted(1)), location from marts.users",
            "drop statistics marts.planted",
            "function marts.planted(bigint)",
        ),
        (
            "alter table marts.users alter userid type marts.key",
            "alter table marts.users alter userid type bigint",
            "type marts.key",
        ),
    ],
    ids=["index", "statistics", "domain"],
)
def test_verify_compares_no_mart_whose_plan_would_run_planted_code(
    plant: str, remove: str, named: str, house: Stage, dbt: Stage, program: Path
) -> None:
    dbt.execute("create domain marts.key as bigint check (marts.planted(1) > 0)", plant)
    try:
        (print_line,) = verify(house.deployment, "users").reports
        assert not program.exists()
        assert (
            f"marts.users has {named} of {DBT}, who may do less than this user: not compared; set HEADRACE_DBT_DSN "
            "(in Airflow: the connection headrace_dbt) to a login in headrace_dbt"
        ) in print_line.notes
        assert verify(dbt.deployment, "users").is_clean  # it is its own code, with its own rights
    finally:
        dbt.execute(remove, "drop domain marts.key")


@pytest.mark.security("R2")
def test_owner_builds_and_asks_nothing_that_dbt_could_have_planted(house: Stage, dbt: Stage, program: Path) -> None:
    dbt.execute(
        "create function marts.fired() returns trigger language plpgsql as "
        "$$ begin perform marts.planted(1); return new; end $$",
        "create trigger planted before insert or update or delete on marts.users for each row execute function "
        "marts.fired()",
    )
    refused = rf"found .* of {DBT}, expected objects of .*HEADRACE_DBT_DSN"
    owner, settings = house.deployment.settings, dbt.deployment.settings
    try:
        with pytest.raises(DatabaseError, match=f"^build: {refused}"):
            build(owner, select="users", full_refresh=True, tests=False)
        with pytest.raises(DatabaseError, match=f"^answers: {refused}"):
            read_case_answers(connector(owner.require_dbt_dsn(), "test"), "LOC_1", "SERVICE_01", 5)
        # started by hand
        succeeded, messages = Warehouse(owner, house.dsn).run_dbt("run", "--select", "users")
        assert not succeeded
        assert f"of {DBT}, expected that this schema belongs to" in messages
        assert build(settings, select="users", tests=False).passes
        assert read_case_answers(connector(settings.require_dbt_dsn(), "test"), "LOC_1", "SERVICE_01", 5)
    finally:
        dbt.execute("drop function marts.fired cascade")
    assert not program.exists()


# every lock that was an advisory one
ADVISORY = """
select pg_advisory_lock(key) from unnest(array[
    7282001,
    hashtextextended('headrace.builds marts', 0),
    hashtextextended('headrace.claims marts.users', 0),
    hashtextextended('headrace.functions marts', 0)
]) as held (key)
"""


@pytest.mark.security("R3")
def test_login_without_rights_cannot_hold_up_init_builds_or_drains(
    house: Stage, loader: Stage, dbt: Stage, stranger: Stage
) -> None:
    locks = [
        f"lock table headrace.{table} in {mode} mode"
        for table in ("migrations", "build_lock", "model_locks", "claims", "datasets", "checkpoints", "leases")
        for mode in ("access share", "exclusive")
    ]
    assert_denied(stranger, *locks, "select * from headrace.model_locks for update", "table headrace.status")
    settings = dbt.deployment.settings
    with closing(psycopg.connect(stranger.dsn, application_name="headrace drain jobs")) as connection:
        connection.execute(ADVISORY)
        with psycopg.connect(house.dsn, autocommit=True) as owner:
            owner.execute("set statement_timeout = '20s'")
            assert migrate(owner) == []
            assert separate(owner) is None
        assert build(settings, select=["users", "top_users"], tests=False).passes
        drain_dataset(loader.deployment, "jobs")
        assert connection.execute("select 1").fetchone() == (1,)  # nor was it ended for its name


@pytest.mark.security("R4")
def test_readers_cannot_take_the_locks_of_init_and_builds(reader: Stage, loader: Stage, dbt: Stage) -> None:
    for stage in (reader, loader):
        assert_denied(
            stage,
            "lock table headrace.build_lock in exclusive mode",
            "lock table headrace.migrations in exclusive mode",
            "insert into headrace.model_locks (name) values ('marts.users')",
            "select * from headrace.model_locks for update",
        )
    assert_denied(dbt, "lock table headrace.migrations in exclusive mode", "lock table headrace.datasets in share mode")


@pytest.mark.security("R4")
def test_init_that_a_reader_holds_up_ends_and_names_the_reader(
    house: Stage, reader: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.postgres.migrations.MIGRATION_WAIT_MS", 200)
    house.execute("alter table marts.rides owner to current_user")
    with psycopg.connect(reader.dsn, application_name="a dashboard") as connection:
        connection.execute("select from marts.rides limit 1")
        with pytest.raises(
            DatabaseError,
            match=rf"^postgres: roles: found a table locked .*\(pid {connection.info.backend_pid}, user "
            r"test_headrace_reader, application 'a dashboard'\), .*then run `headrace init` again$",
        ):
            initialise(house.deployment)
    initialise(house.deployment)
    assert house.query("select distinct tableowner from pg_tables where schemaname = 'marts'") == [(DBT,)]


@pytest.mark.security("R5")
def test_builds_call_no_function_of_a_schema_that_anyone_may_write_to(
    house: Stage, dbt: Stage, stranger: Stage
) -> None:
    def called() -> tuple[object, ...] | None:
        """What the name is in a session of dbt: pg_catalog's has another argument's type."""
        options = f"-c search_path={dbt.value('select headrace.dbt_search_path()')}".replace(", ", r",\ ")
        with psycopg.connect(dbt.dsn, options=options) as connection:
            return connection.execute("select md5('\\x00'::varchar)").fetchone()

    planted = "create function public.md5(varchar) returns text language sql as $$ select 'planted' $$"
    house.execute("grant create on schema public to public")
    try:
        stranger.execute(planted)
        assert called() != ("planted",)
    finally:
        stranger.execute("drop function if exists public.md5(varchar)")
        house.execute("revoke create on schema public from public")
    assert_denied(stranger, planted)
    house.execute(planted)  # of an extension, say
    try:
        assert called() == ("planted",)
    finally:
        house.execute("drop function public.md5(varchar)")
