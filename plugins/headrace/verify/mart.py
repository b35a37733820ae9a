"""A mart that is read without running what its owner put into it.

headrace_dbt owns the marts, and may put a view in a table's place, or an index or statistics whose expression calls a
function: a query runs it, or the planner does, as the role of the session. `set role` alone does not help, because a
function may reset it. So only a plain table is read, under a lock that lets nobody change what it is.
"""

from typing import Any

from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier

from headrace.sql_files import read_sql

DBT = "headrace_dbt"
KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "p": "a partitioned table"}

# conflicts with whatever changes a table's indexes, statistics, rules or columns, not with reads, merges and deletes
DEFINITION_LOCK = "share update exclusive"


def become_dbt(connection: Connection[Any]) -> None:
    """Give up, until the end of the transaction, the rights that dbt's role does not have, where there is that role."""
    privilege = "set" if connection.info.server_version >= 160_000 else "member"  # before 16 every member may become it
    row = connection.execute(
        "select pg_has_role(session_user, oid, %s) from pg_roles where rolname = %s", (privilege, DBT)
    ).fetchone()
    if row == (True,):
        connection.execute(SQL("set local role {}").format(Identifier(DBT)))


def lock_definition(connection: Connection[Any], schema: str, name: str) -> None:
    """Let nobody change what the table is, until the end of the transaction; takes no snapshot where it succeeds.

    A role that may only read gets the lock of a reader.
    """
    table = Identifier(schema, name)
    try:
        with connection.transaction():  # a savepoint
            connection.execute(SQL("lock table {} in {} mode").format(table, SQL(DEFINITION_LOCK)))
    except errors.InsufficientPrivilege:
        connection.execute(SQL("lock table {} in access share mode").format(table))


def kind_of(connection: Connection[Any], schema: str, name: str) -> str | None:
    """What is in the table's place; None for a table."""
    row = connection.execute(
        "select c.relkind from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid "
        "where n.nspname = %s and c.relname = %s",
        (schema, name),
    ).fetchone()
    return None if row is None or row[0] == "r" else KINDS.get(row[0], "no table")


def foreign_code(connection: Connection[Any], schema: str, name: str, column: str) -> str | None:
    """What a read of one column of a plain table would run of a role with fewer rights than this session, if anything.

    Postgres's own functions and types leave no trace in pg_depend.
    """
    row = connection.execute(
        read_sql("headrace.verify", "foreign_code"), {"schema": schema, "name": name, "column": column}
    ).fetchone()
    return None if row is None else f"{row[0]} of {row[1]}"
