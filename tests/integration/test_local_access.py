"""Access to the local services by the owner, by logins and by other users of the machine."""

import os
import stat
import struct
import subprocess
from collections.abc import Callable
from functools import partial

import psutil
import psycopg
import pytest
import redis
from kafka import KafkaProducer
from psycopg.conninfo import make_conninfo

from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.local import kafka, postgres, services, valkey
from headrace.marts.build import build
from headrace.settings import Settings, read_services
from headrace.verify import verify
from tests.other_user import as_other_user, only_as_root
from tests.support.local_servers import BOTH, query, topic_names


def test_psql_command_connects_without_a_password_in_it(home_settings: Settings, running: dict[str, int]) -> None:
    argv = [*services.psql_command(home_settings), "--no-psqlrc", "-Atc", "select current_user"]

    assert subprocess.run(argv, check=True, capture_output=True, text=True).stdout == "headrace\n"
    password = (home_settings.home / "postgres" / "pgpass").read_text().strip().rsplit(":", 1)[1]
    assert password not in " ".join(argv)


# what headrace_admin made, and no user has to: (role, superuser, createdb, createrole)
ROLES = "select rolname, rolsuper, rolcreatedb, rolcreaterole from pg_roles where rolcanlogin order by 1"


@pytest.mark.security("R6")
def test_owner_is_no_superuser_and_marts_are_built_by_a_login_of_their_own(
    home_settings: Settings, running: dict[str, int]
) -> None:
    assert query(home_settings, ROLES) == [
        ("headrace", False, True, True),
        ("headrace_admin", True, True, True),
        ("headrace_builder", False, False, False),
    ]
    known = Settings.from_environment({"HEADRACE_HOME": str(home_settings.home)})
    deployment = Deployment.from_settings(known)
    initialise(deployment)
    load_file(deployment, "users")
    assert build(known, select="users", tests=False).rows == 21_467
    assert query(home_settings, "select tableowner from pg_tables where schemaname = 'marts'") == [("headrace_dbt",)]
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
    home_settings = make_home()
    monkeypatch.setattr(postgres, "ADMIN", "headrace")
    services.up(home_settings, only=["postgres"])
    monkeypatch.undo()
    query(home_settings, "revoke create on database headrace from headrace_dbt")
    query(home_settings, "drop role headrace_builder")
    services.down(home_settings)
    passfile, admins = (home_settings.home / "postgres" / name for name in ("pgpass", "pgpass-admin"))
    passfile.write_text(admins.read_text())
    admins.unlink()  # as the versions before left it
    for lost in ([], [passfile, admins]):
        for path in lost:
            path.unlink()
        services.up(home_settings, only=["postgres"])
        assert query(home_settings, ROLES) == [
            ("headrace", True, True, True),
            ("headrace_builder", False, False, False),
        ]
        known = Settings.from_environment({"HEADRACE_HOME": str(home_settings.home)})
        with psycopg.connect(known.require_dbt_dsn()) as connection:
            assert connection.execute("select session_user, current_user").fetchone() == (
                "headrace_builder",
                "headrace_dbt",
            )
        services.down(home_settings)


@only_as_root
@pytest.mark.security("U1")
def test_another_user_gets_nothing_from_any_port_of_the_local_services(
    home_settings: Settings, running: dict[str, int]
) -> None:
    services.up(home_settings, only=[*BOTH, "redis"])
    known = services.environment(home_settings)
    ports = {name: record["port"] for name, record in read_services(home_settings.home).items()}
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
    home = home_settings.home.resolve()
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
    home_settings: Settings, running: dict[str, int]
) -> None:
    services.up(home_settings, only=[*BOTH, "redis"])
    known = services.environment(home_settings)
    with redis.Redis.from_url(known["HEADRACE_REDIS_URL"]) as client:
        assert client.ping()
    producer = KafkaProducer(bootstrap_servers=known["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"], transactional_id="one")
    producer.init_transactions()  # the broker's markers go over a listener of its own
    producer.begin_transaction()
    topic_names(home_settings, create="kept")
    producer.send("kept", b"value").get(timeout=20)
    producer.commit_transaction()
    producer.close()
    home = home_settings.home.resolve()
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


@pytest.mark.security("U2")
def test_nothing_below_the_home_is_open_to_others(home_settings: Settings, running: dict[str, int]) -> None:
    services.up(home_settings, only=[*BOTH, "redis"])
    home = home_settings.home.resolve()
    passed = {home, home / "postgres"} if os.geteuid() == 0 else set()  # by the group of root's Postgres alone
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in (home, *home.rglob("*")) if not path.is_symlink()}
    assert {path for path, mode in modes.items() if mode & 0o077} == passed
    assert {modes[path] for path in passed} <= {0o710}
    assert {"kafka", "valkey", "postgres", "run", "logs"} <= {
        path.relative_to(home).parts[0] for path in modes if path != home
    }
