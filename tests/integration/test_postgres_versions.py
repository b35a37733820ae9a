"""The whole way on every supported version of PostgreSQL, for a role with hostile defaults in a hostile environment."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from headrace.build import build
from headrace.exceptions import DatabaseError
from headrace.follow import follow
from headrace.generate import generate
from headrace.ingest import Deployment, drain_dataset, initialise, load_file, plan
from headrace.problems import judge
from headrace.produce import produce
from headrace.settings import Settings
from headrace.status import read_status
from headrace.verify import verify
from tests.databases import passing_database
from tests.debian import NotAvailable
from tests.integration import topics
from tests.integration.conftest import Stage
from tests.postgres_servers import server

PLACE = "Kraków → 東京"  # in LATIN1 the first is other bytes, and the others are nothing at all
RECORDS = 300

# alter role .. set; what a session inherits where it says nothing
HOSTILE = {
    "client_encoding": "LATIN1",
    "datestyle": "German",
    "intervalstyle": "sql_standard",
    "timezone": "Asia/Kathmandu",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "search_path": "shadows, pg_catalog",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "default_transaction_deferrable": "on",
    "statement_timeout": "50ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "50ms",
    "idle_session_timeout": "50ms",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
}
ENVIRONMENT = {
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "SQL, DMY",
    "PGTZ": "America/New_York",
    "PGOPTIONS": "-c extra_float_digits=-15 -c search_path=shadows,pg_catalog",
}
# better matches than pg_catalog's own, for whoever looks for them here first
SHADOWS = """
create schema shadows;
create function shadows.lower(text) returns text language sql immutable as 'select ''shadowed''';
create function shadows.now() returns timestamptz language sql as 'select ''2000-01-01 UTC''::timestamptz';
create function shadows.clock_timestamp() returns timestamptz language sql as 'select ''2000-01-01 UTC''::timestamptz';
create function shadows.date_trunc(text, timestamp) returns timestamp language sql as 'select ''2000-01-01''::timestamp';
create function shadows.set_config(text, text, boolean) returns text language sql as 'select $2';
create function shadows.pg_backend_pid() returns integer language sql as 'select 1';
create function shadows.to_regclass(text) returns regclass language sql as 'select null::regclass';
create table shadows.pg_attribute (attname text);
create domain shadows.text as pg_catalog.text check (value = '');
grant usage on schema shadows to public;
"""

_results: dict[str, Any] = {}


def make_hostile(server_dsn: str, database_dsn: str, role: str) -> None:
    """Give a role, in a database of its own, every default that changes results."""
    database = str(conninfo_to_dict(database_dsn)["dbname"])
    with psycopg.connect(database_dsn, autocommit=True) as connection:
        connection.execute(SHADOWS.encode())
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        defaults = dict(HOSTILE)
        if connection.info.server_version >= 170_000:
            defaults["transaction_timeout"] = "50ms"
        for number, (name, value) in enumerate(defaults.items()):
            whose = SQL("role {}").format(Identifier(role)) if number % 2 else SQL("database {}")
            connection.execute(
                SQL("alter {} set {} = {}").format(
                    whose.format(Identifier(database)) if isinstance(whose, SQL) else whose,
                    SQL(name),
                    SQL(value) if name == "search_path" else value,
                )
            )


@pytest.fixture(scope="module", params=[15, 16, 18])
def versions_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a server of each version."""
    try:
        with server(request.param, "-c", "wal_level=logical") as dsn:
            yield dsn
    except NotAvailable as error:
        pytest.skip(str(error))


def _datasets(folder: Path, servers: str, names: dict[str, str]) -> Path:
    """The project's datasets, each reading from a topic or stream of this test's own."""
    folder.mkdir()
    for declared in Settings().datasets_dir.glob("*.py"):
        text = re.sub(
            r'\b(topic|stream)="(\w+)"', lambda found: f'{found[1]}="{names[found[2]]}"', declared.read_text()
        )
        (folder / declared.name).write_text(text)
    for name in ("jobs", "events", "rides"):
        topics.create(servers, names[name], 3, retention_ms="-1")
    return folder


