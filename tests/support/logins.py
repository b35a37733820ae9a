"""Roles to log in as, one for each group that `headrace init` makes."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from headrace.postgres.roles import DBT

PASSWORD = "not-a-secret"


@contextmanager
def login(dsn: str, group: str, name: str = "", password: str = PASSWORD) -> Iterator[str]:
    """The DSN of a role in a group, as docs/security.md has it made; it is dropped at the end."""
    role = Identifier(name or f"test_{group}")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SQL("create role {} login password {} in role {}").format(role, password, Identifier(group)))
        let_in(connection, name or f"test_{group}")
        if group == DBT:
            connection.execute(SQL("alter role {} set role = {}").format(role, Identifier(group)))
    try:
        yield as_role(dsn, name or f"test_{group}", password)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(SQL("drop owned by {} cascade").format(role))
            connection.execute(SQL("drop role {}").format(role))


def let_in(connection: psycopg.Connection[Any], role: str) -> None:
    """Let a role connect to the database of this connection."""
    statement = SQL("grant connect on database {} to {}")
    connection.execute(statement.format(Identifier(connection.info.dbname), Identifier(role)))


def as_role(dsn: str, role: str, password: str = PASSWORD) -> str:
    """The same DSN for another role."""
    parameters = {name: value for name, value in conninfo_to_dict(dsn).items() if name != "passfile"}
    return make_conninfo("", **parameters | {"user": role, "password": password})
