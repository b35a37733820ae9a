"""The parameters that every connection sets."""

from typing import Any

from psycopg import Connection

from headrace.postgres.session import PARAMETERS

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