def test_whole_way_on_this_version_is_as_on_the_others(
    versions_dsn: str,
    bootstrap_servers: str,
    redis_url: str,
    topic: str,
    session_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = {name: f"{topic}-{name}" for name in ("jobs", "events", "rides", "telemetry_stream")}
    datasets_dir = _datasets(tmp_path / "datasets", bootstrap_servers, names)
    with psycopg.connect(versions_dsn, autocommit=True) as connection:
        connection.execute("create role etl login createrole")
        connection.execute("create database sales owner etl")
    dsn = make_conninfo(versions_dsn, user="etl", dbname="sales")
    make_hostile(versions_dsn, make_conninfo(versions_dsn, dbname="sales"), "etl")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    # the administrator looks at it without any of this
    plain = make_conninfo(versions_dsn, dbname="sales", client_encoding="UTF8", options="-c timezone=UTC")
    settings = Settings(
        home=session_home,
        postgres_dsn=dsn,
        kafka_bootstrap_servers=bootstrap_servers,
        redis_url=redis_url,
        datasets_dir=datasets_dir,
    )
    stage = Stage(Deployment.from_settings(settings), plain)
    initialise(stage.deployment)
    stage.execute("create publication everything for all tables")

    _drain_all(stage, tmp_path, seed=1)
    load_file(stage.deployment, "users")
    build(settings)
    _drain_all(stage, tmp_path, seed=2)  # other versions of the same keys: the marts are merged into
    build(settings)
    _send(stage, tmp_path, "jobs", _lines(stage, "jobs", seed=3))
    follow(stage.deployment, ("jobs",), max_seconds=4)

    verification = verify(stage.deployment, deep=True)
    assert verification.is_clean, list(verification.lines())
    overview = judge(read_status(stage.deployment.connect("test")), settings)
    assert [problem.text for problem in overview.problems if problem.severity == "error"] == []
    assert [dataset.lag for dataset in overview.status.datasets] == [0] * 5
    found = _contents(stage)
    assert {row[0] for row in stage.query("select location from marts.jobs")} >= {PLACE}
    expected = _results.setdefault("contents", found)
    for name in expected:
        assert found[name] == expected[name], name


def _lines(stage: Stage, dataset: str, seed: int) -> list[bytes]:
    lines = list(generate(dataset, RECORDS, seed, 3, stage.deployment.settings.data_dir))
    if dataset != "jobs":
        return lines
    changed = []
    for number, line in enumerate(lines):
        key, bar, text = line.partition(b"|")
        try:
            record = json.loads(text)
            if number % 10 == 0 and isinstance(record.get("LOCATION"), str):
                line = key + bar + json.dumps({**record, "LOCATION": PLACE}, ensure_ascii=False).encode() + b"\n"
        except (ValueError, AttributeError):
            pass  # one of the invalid ones
        changed.append(line)
    return changed


def _send(stage: Stage, folder: Path, dataset: str, lines: list[bytes]) -> None:
    path = folder / f"{dataset}.lines"
    path.write_bytes(b"".join(lines))
    produce(stage.deployment, stage.deployment.dataset(dataset), path)


def _drain_all(stage: Stage, folder: Path, seed: int) -> None:
    for dataset in ("jobs", "events", "rides", "telemetry"):
        _send(stage, folder, dataset, _lines(stage, dataset, seed))
        drain_dataset(stage.deployment, dataset)


def _contents(stage: Stage) -> dict[str, list[Any]]:
    """What every mart holds, and every staging table but for when its records were sent."""
    tables = stage.query(
        "select format('%I.%I', table_schema, table_name), "
        "string_agg(format('%I', column_name), ', ' order by ordinal_position) from information_schema.columns "
        "where table_schema in ('marts', 'staging') "
        "and column_name not in ('_timestamp', '_batch_id', '_key', '_replaced_by') group by 1 order by 1"
    )
    return {
        name: stage.query(f"select ({columns})::text from {name} order by ({columns})::text collate \"C\"")
        for name, columns in tables
    }


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_database_that_is_not_utf8_is_refused_in_one_line(postgres_dsn: str, stage: Stage, encoding: str) -> None:
    with passing_database(postgres_dsn, "other_encoding", encoding=encoding) as dsn:
        deployment = Deployment.from_settings(Settings(home=stage.deployment.settings.home, postgres_dsn=dsn))
        for refused in (
            lambda: initialise(deployment),
            lambda: plan(deployment, stage.deployment.dataset("users")),
            lambda: build(deployment.settings),
            lambda: read_status(deployment.connect("test")),
        ):
            with pytest.raises(DatabaseError) as caught:
                refused()
            assert re.fullmatch(
                f"postgres: found the database other_encoding with encoding {encoding}, expected UTF8: .*"
                r"create database NAME encoding 'UTF8' template template0.*",
                str(caught.value),
            )
