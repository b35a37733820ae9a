"""Upgrade, backup and uninstall: data stays, a restored database continues, an uninstalled one is clean."""

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from headrace.deployment import Deployment
from headrace.ingest.opening import open_source
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.plan import make_plan
from headrace.ingest.prepare import initialise, prepare_generation
from headrace.ingest.runner import RunOptions, drain_plan
from headrace.local.services import postgres_binary
from headrace.postgres import migrations as database
from headrace.postgres import staging
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.ledger import RunContext
from headrace.postgres.roles import LOADER, ROLES
from headrace.postgres.staged_tables import all_tables
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.commands import headrace
from tests.support.databases import passing_database
from tests.support.interrupts import at, drain
from tests.support.jobs import jobs, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, coordinates, environment
from tests.support.logins import login
from tests.support.runbook import BLOCK, SECTIONS
from tests.support.stage import Stage

RUNBOOK = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text()
MIGRATIONS = database._migrations()


# what today's drain, which stands in for an older version's, writes into and an older version's does not
SINCE = (
    "alter table headrace.batches add column if not exists note text, add column if not exists map_index integer",
    "alter table headrace.batches add column if not exists ignored bigint not null default 0",
    "alter table headrace.batches add column if not exists elements jsonb",
    "alter table headrace.checkpoints add column if not exists topic text, add column if not exists topic_id text",
    "alter table headrace.checkpoints add column if not exists topic_partition integer",
    "alter table headrace.checkpoints add column if not exists is_closed boolean not null default false",
    "alter table headrace.generations add column if not exists cluster_id text",
    "alter table if exists headrace.observations add column if not exists command text[]",
    "alter table if exists headrace.failures add column if not exists command text[]",
)


