"""Who may do what: a loader, dbt and a reader, each a login role in its group, each trying what it must not."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError, DatasetError
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.local.services import psql_command
from headrace.marts.build import build
from headrace.monitor.status import read_status
from headrace.postgres.connection import connector
from headrace.postgres.migrations import migrate
from headrace.postgres.roles import DBT, LOADER, READER, ROLES, separate
from headrace.repair.generations import accept_loss, reset
from headrace.repair.reload import reload_range
from headrace.repair.replay import replay
from headrace.sample.case_answers import read_case_answers
from headrace.sample.generate import generate_jobs
from headrace.sample.produce import produce
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.adoption import force_adopt
from tests.support.databases import passing_database
from tests.support.logins import PASSWORD, as_role, let_in, login
from tests.support.stage import Stage
from tests.support.warehouse import Warehouse

RECORDS = 300
TOPIC = "roles-jobs"


@pytest.fixture(scope="module")
def house(
    postgres_dsn: str, bootstrap_servers: str, session_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A database made by its owner, with all datasets; jobs were produced, some of them invalid."""
    datasets_dir = tmp_path_factory.mktemp("roles") / "datasets"
    datasets_dir.mkdir()
    for path in Settings().datasets_dir.glob("*.py"):
        (datasets_dir / path.name).write_text(path.read_text().replace('topic="jobs"', f'topic="{TOPIC}"'))
    with passing_database(postgres_dsn, "roles") as dsn:
        settings = Settings(
            home=session_home,
            postgres_dsn=dsn,
            kafka_bootstrap_servers=bootstrap_servers,
            datasets_dir=datasets_dir,
            batch_rows=100,
        )
        deployment = Deployment.from_settings(settings)
        initialise(deployment)
        topics.create(bootstrap_servers, TOPIC, 3, retention_ms="-1")
        lines = datasets_dir / "jobs.kafka"
        lines.write_bytes(b"".join(generate_jobs(RECORDS, 5, 10, settings.data_dir / "users.ndjson")))
        produce(deployment, deployment.dataset("jobs"), lines)
        yield Stage(deployment, dsn)


@pytest.fixture(scope="module")
def loader(house: Stage) -> Iterator[Stage]:
    """The house as the loader sees it; users and jobs are staged by it."""
    with login(house.dsn, LOADER) as dsn:
        stage = Stage(Deployment.from_settings(replace(house.deployment.settings, postgres_dsn=dsn)), dsn)
        load_file(stage.deployment, "users")
        drain_dataset(stage.deployment, "jobs")
        yield stage


@pytest.fixture(scope="module")
def dbt(house: Stage, loader: Stage) -> Iterator[Stage]:
    """The house as dbt sees it; the marts are built by it."""
    with login(house.dsn, DBT) as dsn:
        settings = replace(loader.deployment.settings, dbt_dsn=dsn)
        build(settings)
        yield Stage(Deployment.from_settings(settings), dsn)


@pytest.fixture(scope="module")
def reader(house: Stage, dbt: Stage) -> Iterator[Stage]:
    """The house as an analyst sees it."""
    with login(house.dsn, READER) as dsn:
        yield Stage(Deployment.from_settings(replace(house.deployment.settings, postgres_dsn=dsn)), dsn)


def assert_denied(stage: Stage, *statements: str) -> None:
    """Each statement is refused for want of a privilege; nothing is left of those that are not."""
    for statement in statements:
        with psycopg.connect(stage.dsn) as connection:
            try:
                connection.execute(statement.encode())
            except psycopg.errors.InsufficientPrivilege:
                continue
            finally:
                connection.rollback()
            raise AssertionError(f"was allowed: {statement}")


def test_loader_drains_replays_reloads_and_looks_at_all_of_it(house: Stage, loader: Stage) -> None:
    ours, jobs = loader.deployment, loader.deployment.dataset("jobs")
    assert house.value("select count(*) from headrace.batches where dataset = 'jobs'") >= 3
    assert house.value("select sum(staged + dead) from headrace.batches where dataset = 'jobs'") == RECORDS
    assert replay(ours, jobs).records > 0
    first = house.value("select min(_offset) from staging.jobs where _partition = 0")
    assert reload_range(ours, jobs, str(first), str(first + 20), partition=0).partitions[0].replaced > 0
    assert read_status(ours.connect("test")).dead_letters
    assert verify(ours, "jobs", deep=True).is_clean
    with pytest.raises(DatasetError, match="only what the source no longer serves"):
        accept_loss(ours, jobs, 0, 1)


