"""`headrace up` and `down` against real servers: started, killed, half made, in the way of others."""

import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis
from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic
from psycopg.conninfo import make_conninfo

from headrace.deployment import Deployment
from headrace.exceptions import LocalServiceError
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.local import kafka, postgres, services, valkey
from headrace.local.postgres_roles import admin_dsn
from headrace.marts.build import build
from headrace.settings import Settings, read_services
from headrace.verify import verify
from tests.other_user import as_other_user, only_as_root

BOTH = ("postgres", "kafka")


@pytest.fixture
def make_home() -> Iterator[Callable[[], Settings]]:
    """Fresh HEADRACE_HOMEs that another system user can reach; stopped and removed at the end."""
    made: list[Settings] = []

    def make() -> Settings:
        path = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))
        path.chmod(0o755)
        made.append(Settings(home=path))
        return made[-1]

    yield make
    for settings in made:
        services.down(settings, print_line=lambda line: None)
        shutil.rmtree(settings.home)


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    """One HEADRACE_HOME for the tests that leave it whole; its path holds a space."""
    root = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))
    root.chmod(0o755)
    settings = Settings(home=root / "a home")
    umask = os.umask(0)  # of a careless user
    yield settings
    os.umask(umask)
    services.down(settings, print_line=lambda line: None)
    shutil.rmtree(root)


@pytest.fixture
def running(settings: Settings) -> dict[str, int]:
    services.up(settings, only=BOTH)
    return _pids(settings)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    assert process.poll() is None, "another program's process was ended"
    process.kill()
    process.wait()


def _pids(settings: Settings) -> dict[str, int]:
    home = settings.home.resolve()
    found = {"postgres": postgres.service(home).pid(), "kafka": kafka.service(home).pid()}
    return {name: pid for name, pid in found.items() if pid is not None}


