"""Connections of loader, page, Airflow's hook and dbt to a server that stops answering."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.exceptions import DatabaseUnavailable
from headrace.marts.dbt import DbtRunner
from headrace.monitor import status
from headrace.monitor.status import read_status
from headrace.postgres import connection as headrace_database
from headrace.postgres.connection import connector
from headrace.postgres.connection import database as connected
from headrace.postgres.liveness import answered_within
from headrace.postgres.migrations import migrate
from headrace.settings import Settings
from tests.stalling_proxy import StallingProxy

OPTIONS = {name: getattr(socket, f"TCP_{name}") for name in ("USER_TIMEOUT", "KEEPIDLE", "KEEPINTVL", "KEEPCNT")}
LIMITS = {"USER_TIMEOUT": 60_000, "KEEPIDLE": 30, "KEEPINTVL": 10, "KEEPCNT": 3}


def limits_of(fileno: int) -> dict[str, int]:
    """What the kernel was told of a connection."""
    with socket.socket(fileno=os.dup(fileno)) as end:
        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        return {name: end.getsockopt(socket.IPPROTO_TCP, option) for name, option in OPTIONS.items()}


@pytest.fixture
def proxy(database: str) -> Iterator[StallingProxy]:
    with connected(connector(database, "test")) as connection:
        migrate(connection)
    with StallingProxy(int(conninfo_to_dict(database)["port"] or 0)) as opened:
        yield opened


def through(proxy: StallingProxy, dsn: str, **parameters: Any) -> str:
    return make_conninfo(dsn, port=proxy.port, **parameters)


def test_server_that_freezes_in_mid_query_is_given_up(
    database: str, proxy: StallingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "READ_S", 1.0)
    connect = connector(through(proxy, database), "test")
    read_status(connect)
    proxy.stall_at = b"headrace.status"
    began = time.monotonic()
    with pytest.raises(
        DatabaseUnavailable, match="postgres: found no answer within 1 s, expected a server that answers"
    ):
        read_status(connect)
    assert time.monotonic() - began < 20  # status.READ_S is 30


def test_server_that_freezes_behind_the_login_is_given_up(
    database: str, proxy: StallingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(headrace_database, "FIRST_ANSWER_S", 1.0)
    proxy.stall_at = b"pg_backend_pid"
    with pytest.raises(DatabaseUnavailable, match="found no answer within 1 s"):
        connector(through(proxy, database), "test")()


def test_limit_leaves_other_errors_and_later_statements_alone(database: str) -> None:
    with connected(connector(database, "test")) as connection:
        with answered_within(0.2):
            pass
        time.sleep(0.4)
        assert connection.execute("select 1").fetchone() == (1,)
    with (
        pytest.raises(DatabaseUnavailable, match="statement timeout"),
        answered_within(5),
        connected(connector(make_conninfo(database), "test")) as connection,
    ):
        connection.execute("set statement_timeout = 10; select pg_sleep(1)")


@pytest.mark.parametrize("given", [{}, {"keepalives_idle": "7", "tcp_user_timeout": "8000"}])
def test_loader_and_dbt_are_told_when_the_other_machine_is_gone(
    database: str, tmp_path: Path, given: dict[str, str]
) -> None:
    dsn = make_conninfo(database, **given)
    expected = LIMITS | ({"USER_TIMEOUT": 8000, "KEEPIDLE": 7} if given else {})
    with connected(connector(dsn, "test")) as connection:
        migrate(connection)
        assert limits_of(connection.fileno()) == expected
        with DbtRunner(Settings(home=tmp_path, postgres_dsn=dsn), connection, None, ""):
            environment = os.environ
            opened = psycopg2.connect(
                host=environment["HEADRACE_DBT_HOST"],
                port=environment["HEADRACE_DBT_PORT"],
                user=environment["HEADRACE_DBT_USER"],
                dbname=environment["HEADRACE_DBT_DBNAME"],
                keepalives_idle=int(environment["DBT_KEEPALIVES_IDLE"]),
            )
    try:
        assert limits_of(opened.fileno()) == expected
    finally:
        opened.close()
    assert "PGSERVICEFILE" not in os.environ


PRINT_LIMITS = """
import json, os
from headrace.airflow.connections import deployment
from tests.integration.test_silent_postgres import limits_of
with deployment().connect("test")() as connection:
    print(json.dumps(limits_of(connection.fileno())))
"""


def test_airflows_connection_is_told_when_the_other_machine_is_gone(database: str, tmp_path: Path) -> None:
    given = conninfo_to_dict(database)
    connection = {
        "conn_type": "postgres", "host": given["host"], "port": int(given["port"] or 0), "login": given["user"],
        "schema": given["dbname"], "extra": {"passfile": given.get("passfile", ""), "keepalives_count": 5},
    }  # fmt: skip
    environ = os.environ | {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW_CONN_HEADRACE_POSTGRES": json.dumps(connection)}
    done = subprocess.run([sys.executable, "-c", PRINT_LIMITS], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == LIMITS | {"KEEPCNT": 5}
