"""Tables: migrated once, also by concurrent runs, and extended to their contracts."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from headrace.exceptions import DatabaseError, DatasetError, DatasetsRejected
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.postgres.migrations import migrate
from tests.support import topics
from tests.support.command_line import run
from tests.support.jobs import job, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage

SCHEMA = (
    "select table_schema, table_name, column_name, data_type, is_nullable, column_default "
    "from information_schema.columns where table_schema in ('headrace', 'staging', 'marts') "
    "order by 1, 2, ordinal_position"
)


def test_migrations_applied_twice_do_nothing_the_second_time(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        applied = migrate(connection)
        assert applied == sorted(applied)
        assert applied[0] == "0001_bookkeeping"
        schema = connection.execute(SCHEMA).fetchall()
        assert migrate(connection) == []
        assert connection.execute(SCHEMA).fetchall() == schema
        assert connection.execute("select name from headrace.migrations order by 1").fetchall() == [
            (n,) for n in applied
        ]


def test_migrations_applied_by_four_at_once_are_applied_once(database: str) -> None:
    meeting = threading.Barrier(4)

    def run(_: int) -> list[str]:
        with psycopg.connect(database, autocommit=True) as connection:
            meeting.wait(20)
            return migrate(connection)

    with ThreadPoolExecutor(4) as pool:
        applied = sorted(pool.map(run, range(4)))
    assert applied[:3] == [[], [], []]
    assert applied[3]


def test_initialisation_by_four_at_once_makes_every_table_once(stage: Stage) -> None:
    stage.execute("drop schema staging cascade", "drop schema headrace cascade")
    meeting = threading.Barrier(4)

    def run(_: int) -> list[str]:
        meeting.wait(20)
        return initialise(stage.deployment)

    with ThreadPoolExecutor(4) as pool:
        assert sum(map(bool, pool.map(run, range(4)))) == 1
    load_file(stage.deployment, "users")


def test_init_makes_the_others_where_datasets_are_rejected(stage: Stage) -> None:
    folder = stage.deployment.settings.datasets_dir
    (folder / "a_typo.py").write_text("DATASET = Dataset(")
    stage.execute("drop table staging.users, staging._replaced_users")
    with pytest.raises(DatasetsRejected, match=r"a_typo\.py: cannot be imported: SyntaxError"):
        initialise(stage.deployment)
    assert stage.value("select count(*) from staging.users") == 0
    stage.execute(
        "drop table staging.users, staging._replaced_users", "alter table staging.jobs add column former text"
    )
    outcome = run(stage, "init")
    assert (outcome.status, outcome.stdout) == (1, "")
    first, second, last = outcome.stderr.splitlines()
    assert first.startswith(f"{folder / 'a_typo.py'}: cannot be imported: SyntaxError")
    assert second.startswith("staging.jobs.former: found a column that the contract does not name")
    assert last == (
        "headrace: 2 of 3 datasets are rejected: a_typo, jobs; the others are ready; correct these and run "
        "`headrace init` again"
    )
    assert stage.value("select count(*) from staging.users") == 0
    assert stage.value("select has_table_privilege('headrace_loader', 'staging.users', 'insert')")


def test_migration_that_fails_leaves_nothing_of_itself(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [
        ("0001_a", "create table headrace.a (x int)"),
        ("0002_b", "create table headrace.b (x int); select 1 / 0"),
    ]
    monkeypatch.setattr("headrace.postgres.migrations._migrations", lambda: broken)
    with psycopg.connect(database, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            migrate(connection)
        assert connection.execute("select to_regnamespace('headrace')").fetchone() == (None,)


def test_upgrade_drops_the_index_that_claims_need_no_more(stage: Stage) -> None:
    indexes = (
        "select indexname from pg_indexes where schemaname = 'staging' and tablename in ('jobs', '_replaced_jobs') "
        "order by 1"
    )
    needed = stage.query(indexes)
    stage.execute(
        "create index on staging.jobs (_batch_id); delete from headrace.migrations where name = '0008_rows_of_a_batch'"
    )
    assert len(stage.query(indexes)) == len(needed) + 1
    initialise(stage.deployment)
    assert stage.query(indexes) == needed
    assert ("_rbatch_jobs",) in needed


def test_migration_of_a_table_that_stays_locked_gives_up_in_one_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.postgres.migrations.MIGRATION_WAIT_MS", 200)
    again = "delete from headrace.migrations where name = '0008_rows_of_a_batch'"
    stage.execute("create index by_batch on staging.jobs (_batch_id)", again)
    with psycopg.connect(stage.dsn) as reader:
        reader.execute("select count(*) from staging.jobs")
        with pytest.raises(
            DatabaseError,
            match=r"^postgres: migration 0008_rows_of_a_batch: found a table locked .*`headrace init` again$",
        ):
            initialise(stage.deployment)
    assert stage.value("select to_regclass('staging.by_batch') is not null")
    assert initialise(stage.deployment) == ["0008_rows_of_a_batch"]
    assert stage.value("select to_regclass('staging.by_batch') is null")


def test_marts_of_an_older_version_get_indexes_and_replica_identities(stage: Stage) -> None:
    stage.execute(
        "delete from headrace.migrations where name in ('0010_replica_identity', '0011_minutes_on_every_version')",
        "alter table staging._replaced_jobs replica identity default",
        "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) values ('mine', 'r', 'jobs', 0, '{}')",
        "create schema mine",
        "create table mine.r (at timestamptz, kpi text)",
        "create index old on mine.r (date_trunc('hour', at, 'UTC'), kpi)",
    )
    assert initialise(stage.deployment) == ["0010_replica_identity", "0011_minutes_on_every_version"]
    assert stage.query("select pg_get_indexdef(indexrelid) from pg_index where indrelid = 'mine.r'::regclass") == [
        (
            "CREATE INDEX r_timezone_kpi_idx ON mine.r USING btree ((date_trunc('hour'::text, "
            "(at AT TIME ZONE 'UTC'::text)) AT TIME ZONE 'UTC'::text), kpi)",
        )
    ]
    assert stage.query(
        "select distinct relreplident from pg_class "
        "where oid in ('mine.r'::regclass, 'staging._replaced_jobs'::regclass)"
    ) == [("f",)]


def test_database_without_tables_is_refused_in_one_line(stage: Stage) -> None:
    stage.execute("drop schema headrace cascade")
    with pytest.raises(DatabaseError, match=r"^postgres: .*; expected Headrace's tables; run `headrace init`$"):
        drain_dataset(stage.deployment, "jobs")


def declare(stage: Stage, old: str, new: str) -> Path:
    path = stage.deployment.settings.datasets_dir / "jobs.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_contract_with_a_new_optional_field_adds_a_column(stage: Stage) -> None:
    sent = send_jobs(stage, 5)
    drain_dataset(stage.deployment, "jobs")
    declare(stage, "    USERID: Integer\n", "    USERID: Integer\n    CHANNEL: Text | None = None\n")
    sent += topics.send(servers(stage), topic_of(stage), [(0, b"903", job(903, CHANNEL="web"))])
    drain_dataset(stage.deployment, "jobs")
    found = stage.query("select channel, count(*), count(_extra) from staging.jobs group by 1 order by 1")
    assert found == [("web", 1, 0), (None, 5, 0)]
    assert_ledger(stage, sent)
    replaced = (
        "select count(*) from information_schema.columns "
        "where table_name = '_replaced_jobs' and column_name = 'channel'"
    )
    assert stage.value(replaced) == 1


def test_contract_without_a_former_field_keeps_it_as_an_extra_once_its_column_is_renamed(stage: Stage) -> None:
    sent = send_jobs(stage, 5)
    drain_dataset(stage.deployment, "jobs")
    declare(stage, "    SERVICENAME: Text\n", "")
    sent += topics.send(servers(stage), topic_of(stage), [(0, b"903", job(903))])
    with pytest.raises(DatasetError, match=r"jobs\.servicename: found a column that the contract does not name"):
        drain_dataset(stage.deployment, "jobs")
    stage.execute(
        "alter table staging.jobs rename column servicename to _former_servicename; "
        "alter table staging._replaced_jobs rename column servicename to _former_servicename"
    )
    drain_dataset(stage.deployment, "jobs")
    assert stage.query("select _former_servicename, _extra from staging.jobs where jobidentifier = 903") == [
        (None, {"SERVICENAME": "S"})
    ]
    assert stage.value("select count(*) from staging.jobs where _former_servicename = 'S'") == 5
    assert_ledger(stage, sent)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "USERID: Integer\n",
            "USERID: Text\n",
            r"staging\.jobs\.userid: found bigint, expected text; .*write a migration",
        ),
        (
            "USERID: Integer\n",
            "USERID: Integer\n    CHANNEL: Text\n",
            r"has no column channel, which the contract requires",
        ),
        (
            "LOCATION: Text\n",
            "LOCATION: Integer | None = None\n",
            r"staging\.jobs\.location: found text, expected bigint",
        ),
    ],
)
def test_contract_that_changes_otherwise_is_refused_with_the_migration_to_write(
    old: str, new: str, message: str, stage: Stage
) -> None:
    sent = send_jobs(stage, 5)
    drain_dataset(stage.deployment, "jobs")
    declare(stage, old, new)
    steps: list[Callable[[], object]] = [
        lambda: drain_dataset(stage.deployment, "jobs"),
        lambda: initialise(stage.deployment),
    ]
    for step in steps:
        with pytest.raises(DatasetError, match=message + r".*alter table staging\.\"jobs\""):
            step()
    assert_ledger(stage, sent)
