"""Rights of the loader, dbt and a reader: each is a login in its group and tries what it must not do."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError, DatasetError, DatasetPaused
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.pauses import pause_dataset, resume_dataset
from headrace.ingest.prepare import initialise
from headrace.local.services import psql_command
from headrace.marts.build import build
from headrace.monitor.status import read_status
from headrace.postgres.roles import DBT, LOADER, ROLES
from headrace.repair.generations import accept_loss, reset
from headrace.repair.reload import reload_range
from headrace.repair.replay import replay
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.adoption import force_adopt
from tests.support.jobs import topic_of
from tests.support.logins import PASSWORD, as_role, login
from tests.support.role_checks import RECORDS, assert_denied
from tests.support.stage import Stage


def test_loader_drains_replays_reloads_and_looks_at_all_of_it(house: Stage, loader: Stage) -> None:
    ours, jobs = loader.deployment, loader.deployment.dataset("jobs")
    assert house.value("select count(*) from headrace.batches where dataset = 'jobs'") >= 3
    assert house.value("select sum(staged + dead) from headrace.batches where dataset = 'jobs'") == RECORDS
    assert replay(ours, jobs).records > 0
    first = house.value("select min(_offset) from staging.jobs where _partition = 0")
    assert reload_range(ours, jobs, str(first), str(first + 20), partition=0).partitions[0].replaced > 0
    assert read_status(ours.connect("test")).dead_letters
    assert verify(ours, "jobs", deep=True).is_clean
    with pytest.raises(DatasetError, match="only offsets that the source no longer serves"):
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


def test_loader_may_pause_and_change_no_pause_of_the_past_and_a_reader_may_only_look(
    house: Stage, loader: Stage, reader: Stage
) -> None:
    pause_dataset(loader.deployment, "jobs", "an upgrade")
    with pytest.raises(DatasetPaused, match="an upgrade"):
        drain_dataset(loader.deployment, "jobs")
    assert reader.query("select dataset, why from headrace.pauses where resumed_at is null") == [("jobs", "an upgrade")]
    assert_denied(
        loader,
        "delete from headrace.pauses",
        "update headrace.pauses set why = 'x'",
        "insert into headrace.pauses (dataset, paused_by, why, paused_at) values ('users', 'x', 'x', '2020-01-01')",
    )
    assert_denied(
        reader,
        "insert into headrace.pauses (dataset, paused_by, why) values ('users', 'x', 'x')",
        "update headrace.pauses set resumed_at = now(), resumed_by = 'x', resumed_login = 'x'",
    )
    assert resume_dataset(loader.deployment, "jobs") is not None
    drain_dataset(loader.deployment, "jobs")
    login = house.value("select paused_login from headrace.pauses")
    assert login.startswith("test_headrace_loader"), login


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
        more.write_text(text.replace('name="jobs"', 'name="more_jobs"').replace(topic_of(house), "roles-more"))
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
