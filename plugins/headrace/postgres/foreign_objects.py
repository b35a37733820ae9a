"""What belongs to a role with fewer rights than this session must not run in it."""

from typing import Any

from psycopg import Connection

from headrace.exceptions import DatabaseError


def refuse_foreign_objects(connection: Connection[Any], schema: str, doing: str) -> None:
    """Raise DatabaseError where a schema holds a table, view or function of a role that may do less than this session.

    Triggers, views, functions and the expressions of indexes would run with this session's rights. `set role` is no
    remedy: a function may reset it. The rule is headrace.is_foreign's (migration 0021).
    """
    row = connection.execute("select headrace.foreign_object(%s), session_user", (schema,)).fetchone()
    if row is not None and row[0] is not None:
        found, user = row
        raise DatabaseError(
            f"{doing}: found {found}, expected objects of {user} alone in the schema {schema}: {user} may do more than "
            "their owner, and what the owner put there would run with these rights; nothing was changed; set "
            "HEADRACE_DBT_DSN (in Airflow: the connection headrace_dbt) to a login in headrace_dbt, then try again"
        )
