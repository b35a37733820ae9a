"""From topic to mart on every supported version of PostgreSQL, with hostile defaults of role and environment."""

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError
from headrace.follow.follower import FollowOptions, follow
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.ingest.runner import plan
from headrace.marts.build import build
from headrace.monitor.problems import find_problems
from headrace.monitor.status import read_status
from headrace.sample.generate import generate
from headrace.sample.produce import produce
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.databases import passing_database
from tests.support.debian import PackageNotAvailable
from tests.support.hostile_database import ENVIRONMENT, LOCATION, make_hostile
from tests.support.postgres_servers import server
from tests.support.stage import Stage

RECORDS = 300

_results: dict[str, Any] = {}


# `make test` runs the newest version everywhere; `make test-postgres` compares all
@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.faults) for n in (15, 16, 18)])
def versions_dsn(request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a server of each version that no other test uses."""
    try:
        with server(request.param, "-c", "wal_level=logical") as dsn:
            yield dsn
    except PackageNotAvailable as error:
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
) -> None:
    names = {name: f"{topic}-{name}" for name in ("jobs", "events", "rides", "telemetry_stream")}
    datasets_dir = _datasets(tmp_path / "datasets", bootstrap_servers, names)
    with psycopg.connect(versions_dsn, autocommit=True) as connection:
        connection.execute("create role etl login createrole")
        connection.execute("create database sales owner etl")
    with psycopg.connect(versions_dsn, dbname="sales", autocommit=True) as connection:
        connection.execute("create publication everything for all tables")
    dsn = make_conninfo(versions_dsn, user="etl", dbname="sales")
    make_hostile(versions_dsn, make_conninfo(versions_dsn, dbname="sales"), "etl")
    settings = Settings(
        home=session_home,
        postgres_dsn=dsn,
        kafka_bootstrap_servers=bootstrap_servers,
        redis_url=redis_url,
        datasets_dir=datasets_dir,
    )
    stage = Stage(Deployment.from_settings(settings), make_conninfo(versions_dsn, dbname="sales"))
    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        initialise(stage.deployment)
        _drain_all(stage, tmp_path, seed=1)
        load_file(stage.deployment, "users")
        build(settings)
        _drain_all(stage, tmp_path, seed=2)  # other versions of the same keys: the marts are merged into
        build(settings, tests=False)
        _send(stage, tmp_path, "jobs", _lines(stage, "jobs", seed=3))
        follow(
            stage.deployment, ("jobs",), stop=threading.Event(), options=FollowOptions(max_seconds=3)
        ).raise_failures()
        verification = verify(stage.deployment, deep=True)
        overview = find_problems(read_status(stage.deployment.connect("test")), settings)
    with psycopg.connect(versions_dsn, autocommit=True) as connection:
        connection.execute("alter database sales reset all")
    assert verification.is_clean, list(verification.lines())
    assert [problem.text for problem in overview.problems if problem.severity == "error"] == []
    assert [dataset.lag for dataset in overview.status.datasets] == [0] * 5
    found = _contents(stage)
    assert {row[0] for row in stage.query("select location from marts.jobs")} >= {LOCATION}
    expected = _results.setdefault("contents", found)
    for name in expected:
        assert found[name] == expected[name], name


def _lines(stage: Stage, dataset: str, seed: int) -> list[bytes]:
    """Sample lines; of the jobs every tenth was done at PLACE."""
    lines = list(generate(dataset, RECORDS, seed, 3, stage.deployment.settings.data_dir))
    if dataset == "jobs":
        elsewhere = f'"LOCATION":"{LOCATION}"'.encode()
        lines[::10] = [re.sub(rb'"LOCATION": ?"LOC_\d+"', elsewhere, line) for line in lines[::10]]
    return lines


def _send(stage: Stage, folder: Path, dataset: str, lines: list[bytes]) -> None:
    path = folder / f"{dataset}.lines"
    path.write_bytes(b"".join(lines))
    produce(stage.deployment, stage.deployment.dataset(dataset), path)


def _drain_all(stage: Stage, folder: Path, seed: int) -> None:
    for dataset in ("jobs", "events", "rides", "telemetry"):
        _send(stage, folder, dataset, _lines(stage, dataset, seed))
        drain_dataset(stage.deployment, dataset)


def _contents(stage: Stage) -> dict[str, list[Any]]:
    """What every mart and staging table holds, but for where and when its records were sent."""
    tables = stage.query(
        "select format('%%I.%%I', table_schema, table_name), "
        "string_agg(format('%%I', column_name), ', ' order by ordinal_position) from information_schema.columns "
        "where table_schema in ('marts', 'staging') "
        "and column_name not in ('_timestamp', '_batch_id', '_key', '_replaced_by', '_partition', '_offset', "
        "'ride_id') "
        "group by 1 order by 1"
    )
    return {
        name: stage.query(f'select ({columns})::text from {name} order by ({columns})::text collate "C"')
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
