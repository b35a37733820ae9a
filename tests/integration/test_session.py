"""Sessions set their own parameters: nothing is inherited from role, database, environment or hook."""

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.marts import dbt
from headrace.monitor.status import read_status
from headrace.postgres.connection import connector, opened
from headrace.postgres.roles import LOADER
from headrace.postgres.session import PooledConnection, is_accepted
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.hostile_database import ENVIRONMENT, LOCATION, make_hostile
from tests.support.jobs import job, servers, topic_of
from tests.support.logins import login
from tests.support.session_parameters import EXPECTED, found_in_transaction, found_parameters
from tests.support.stage import Stage


@pytest.fixture
def hostile(database: str, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The DSN of a database whose defaults, and whose clients' environment, are hostile."""
    make_hostile(postgres_dsn, database)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return database


@pytest.mark.parametrize("look", [found_parameters, found_in_transaction])
def test_session_has_its_own_parameters(hostile: str, look: Callable[[Connection[Any]], dict[str, str]]) -> None:
    with connector(hostile, "test")() as connection:
        assert not isinstance(connection, PooledConnection)
        assert look(connection) == EXPECTED


def test_session_that_a_hook_opened_has_its_own_parameters(hostile: str) -> None:
    with opened(psycopg.connect(hostile)) as connection:
        assert found_parameters(connection) == found_in_transaction(connection) == EXPECTED
        assert connection.execute("select %s, octet_length(%s)", (LOCATION, "ó")).fetchone() == (LOCATION, 2)


@pytest.mark.parametrize("where", ["environment", "database"])
def test_text_is_stored_as_it_came_where_sessions_would_be_latin1(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    else:
        name = Identifier(str(conninfo_to_dict(stage.dsn)["dbname"]))
        with psycopg.connect(stage.dsn, autocommit=True) as connection:
            connection.execute(SQL("alter database {} set client_encoding = LATIN1").format(name))
    # the fast way, the slow one (an extra field) and a dead letter
    messages = [
        (0, b"1", job(1, LOCATION="Kraków")),
        (0, b"2", job(2, LOCATION="Málaga", NOTE="ñ")),
        (0, b"3", "é".encode()),
    ]
    topics.send(servers(stage), topic_of(stage), [(p, key, _unescaped(value)) for p, key, value in messages])
    drain_dataset(stage.deployment, "jobs")
    with psycopg.connect(stage.dsn, client_encoding="UTF8") as connection:
        rows = connection.execute("select location, _extra from staging.jobs order by jobidentifier").fetchall()
        dead = connection.execute("select value from headrace.dead_letters").fetchall()
    assert rows == [("Kraków", None), ("Málaga", {"NOTE": "ñ"})]
    assert dead == [("é".encode(),)]
    verification = verify(stage.deployment, "jobs", deep=True)
    assert verification.is_clean, list(verification.lines())


def _unescaped(value: bytes) -> bytes:
    """JSON with its characters as they are, in place of json.dumps' escapes."""
    return re.sub(rb"\\u(00[0-9a-f]{2})", lambda found: chr(int(found[1], 16)).encode(), value)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PGDATESTYLE", "Martian", 'invalid value for parameter "DateStyle": "Martian"'),
        ("PGTZ", "Nowhere/Land", 'invalid value for parameter "TimeZone": "Nowhere/Land"'),
    ],
)
def test_environment_that_the_server_refuses_is_named_in_one_line(
    database: str, variable: str, value: str, said: str
) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(variable, value)
        with pytest.raises(DatabaseError) as caught:
            read_status(connector(database, "test"))
    assert said in str(caught.value)
    assert "PGOPTIONS, PGDATESTYLE, PGTZ" in str(caught.value)
    assert "headrace up" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_database_that_does_not_exist_is_not_blamed_on_the_server(database: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        read_status(connector(make_conninfo(database, dbname="no such one"), "test"))
    assert 'database "no such one" does not exist; expected an existing database; create it (create database' in str(
        caught.value
    )
    assert "headrace up" not in str(caught.value)


def test_rows_that_a_policy_hides_are_an_error(stage: Stage, postgres_dsn: str) -> None:
    with login(stage.dsn, LOADER) as dsn:
        stage.execute(
            "alter table headrace.datasets enable row level security",
            "create policy part on headrace.datasets using (dataset = 'users')",
        )
        with pytest.raises(DatabaseError, match='query would be affected by row-level security policy for table "data'):
            read_status(connector(dsn, "test"))


def test_parameter_that_a_server_refuses_is_found_out_and_leaves_no_trace(database: str) -> None:
    with connector(database, "test")() as connection:
        name = "client_connection_check_interval"
        before = connection.execute(f"show {name}".encode()).fetchone()
        assert is_accepted(connection, name, "5s")
        assert not is_accepted(connection, name, "-1")  # as Windows refuses 5s: invalid_parameter_value
        with connection.transaction():
            assert not is_accepted(connection, name, "-1")
            assert connection.execute(f"show {name}".encode()).fetchone() == before


def test_build_on_a_server_that_cannot_see_a_client_go_asks_it_for_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dbt, "is_accepted", lambda *_: False)
    settings = Settings(postgres_dsn=database)
    initialise(Deployment.from_settings(settings))
    with connector(database, "test")() as connection:
        environment = dbt.profile_environment(settings, connection)
    assert "-c client_connection_check_interval=0" in environment["PGOPTIONS"]
    assert environment["HEADRACE_DBT_CLIENT_CHECK"] == "0"
