"""A real PostgreSQL, a real Kafka and a real Valkey, started once per session on free ports and stopped at its end."""

import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace import retries
from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.local import services
from headrace.marts.build import build
from headrace.postgres.roles import DBT, LOADER, READER
from headrace.sample.generate import generate_jobs
from headrace.sample.produce import produce
from headrace.settings import Settings
from headrace.sources import kafka
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_confluent import ConfluentSource
from tests.support import shared_broker, topics
from tests.support.databases import create_database, make_owner_superuser, make_server_faster, passing_database
from tests.support.drained_topic import Drained, drained_topic
from tests.support.folders import fast_folder
from tests.support.local_servers import BOTH, discard, server_pids
from tests.support.logins import PASSWORD, as_role, let_in, login
from tests.support.random_project import RandomProject
from tests.support.role_checks import RECORDS
from tests.support.stage import Stage, telemetry_stage
from tests.support.warehouse import Warehouse, shared_warehouse

_numbers = itertools.count(shared_broker.first_number())
PRISTINE = f"verify_pristine_{next(_numbers)}"  # a topic and a database


@pytest.fixture(scope="session")
def local_settings(session_home: Path) -> Iterator[Settings]:
    """Settings of a session's own home; nothing runs until a test asks for a service."""
    settings = Settings(home=session_home)
    yield settings
    discard(settings)


@pytest.fixture(scope="session")
def postgres_dsn(local_settings: Settings) -> str:
    """The DSN of a real PostgreSQL 18, whose owner is made a superuser."""
    services.up(local_settings, only=("postgres",), print_line=_quiet)
    make_server_faster(local_settings.home)
    return make_owner_superuser(local_settings.home)


@pytest.fixture(scope="session")
def broker_home(session_home: Path, pytestconfig: pytest.Config) -> Path:
    """The HEADRACE_HOME of the broker, which all workers share."""
    return shared_broker.broker_home(pytestconfig, session_home)


@pytest.fixture(scope="session")
def bootstrap_servers(broker_home: Path, local_settings: Settings) -> str:
    """The address of a real Kafka 4.3 broker; local_settings stop it where no worker shares it."""
    return shared_broker.start_broker(broker_home)


@pytest.fixture(scope="session")
def redis_url(local_settings: Settings) -> str:
    """The URL of a real Valkey."""
    return str(services.up(local_settings, only=("redis",), print_line=_quiet)["redis"]["address"])


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of this process wait 0.2 s, 0.4 s, 0.6 s."""
    monkeypatch.setattr(retries, "BASE_S", 0.2)


@pytest.fixture(scope="session")
def migrated(postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a database with Headrace's tables and no dataset: a copy of it is made faster than its tables."""
    dsn = create_database(postgres_dsn, "migrated")
    settings = Settings(postgres_dsn=dsn, datasets_dir=tmp_path_factory.mktemp("no_datasets"))
    initialise(Deployment.from_settings(settings))
    return "migrated"


