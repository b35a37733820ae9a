"""Objects of roles with fewer rights than this session must not run in it."""

from typing import Any

from psycopg import Connection

from headrace.exceptions import DatabaseError


def refuse_foreign_objects(connection: Connection[Any], schema: str, doing: str) -> None:
    """Raise DatabaseError if a schema has a table, view or function of a role with fewer rights than this session.

    Triggers, views, functions and the expressions of indexes would run with this session's rights. `set role` is no
    remedy, because a function can reset it. The rule is the function headrace.is_foreign (migration 0021).
    """
    row = connection.execute("select headrace.foreign_object(%s), session_user", (schema,)).fetchone()
    if row is not None and row[0] is not None:
        found, user = row
        raise DatabaseError(
            f"{doing}: found {found}, expected objects of {user} alone in the schema {schema}: code of an "
            f"owner with fewer rights would run with those of {user}; nothing was changed; set "
            "HEADRACE_DBT_DSN (in Airflow: the connection headrace_dbt) to a login in headrace_dbt, then try again"
        )