def test_loader_may_not_read_marts_nor_change_tables_or_the_ledger(dbt: Stage, loader: Stage) -> None:
    assert_denied(
        loader,
        "select * from marts.jobs",
        "select * from marts.top_users('LOC_1')",
        "drop table staging.jobs",
        "drop table headrace.dead_letters cascade",
        "drop schema staging cascade",
        "truncate staging.jobs",
        "alter table staging.jobs add column x integer",
        "create table staging.more ()",
        "create table marts.more ()",
        "create view headrace.more as select 1",
        "update headrace.batches set staged = 0",
        "delete from headrace.batches",
        "delete from headrace.checkpoints",
        "delete from headrace.dead_letters",
        "update headrace.claims set to_seq = 0",
        "insert into headrace.migrations (name) values ('9999_more')",
    )


def test_loader_that_resets_is_refused_in_one_line_and_changes_nothing(house: Stage, loader: Stage) -> None:
    before = house.query("select count(*), max(committed_at) from headrace.batches")
    with pytest.raises(DatabaseError, match=r"^postgres: permission denied .*; nothing was changed; .*`headrace init`"):
        reset(loader.deployment, loader.deployment.dataset("jobs"))
    assert house.query("select count(*), max(committed_at) from headrace.batches") == before
    assert verify(house.deployment, "jobs").is_clean


def test_dbt_builds_in_the_groups_name_and_may_not_move_a_checkpoint(house: Stage, dbt: Stage) -> None:
    owners = house.query(
        "select distinct pg_get_userbyid(relowner) from pg_class where relnamespace = 'marts'::regnamespace"
    )
    assert owners == [(DBT,)]
    jobs = "select count(distinct jobidentifier) from staging.jobs where jobidentifier is not null"
    assert house.value("select count(*) from marts.jobs") == house.value(jobs)
    assert_denied(
        dbt,
        "update headrace.checkpoints set next_offset = 0",
        "delete from headrace.checkpoints",
        "update headrace.generations set is_open = false, closed_at = now()",
        "insert into headrace.batches (batch_id) values (gen_random_uuid())",
        "update headrace.datasets set last_seq = 0",
        "delete from staging.jobs",
        "insert into staging.users (userid) values (1)",
        "drop table staging.jobs",
        "select * from headrace.dead_letters",
    )


def test_dbt_of_another_login_replaces_what_the_first_one_built(house: Stage, dbt: Stage) -> None:
    with login(house.dsn, DBT, "test_headrace_dbt_second") as dsn:
        settings = replace(dbt.deployment.settings, dbt_dsn=dsn)
        build(settings, select="users", full_refresh=True, tests=False)
    assert house.value("select count(*) from marts.users") == 21_467


def test_marts_that_the_owner_built_are_handed_over_to_dbt(house: Stage, dbt: Stage) -> None:
    house.execute("alter table marts.users owner to current_user", "alter table marts.jobs owner to current_user")
    assert_denied(dbt, "alter table marts.users add column x integer")
    initialise(house.deployment)
    owners = house.query("select distinct tableowner from pg_tables where schemaname = 'marts'")
    assert owners == [(DBT,)]