@pytest.fixture
def database(postgres_dsn: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The DSN of a database of the test's own, dropped at the end: empty, or migrated for `stage` and `telemetry`."""
    is_migrated = not {"stage", "telemetry"}.isdisjoint(request.fixturenames)
    template = request.getfixturevalue("migrated") if is_migrated else "template1"
    with passing_database(postgres_dsn, f"test_{next(_numbers)}", template) as dsn:
        yield dsn


@pytest.fixture
def topic(bootstrap_servers: str) -> str:
    """The name of an empty topic of the test's own, with three partitions."""
    name = f"topic-{next(_numbers)}"
    topics.create(bootstrap_servers, name, 3, retention_ms="-1")  # else records of 1970 would not live long
    return name


@pytest.fixture
def stream(redis_url: str) -> str:
    """The name of a stream of the test's own, which does not exist yet."""
    return f"stream-{next(_numbers)}"


@pytest.fixture
def stage(database: str, bootstrap_servers: str, topic: str, tmp_path: Path, session_home: Path) -> Stage:
    """A migrated database and the project's datasets, jobs reading from the test's own topic."""
    datasets_dir = tmp_path / "datasets"
    datasets_dir.mkdir()
    declared = Settings().datasets_dir
    (datasets_dir / "users.py").write_text((declared / "users.py").read_text())
    jobs = (declared / "jobs.py").read_text()
    assert 'topic="jobs"' in jobs
    (datasets_dir / "jobs.py").write_text(jobs.replace('topic="jobs"', f'topic="{topic}"'))
    settings = Settings(
        home=session_home,
        postgres_dsn=database,
        kafka_bootstrap_servers=bootstrap_servers,
        datasets_dir=datasets_dir,
        batch_rows=200,
    )
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    return Stage(deployment, database)


@pytest.fixture
def telemetry(database: str, redis_url: str, stream: str, tmp_path: Path, session_home: Path) -> Stage:
    """A migrated database and the dataset telemetry, reading from the test's own stream; no Kafka."""
    return telemetry_stage(database, redis_url, stream, tmp_path / "datasets", session_home)


def _quiet(_line: str) -> None:
    pass


@pytest.fixture
def closed_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(params=["kafka", "kafka_by_its_own_unpacking", "confluent"])
def made(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[KafkaSource]:
    """A source of topics: by each client, and by kafka-python where its version is not one that we know."""
    if request.param == "kafka_by_its_own_unpacking":
        monkeypatch.setattr(kafka, "replace_unpacking", lambda _consumer, _meter: False)
    return ConfluentSource if request.param == "confluent" else KafkaSource


@pytest.fixture(scope="session")
def with_datasets(postgres_dsn: str, session_home: Path) -> str:
    """The name of a database with the tables of every dataset, to copy."""
    dsn = create_database(postgres_dsn, "with_datasets")
    initialise(Deployment.from_settings(Settings(home=session_home, postgres_dsn=dsn)))
    return "with_datasets"


@pytest.fixture
def project(postgres_dsn: str, with_datasets: str, tmp_path: Path) -> Iterator[RandomProject]:
    """A dbt project without models, and a database of its own."""
    with passing_database(postgres_dsn, f"project_{next(_numbers)}", template=with_datasets) as dsn:
        yield RandomProject(tmp_path / "project", Warehouse(Settings(home=tmp_path, postgres_dsn=dsn), dsn), ())


@pytest.fixture(scope="session")
def drained_template(
    postgres_dsn: str, bootstrap_servers: str, session_home: Path, tmp_path_factory: Any
) -> Iterator[Drained]:
    """One topic and one database, drained once: tests that change the database get a copy of it."""
    yield from drained_topic(PRISTINE, postgres_dsn, bootstrap_servers, session_home, tmp_path_factory.mktemp("x"))


@pytest.fixture
def drained(drained_template: Drained, postgres_dsn: str) -> Iterator[Drained]:
    """Jobs with gaps, an aborted transaction, tombstones, headers, unknown fields and dead letters, all drained."""
    with passing_database(postgres_dsn, "verify_copy", template=PRISTINE) as dsn:
        settings = replace(drained_template.stage.deployment.settings, postgres_dsn=dsn)
        stage = Stage(Deployment.from_settings(settings), dsn)
        yield Drained(stage, drained_template.topic, drained_template.bootstrap_servers)


@pytest.fixture
def own_topic(
    postgres_dsn: str, bootstrap_servers: str, session_home: Path, tmp_path: Path, request: Any
) -> Iterator[Drained]:
    """The same with a topic that the test may change."""
    yield from drained_topic(request.node.name[:60], postgres_dsn, bootstrap_servers, session_home, tmp_path)


@pytest.fixture(scope="module")
def house(
    postgres_dsn: str, bootstrap_servers: str, session_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """A database made by its owner, with all datasets; jobs were produced, some of them invalid."""
    datasets_dir, topic = tmp_path_factory.mktemp("roles") / "datasets", f"roles-{next(_numbers)}"
    datasets_dir.mkdir()
    for path in Settings().datasets_dir.glob("*.py"):
        (datasets_dir / path.name).write_text(path.read_text().replace('topic="jobs"', f'topic="{topic}"'))
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
        topics.create(bootstrap_servers, topic, 3, retention_ms="-1")
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


@pytest.fixture
def make_home() -> Iterator[Callable[[], Settings]]:
    """Fresh HEADRACE_HOMEs that another system user can reach; stopped and removed at the end."""
    made: list[Settings] = []

    def make() -> Settings:
        path = Path(tempfile.mkdtemp(prefix="hr-", dir=fast_folder() or "/tmp"))
        path.chmod(0o755)
        made.append(Settings(home=path))
        return made[-1]

    yield make
    for settings in made:
        discard(settings)
        shutil.rmtree(settings.home)


@pytest.fixture(scope="module")
def home_settings() -> Iterator[Settings]:
    """One HEADRACE_HOME for the tests that leave it whole; its path holds a space."""
    root = Path(tempfile.mkdtemp(prefix="hr-", dir=fast_folder() or "/tmp"))
    root.chmod(0o755)
    home_settings = Settings(home=root / "a home")
    umask = os.umask(0)  # of a careless user
    yield home_settings
    os.umask(umask)
    discard(home_settings)
    shutil.rmtree(root)


@pytest.fixture
def running(home_settings: Settings) -> dict[str, int]:
    """The pids of PostgreSQL and Kafka, which run in `home_settings`."""
    services.up(home_settings, only=BOTH)
    return server_pids(home_settings)


@pytest.fixture
def warehouse(postgres_dsn: str, session_home: Path) -> Warehouse:
    """Everything is built on nothing: no record is staged."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    warehouse.empty()
    return warehouse


@pytest.fixture(scope="session")
def registry_url(local_settings: Settings) -> str:
    """The address of a real schema registry."""
    return str(services.up(local_settings, only=("registry",), print_line=lambda _line: None)["registry"]["address"])
