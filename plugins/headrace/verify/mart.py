"""Reads a mart without running code of its owner.

headrace_dbt owns the marts, and may replace a table by a view, or add an index or statistics with an expression that
calls a function: a query or its planning runs it, as the session's role. `set role` alone does not help, because a
function can reset it. So only a plain table is read, under a lock on its definition.
"""

from typing import Any

from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier

from headrace.sql_files import read_sql

DBT = "headrace_dbt"
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned table"}

# conflicts with changes to a table's indexes, statistics, rules or columns, not with reads, merges and deletes
DEFINITION_LOCK = "share update exclusive"


def become_dbt(connection: Connection[Any]) -> None:
    """Drop, until the end of the transaction, the rights that dbt's role does not have, if that role exists."""
    privilege = "set" if connection.info.server_version >= 160_000 else "member"  # before 16 every member may become it
    row = connection.execute(
        "select pg_has_role(session_user, oid, %s) from pg_roles where rolname = %s", (privilege, DBT)
    ).fetchone()
    if row == (True,):
        connection.execute(SQL("set local role {}").format(Identifier(DBT)))


def lock_definition(connection: Connection[Any], schema: str, name: str) -> None:
    """Lock the table's definition until the end of the transaction; takes no snapshot if it succeeds.

    A role that may only read gets a reader's lock.
    """
    table = Identifier(schema, name)
    try:
        with connection.transaction():  # a savepoint
            connection.execute(SQL("lock table {} in {} mode").format(table, SQL(DEFINITION_LOCK)))
    except errors.InsufficientPrivilege:
        connection.execute(SQL("lock table {} in access share mode").format(table))


def kind_of(connection: Connection[Any], schema: str, name: str) -> str | None:
    """The kind of relation that replaced the table; None for a table."""
    row = connection.execute(
        "select c.relkind from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid "
        "where n.nspname = %s and c.relname = %s",
        (schema, name),
    ).fetchone()
    return None if row is None or row[0] == "r" else KINDS.get(row[0], "no table")


def foreign_code(connection: Connection[Any], schema: str, name: str, column: str) -> str | None:
    """Code of a role with fewer rights than this session that reading one column of a plain table would run; or None.

    Postgres's own functions and types are not in pg_depend.
    """
    row = connection.execute(
        read_sql("headrace.verify", "foreign_code"), {"schema": schema, "name": name, "column": column}
    ).fetchone()
    return None if row is None else f"{row[0]} of {row[1]}"