@pytest.mark.parametrize("version", [1, *range(len(MIGRATIONS) - 1, 1, -4)])  # every fourth, the latest among them
def test_upgrade_from_an_older_version_keeps_the_data_while_a_drain_goes_on(
    version: int, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The drain begins on the old tables, and commits before, while and after they are altered."""
    stage.execute("drop schema headrace cascade", "drop schema staging cascade", "drop schema if exists marts cascade")
    stage = Stage(Deployment.from_settings(replace(stage.deployment.settings, batch_rows=10)), stage.dsn)
    ours, jobs = stage.deployment, stage.deployment.dataset("jobs")
    sent = send_jobs(stage, 180)
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        with monkeypatch.context() as older:
            older.setattr(database, "_migrations", lambda: MIGRATIONS[:version])
            assert database.migrate(connection) == [name for name, _ in MIGRATIONS[:version]]
        for statement in SINCE:
            connection.execute(statement.encode())
        with connection.transaction():
            Checkpoints(connection, "jobs").register()
            staging.ensure_tables(connection, all_tables(jobs))
        with closing(open_source(ours, jobs)) as source:
            state = source.describe()
            generation = prepare_generation(Checkpoints(connection, "jobs"), jobs, source, state, RunContext())
            planned = make_plan(generation, state)
    with ThreadPoolExecutor(1) as pool:
        upgrades: list[Future[list[str]]] = []
        begin = at("advanced", lambda: upgrades.append(pool.submit(initialise, ours)), occurrence=6)
        drain_plan(ours, jobs, planned, options=RunOptions(barrier=begin))
        assert upgrades[0].result(30) == [name for name, _ in MIGRATIONS[version:]]
    assert_ledger(stage, sent)
    sent += send_jobs(stage, 30)
    drain_dataset(ours, "jobs")
    assert_ledger(stage, sent)
    assert verify(ours, "jobs", deep=True).is_clean


@contextmanager
def restored(stage: Stage, dump: Path) -> Iterator[Stage]:
    """The stage on a database that was made from a dump."""
    with passing_database(stage.dsn, "restored") as dsn:
        command = [str(postgres_binary("pg_restore")), "--exit-on-error", "--dbname", dsn, str(dump)]
        subprocess.run(command, check=True, capture_output=True)
        yield Stage(Deployment.from_settings(replace(stage.deployment.settings, postgres_dsn=dsn)), dsn)


def test_restored_database_verifies_and_drains_on_from_its_own_checkpoints(stage: Stage, tmp_path: Path) -> None:
    dump = tmp_path / "headrace.dump"
    sent = send_jobs(stage, 90)
    drain_dataset(stage.deployment, "jobs", max_records=50)

    def back_up() -> None:
        command = [str(postgres_binary("pg_dump")), "--format=custom", f"--file={dump}", stage.dsn]
        subprocess.run(command, check=True, capture_output=True)

    drain(stage, at("staged", back_up, occurrence=1))  # in the middle of a batch: a dump is one moment
    sent += send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    with restored(stage, dump) as older:
        assert 0 < len(coordinates(older)) < 90
        for command in BLOCK.findall(SECTIONS["The database was restored from a backup"])[1].splitlines():
            said = headrace(environment(older.deployment.settings), *command.split()[1:])
            assert said.status == 0, said.output
        assert_ledger(older, sent)
        assert verify(older.deployment, "jobs", deep=True).is_clean
        with login(older.dsn, LOADER) as dsn:  # grants came with the dump
            send_jobs(older, 3)
            drain_dataset(Deployment.from_settings(replace(older.deployment.settings, postgres_dsn=dsn)), "jobs")
        assert len(coordinates(older)) == 123


LEFT = """
select 'schema', nspname::text from pg_namespace where nspname !~ '^pg_(toast_)?temp'
union all select 'role', rolname::text from pg_roles
union all select 'relation', oid::regclass::text from pg_class where relnamespace >= 16384
union all select 'function', oid::regprocedure::text from pg_proc where pronamespace >= 16384
union all select 'default grant', oid::text from pg_default_acl
union all select 'extension', extname::text from pg_extension
union all select 'setting', setconfig::text from pg_db_role_setting
order by 1, 2
"""


def test_uninstall_leaves_no_trace(database: str, tmp_path: Path) -> None:
    """The group roles of other databases are set aside meanwhile: they are the whole server's."""
    uninstall = re.findall(r"^```sql\n(.*?)\n```$", RUNBOOK, re.MULTILINE | re.DOTALL)
    assert len(uninstall) == 2
    (tmp_path / "users.py").write_text((Settings().datasets_dir / "users.py").read_text())
    with psycopg.connect(database, autocommit=True) as connection:
        others = connection.execute("select rolname from pg_roles where rolname = any(%s)", (list(ROLES),)).fetchall()
        for (role,) in others:
            connection.execute(SQL("alter role {} rename to {}").format(Identifier(role), Identifier(f"{role}_aside")))
        try:
            before = connection.execute(LEFT).fetchall()
            initialise(Deployment.from_settings(Settings(home=tmp_path, postgres_dsn=database, datasets_dir=tmp_path)))
            assert len(connection.execute(LEFT).fetchall()) > len(before) + 20
            for statements in uninstall:
                connection.execute(statements.encode())
            assert connection.execute(LEFT).fetchall() == before
        finally:
            for (role,) in others:
                aside = Identifier(f"{role}_aside")
                connection.execute(SQL("alter role {} rename to {}").format(aside, Identifier(role)))


def test_topics_that_uninstall_speaks_of_are_those_that_a_drain_leaves(stage: Stage) -> None:
    """The consumer group, for lag tools, is all that a drain writes into Kafka.

    Other tests use the broker at the same time, so the dataset has a name that no other test's topic contains.
    """
    topic, settings = topic_of(stage), stage.deployment.settings
    name = topic.replace("topic-", "drained_by_itself_")
    declared = (settings.datasets_dir / "jobs.py").read_text()
    (settings.datasets_dir / f"{name}.py").write_text(declared.replace('name="jobs"', f'name="{name}"'))
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    with topics.admin(servers(stage)) as client:
        before = set(client.list_topics())
        assert topic in before
        topics.send(servers(stage), topic, jobs(3))
        drain_dataset(deployment, name)
        made = set(client.list_topics()) - before
        own = re.compile(rf"{name}|{topic}(?!\d)")
        assert not list(filter(own.search, made))
        # a new broker first makes the topic of the groups: until then a drain goes on without one
        for _ in range(60):
            groups = {group["group_id"] for group in client.list_groups()}
            if f"headrace.{name}" in groups:
                break
            time.sleep(0.5)
            topics.send(servers(stage), topic, jobs(1))
            drain_dataset(deployment, name)
    assert set(filter(own.search, groups)) == {f"headrace.{name}"}