def _query(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    with psycopg.connect(services.environment(settings)["HEADRACE_POSTGRES_DSN"], autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def _topics(settings: Settings, create: str | None = None) -> set[str]:
    admin = KafkaAdminClient(bootstrap_servers=services.environment(settings)["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"])
    try:
        if create is not None and create not in admin.list_topics():
            admin.create_topics([NewTopic(create, num_partitions=1, replication_factor=1)])
        return set(admin.list_topics())
    finally:
        admin.close()


def _listeners(pids: dict[str, int]) -> set[str]:
    return {
        connection.laddr.ip
        for pid in pids.values()
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }


def test_up_twice_starts_nothing_twice(settings: Settings, running: dict[str, int]) -> None:
    assert set(running) == {"postgres", "kafka"}

    remembered = services.up(settings, only=BOTH)

    assert _pids(settings) == running
    assert remembered == read_services(settings.home)
    assert _listeners(running) == {"127.0.0.1"}


def test_up_sets_what_the_loader_relies_on(settings: Settings, running: dict[str, int]) -> None:
    names = ("fsync", "synchronous_commit", "client_connection_check_interval", "timezone", "password_encryption")
    found = [_query(settings, f"show {name}")[0][0] for name in names]

    assert found == ["on", "on", "5s", "UTC", "scram-sha-256"]
    port = read_services(settings.home)["postgres"]["port"]
    with psycopg.connect(admin_dsn(settings.home, port)) as connection:
        others = connection.execute("select from pg_hba_file_rules where auth_method <> 'scram-sha-256'")
        assert others.fetchall() == []


def test_psql_command_connects_without_a_password_in_it(settings: Settings, running: dict[str, int]) -> None:
    argv = [*services.psql_command(settings), "--no-psqlrc", "-Atc", "select current_user"]

    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout == "headrace\n"
    password = (settings.home / "postgres" / "pgpass").read_text().strip().rsplit(":", 1)[1]
    assert password not in " ".join(argv)


# what headrace_admin made, and nobody has to: (role, superuser, createdb, createrole)
ROLES = "select rolname, rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolcanlogin order by 1"


@pytest.mark.security("R6")
def test_owner_is_no_superuser_and_marts_are_built_by_a_login_of_their_own(
    settings: Settings, running: dict[str, int]
) -> None:
    assert _query(settings, ROLES) == [
        ("headrace", False, True, True),
        ("headrace_admin", True, True, True),
        ("headrace_builder", False, False, False),
    ]
    known = Settings.from_environment({"HEADRACE_HOME": str(settings.home)})
    deployment = Deployment.from_settings(known)
    initialise(deployment)
    load_file(deployment, "users")
    assert build(known, select="users", tests=False).rows == 21_467
    assert _query(settings, "select tableowner from pg_tables where schemaname = 'marts'") == [("headrace_dbt",)]
    assert verify(deployment, "users").reports[0].counts["keys of marts.users equal to staging's"] == 21_467
    assert services.environment(known)["HEADRACE_DBT_USER"] == "headrace_builder"
    refused = {
        known.require_postgres_dsn(): ["copy (select 1) to program 'true'", "set role headrace_admin"],
        known.require_dbt_dsn(): [
            "copy (select 1) to program 'true'",
            "set role headrace",
            "update headrace.checkpoints set next_offset = 0",
            "create role another",
        ],
    }
    for dsn, statements in refused.items():
        for statement in statements:
            with psycopg.connect(dsn) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.encode())


def test_home_whose_owner_is_the_superuser_goes_on_and_gets_a_login_that_builds(
    make_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_home()
    monkeypatch.setattr(postgres, "ADMIN", "headrace")
    services.up(settings, only=["postgres"])
    monkeypatch.undo()
    _query(settings, "revoke create on database headrace from headrace_dbt")
    _query(settings, "drop role headrace_builder")
    services.down(settings)
    passfile, admins = (settings.home / "postgres" / name for name in ("pgpass", "pgpass-admin"))
    passfile.write_text(admins.read_text())
    admins.unlink()  # as the versions before left it
    for lost in ([], [passfile, admins]):
        for path in lost:
            path.unlink()
        services.up(settings, only=["postgres"])
        assert _query(settings, ROLES) == [("headrace", True, True, True), ("headrace_builder", False, False, False)]
        known = Settings.from_environment({"HEADRACE_HOME": str(settings.home)})
        with psycopg.connect(known.require_dbt_dsn()) as connection:
            assert connection.execute("select session_user, current_user").fetchone() == (
                "headrace_builder",
                "headrace_dbt",
            )
        services.down(settings)


def test_up_after_both_were_killed_starts_them_with_their_data_and_ports(
    settings: Settings, running: dict[str, int]
) -> None:
    _query(settings, "create table if not exists kept as select 42 as answer")
    _topics(settings, create="kept")
    before = read_services(settings.home)
    for pid in running.values():
        os.kill(pid, signal.SIGKILL)

    after = services.up(settings, only=BOTH)

    assert after == before
    assert set(_pids(settings).values()).isdisjoint(running.values())
    assert _query(settings, "select answer from kept") == [(42,)]
    assert "kept" in _topics(settings)


def test_up_with_ports_and_pids_taken_by_others_moves_and_leaves_them_alone(
    settings: Settings, running: dict[str, int], stranger: subprocess.Popen[bytes]
) -> None:
    _topics(settings, create="kept")
    before = read_services(settings.home)
    services.down(settings)
    for name in ("run/postgres.pid", "run/kafka.pid", "postgres/data/postmaster.pid"):
        (settings.home / name).write_text(f"{stranger.pid}\n")
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for listener, port in (
            (one, before["postgres"]["port"]),
            (two, before["kafka"]["port"]),
            (three, before["kafka"]["controller_port"]),
        ):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()

        after = services.up(settings, only=BOTH)

    moved = [("postgres", "port"), ("kafka", "port"), ("kafka", "controller_port")]
    assert [after[service][key] != before[service][key] for service, key in moved] == [True, True, True]
    assert after == read_services(settings.home)
    assert _query(settings, "select 1") == [(1,)]
    assert "kept" in _topics(settings)  # the advertised listener follows


def test_up_with_a_demanded_port_taken_is_refused_and_starts_nothing(make_home: Callable[[], Settings]) -> None:
    home = make_home().home
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]

        with pytest.raises(LocalServiceError, match=rf"^HEADRACE_POSTGRES_PORT: port {port} of 127.0.0.1 is taken by"):
            services.up(Settings(home=home, postgres_port=port), only=BOTH)

    assert _pids(Settings(home=home)) == {}


def test_up_moves_when_its_port_is_lost_at_the_last_moment_or_another_is_demanded(
    make_home: Callable[[], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_home()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        lost = listener.getsockname()[1]

        def choose_lost_port(*_: Any, **__: Any) -> int:
            monkeypatch.undo()
            return int(lost)

        monkeypatch.setattr(services, "choose_port", choose_lost_port)
        said: list[str] = []

        moved = services.up(settings, only=["postgres"], print_line=said.append)["postgres"]["port"]

    assert moved != lost
    assert f"postgres: port {lost} was taken by another program, choosing another" in said
    demanding = Settings(home=settings.home, postgres_port=lost)  # free again by now
    assert services.up(demanding, only=["postgres"])["postgres"]["port"] == lost
    assert _query(settings, "show port") == [(str(lost),)]


def test_up_makes_half_made_data_directories_again_and_keeps_what_was_in_them(
    make_home: Callable[[], Settings],
) -> None:
    settings = make_home()
    for name in ("postgres/data/base", "postgres/data.new/base", "kafka/data/jobs-0", "kafka/data.new"):
        (settings.home / name).mkdir(parents=True)
    (settings.home / "postgres" / "data" / "PG_VERSION").write_text("18\n")
    (settings.home / "kafka" / "data" / "meta.properties").write_text("version=1\nclu")

    services.up(settings, only=BOTH)

    assert _query(settings, "select 1") == [(1,)]
    assert _topics(settings) == set()
    for kept in ("postgres/data.unusable-1/base", "kafka/data.unusable-1/jobs-0"):
        assert (settings.home / kept).is_dir()
    assert not list(settings.home.glob("*/data.new"))


def test_up_with_services_json_cut_off_finds_what_runs(settings: Settings, running: dict[str, int]) -> None:
    before = read_services(settings.home)
    (settings.home / "services.json").write_text('{"postgres": {"addr')

    # another test may have started a third one
    assert services.up(settings, only=BOTH) == {name: found for name, found in before.items() if name in BOTH}
    assert _pids(settings) == running


def test_two_ups_at_once_share_one_server_and_a_lost_password_is_replaced(make_home: Callable[[], Settings]) -> None:
    settings = make_home()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: services.up(settings, only=["postgres"]), range(2))
    assert first == second

    services.down(settings)
    old = (settings.home / "postgres" / "pgpass").read_text()
    for name in ("pgpass", "pgpass-admin"):
        (settings.home / "postgres" / name).unlink()
    services.up(settings, only=["postgres"])

    assert (settings.home / "postgres" / "pgpass").read_text() != old
    assert _query(settings, "select 1") == [(1,)]


@only_as_root
@pytest.mark.security("U1")
def test_another_user_gets_nothing_from_any_port_of_the_local_services(
    settings: Settings, running: dict[str, int]
) -> None:
    services.up(settings, only=[*BOTH, "redis"])
    known = services.environment(settings)
    ports = {name: record["port"] for name, record in read_services(settings.home).items()}
    without_password = make_conninfo(known["HEADRACE_POSTGRES_DSN"], passfile="/dev/null")

    def attempt() -> tuple[str | None, bool, str]:
        try:
            psycopg.connect(without_password, connect_timeout=5)
            postgres_said = "come in"
        except psycopg.OperationalError as error:
            postgres_said = str(error)
        return valkey.why_not_ready(ports["redis"]), _answers(ports["kafka"]), postgres_said

    valkey_lacks, broker_answers, postgres_said = attempt()
    assert (valkey_lacks, broker_answers) == (None, True)  # who runs them has no password either
    assert "no password supplied" in postgres_said
    valkey_lacks, broker_answers, postgres_said = as_other_user(attempt)
    assert str(valkey_lacks).startswith(f"127.0.0.1:{ports['redis']} ")
    assert broker_answers is False
    assert "no password supplied" in postgres_said

    # behind the gateways: the broker's own listeners want a password, Valkey has none but its socket
    home = settings.home.resolve()
    own = {
        connection.laddr.port
        for connection in psutil.Process(running["kafka"]).net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(own) == 3
    assert ports["kafka"] not in own
    assert [as_other_user(partial(_answers, port)) for port in own] == [False] * 3
    valkey_pid = valkey.service(home).pid()
    assert valkey_pid is not None
    assert psutil.Process(valkey_pid).net_connections("inet") == []
    for closed in ("valkey/valkey.sock", "postgres/pgpass", "kafka/password", "services.json", "logs/kafka.log"):
        assert (home / closed).exists()
        assert isinstance(as_other_user((home / closed).stat), PermissionError)


def _answers(port: int) -> bool:
    """Whether a broker answers a request without a login."""
    try:
        return bool(kafka.ask_cluster_id(port))
    except (OSError, ValueError, struct.error):
        return False


@pytest.mark.security("U5")
def test_clients_of_this_user_need_no_password_and_no_argument_holds_one(
    settings: Settings, running: dict[str, int]
) -> None:
    services.up(settings, only=[*BOTH, "redis"])
    known = services.environment(settings)
    with redis.Redis.from_url(known["HEADRACE_REDIS_URL"]) as client:
        assert client.ping()
    producer = KafkaProducer(bootstrap_servers=known["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"], transactional_id="one")
    producer.init_transactions()  # the broker's markers go over a listener of its own
    producer.begin_transaction()
    _topics(settings, create="kept")
    producer.send("kept", b"value").get(timeout=20)
    producer.commit_transaction()
    producer.close()
    home = settings.home.resolve()
    secrets = [
        (home / "kafka" / "password").read_text().strip(),
        (home / "postgres" / "pgpass").read_text().strip().rsplit(":", 1)[1],
    ]
    processes = [kafka.service(home), kafka.gateway_service(home), valkey.service(home), valkey.gateway_service(home)]
    for process in processes:
        pid = process.pid()
        assert pid is not None
        shown = [*psutil.Process(pid).cmdline(), *psutil.Process(pid).environ().values()]
        assert not [word for word in shown for secret in secrets if secret in word]


def test_up_starts_the_gateway_again_that_was_killed(settings: Settings, running: dict[str, int]) -> None:
    _topics(settings, create="kept")
    pid = kafka.gateway_service(settings.home.resolve()).pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

    services.up(settings, only=BOTH)

    assert "kept" in _topics(settings)
    assert _pids(settings)["postgres"] == running["postgres"]


@pytest.mark.security("U2")
def test_nothing_below_the_home_is_open_to_others(settings: Settings, running: dict[str, int]) -> None:
    services.up(settings, only=[*BOTH, "redis"])
    home = settings.home.resolve()
    passed = {home, home / "postgres"} if os.geteuid() == 0 else set()  # by the group of root's Postgres alone
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in (home, *home.rglob("*")) if not path.is_symlink()}
    assert {path for path, mode in modes.items() if mode & 0o077} == passed
    assert {modes[path] for path in passed} <= {0o710}
    assert {"kafka", "valkey", "postgres", "run", "logs"} <= {
        path.relative_to(home).parts[0] for path in modes if path != home
    }


def test_up_that_fails_quotes_the_log(make_home: Callable[[], Settings]) -> None:
    settings = make_home()
    services.up(settings, only=["postgres"])
    services.down(settings)
    with (settings.home / "postgres" / "data" / "postgresql.conf").open("a") as file:
        file.write("max_connections = lots\n")

    with pytest.raises(LocalServiceError, match=r"(?s)^postgres: ended while it .*see .*postgres\.log, .*\"lots\""):
        services.up(settings, only=["postgres"])

    assert _pids(settings) == {}


def test_down_stops_its_own_and_no_other_homes_services(
    settings: Settings, running: dict[str, int], make_home: Callable[[], Settings]
) -> None:
    other = make_home()
    services.up(other, only=["postgres"])
    given = Settings(
        home=other.home, kafka_bootstrap_servers=services.environment(settings)["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"]
    )
    assert services.up(given, only=BOTH)["kafka"] == {"address": given.kafka_bootstrap_servers}  # used, not started

    services.down(other)

    assert _pids(other) == {}
    assert _pids(settings) == running
    assert json.loads((other.home / "services.json").read_text())["postgres"]["port"]  # remembered for the next up
    services.down(other)  # again: nothing to do
