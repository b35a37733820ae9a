"""Sessions set their own parameters: nothing is inherited from role, database, environment or hook."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import Connection

from headrace.database import connector, opened
from headrace.session import PARAMETERS, PooledConnection
from tests.integration.hostile import ENVIRONMENT, PLACE, make_hostile

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