def test_reader_asks_psql_and_sees_no_payload_of_a_dead_letter(house: Stage, reader: Stage) -> None:
    house.execute("create table marts.later as select 1 as x", f"alter table marts.later owner to {DBT}")
    command = psql_command(reader.deployment.settings)
    asked = ("select count(*) from marts.jobs", "select * from marts.top_users('LOC_1')", "table headrace.status")
    for question in (*asked, "select x from marts.later"):
        done = subprocess.run([*command, "-Atc", question], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    dead_letters = reader.query('select dataset, "offset", reason from headrace.dead_letters')
    assert dead_letters
    assert read_status(reader.deployment.connect("test")).dead_letters == []
    assert_denied(
        reader,
        *(f"select {column} from headrace.dead_letters" for column in ("value", "key", "headers", "detail", "*")),
        "select count(l.value) from headrace.dead_letters as l",
        "copy headrace.dead_letters to stdout",
        "select * from staging.jobs",
        "update headrace.checkpoints set next_offset = 0",
        "delete from marts.jobs",
        "create table marts.more ()",
    )


def test_tables_that_a_loader_may_not_make_are_made_by_init(house: Stage, loader: Stage) -> None:
    declared = loader.deployment.settings.datasets_dir / "jobs.py"
    text = declared.read_text()
    more = declared.with_name("more_jobs.py")
    try:
        declared.write_text(text.replace("USERID: Integer\n", "USERID: Integer\n    CHANNEL: Text | None = None\n"))
        with pytest.raises(
            DatasetError, match=r"^staging\.jobs: found no column channel, .*; run `headrace init` as the owner"
        ):
            drain_dataset(loader.deployment, "jobs")
        more.write_text(text.replace('name="jobs"', 'name="more_jobs"').replace(TOPIC, "roles-more"))
        servers = loader.deployment.settings.require_kafka_bootstrap_servers()
        topics.create(servers, "roles-more", 1)
        with pytest.raises(
            DatasetError, match=r"^staging\.more_jobs: found no table, .*; run `headrace init` as the owner"
        ):
            drain_dataset(loader.deployment, "more_jobs")
        initialise(house.deployment)
        topics.send(servers, "roles-more", [(0, b"1", b'{"JOBIDENTIFIER": "1"}')])
        drain_dataset(loader.deployment, "jobs")
        drain_dataset(loader.deployment, "more_jobs")
        assert house.value("select count(*) from headrace.dead_letters where dataset = 'more_jobs'") == 1
        assert force_adopt(loader.deployment, loader.deployment.dataset("more_jobs")) == 2
    finally:
        declared.write_text(text)
        more.unlink(missing_ok=True)
        house.execute("alter table staging.jobs drop column if exists channel")
        house.execute("alter table staging._replaced_jobs drop column if exists channel")


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


@pytest.fixture
def stranger(house: Stage) -> Iterator[Stage]:
    """The house as a login sees it that may connect, and nothing else."""
    with psycopg.connect(house.dsn, autocommit=True) as connection:
        connection.execute(f"create role test_stranger login password '{PASSWORD}'".encode())
        let_in(connection, "test_stranger")
        try:
            dsn = as_role(house.dsn, "test_stranger")
            yield Stage(Deployment.from_settings(replace(house.deployment.settings, postgres_dsn=dsn)), dsn)
        finally:
            connection.execute("drop owned by test_stranger cascade; drop role test_stranger")


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
@pytest.mark.parametrize("schema", ["headrace", "staging", "marts"])
def test_init_refuses_a_schema_of_another_role(schema: str, house: Stage, dbt: Stage) -> None:
    house.execute(f"alter schema {schema} owner to {DBT}")
    try:
        with pytest.raises(
            DatabaseError,
            match=rf'^postgres: schema {schema}: belongs to {DBT}, expected \w+, .*alter schema "{schema}" owner to',
        ):
            initialise(house.deployment)
    finally:
        house.execute(f"alter schema {schema} owner to current_user")
    assert initialise(house.deployment) == []


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


@pytest.mark.parametrize("attribute", ["nocreaterole", "createrole"])
def test_owner_who_may_not_create_roles_is_told_what_an_administrator_runs(
    attribute: str, database: str, tmp_path: Path
) -> None:
    """The group roles are set aside meanwhile: they are the whole server's."""
    name = conninfo_to_dict(database)["dbname"]
    (tmp_path / "users.py").write_text((Settings().datasets_dir / "users.py").read_text())
    with psycopg.connect(database, autocommit=True) as administrator:
        found = administrator.execute("select rolname from pg_roles where rolname = any(%s)", (list(ROLES),)).fetchall()
        for (role,) in found:
            administrator.execute(f"alter role {role} rename to {role}_aside".encode())
        administrator.execute(f"create role test_owner login {attribute} password '{PASSWORD}'".encode())
        administrator.execute(f"alter database {name} owner to test_owner".encode())
        try:
            dsn = as_role(database, "test_owner")
            settings = Settings(home=tmp_path, postgres_dsn=dsn, datasets_dir=tmp_path)
            deployment, said = Deployment.from_settings(settings), list[str]()
            assert initialise(deployment, said.append)
            load_file(deployment, "users")
            if attribute == "nocreaterole":
                assert len(said) == 1
                assert "test_owner may not create roles" in said[0]
                todo = re.search(r"an administrator runs: (.*); then run `headrace init` again", said[0])
                assert todo
                administrator.execute(todo[1].encode())
                assert initialise(deployment, said.append) == []
            assert len(said) == (attribute == "nocreaterole")
            with login(database, LOADER, "test_another_loader") as loader_dsn:
                loader = Stage(Deployment.from_settings(replace(settings, postgres_dsn=loader_dsn)), loader_dsn)
                assert load_file(loader.deployment, "users").unchanged
                assert_denied(loader, "drop table staging.users")
        finally:
            administrator.execute(f"alter database {name} owner to current_user".encode())
            administrator.execute(b"drop owned by test_owner cascade")
            administrator.execute(b"drop role if exists headrace_loader, headrace_dbt, headrace_reader")
            administrator.execute(b"drop role test_owner")
            for (role,) in found:
                administrator.execute(f"alter role {role}_aside rename to {role}".encode())
