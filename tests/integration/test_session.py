"""Sessions set their own parameters: nothing is inherited from role, database, environment or hook."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import Connection
from psycopg.conninfo import make_conninfo

from headrace.database import connector, opened
from headrace.exceptions import DatabaseError
from headrace.roles import LOADER
from headrace.session import PARAMETERS, PooledConnection
from headrace.status import read_status
from tests.integration.conftest import Stage
from tests.integration.hostile import ENVIRONMENT, PLACE, make_hostile
from tests.integration.logins import login

EXPECTED = PARAMETERS | {"transaction_timeout": "0"}


def found_parameters(connection: Connection[Any]) -> dict[str, str]:
    """A session's parameters, as one statement sees them."""
    names = [*PARAMETERS, "transaction_timeout"]
    rows = connection.execute(
        "select name, pg_catalog.current_setting(name) from pg_catalog.unnest(%s::pg_catalog.text[]) as name", (names,)
    )
    return dict(rows.fetchall())


def found_in_transaction(connection: Connection[Any]) -> dict[str, str]:
    """As a transaction sees them."""
    with connection.transaction():
        assert connection.execute("show transaction_isolation").fetchone() == ("read committed",)
        assert connection.execute("show transaction_read_only").fetchone() == ("off",)
        return found_parameters(connection)


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
        assert connection.execute("select %s, octet_length(%s)", (PLACE, "ó")).fetchone() == (PLACE, 2)


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
