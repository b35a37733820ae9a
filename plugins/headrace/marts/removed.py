"""Models that the project no longer has: their claims, state and logs are deleted, their tables stay."""

from collections.abc import Collection
from contextlib import suppress
from hashlib import md5
from typing import Any

from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier, Literal

from headrace.marts.claims import SCHEMA

NAME_BYTES_MAX = 63  # of a name in Postgres
LOCK_WAIT = "2s"


def forget_removed(connection: Connection[Any], models: Collection[str]) -> list[str]:
    """Delete claims, state and logs of production models other than these; return their names.

    No build raises such a claim: it would keep its datasets stale, and every check running dbt. A model that comes back
    starts from zero. Of other targets, a model is removed when its table was dropped: its upstreams' logs need not wait
    for it. A model that is being built is left to the next call.
    """
    rows = connection.execute(
        """
        select schema, identifier from headrace.claims
        where schema = %(schema)s and identifier <> all(%(models)s::text[])
        union
        select schema, identifier from headrace.model_states
        where
            (schema = %(schema)s and identifier <> all(%(models)s::text[]))
            or (schema <> %(schema)s and table_oid not in (select oid from pg_class))
        order by 1, 2
        """,
        {"schema": SCHEMA, "models": list(models)},
    ).fetchall()
    return [model for schema, model in rows if _forget(connection, schema, model) and schema == SCHEMA]


def _forget(connection: Connection[Any], schema: str, model: str) -> bool:
    """False where a build holds the model's turn, or a reader its log."""
    logs = short_name(f"{schema}_log")
    try:
        with connection.transaction():
            connection.execute(SQL("set local lock_timeout = {}").format(Literal(LOCK_WAIT)))
            for name in (short_name(f"_turn_{model}"), model):  # a build locks its turn first, too
                if _may_drop(connection, logs, name):
                    with suppress(errors.DependentObjectsStillExist), connection.transaction():
                        connection.execute(SQL("drop table {}").format(Identifier(logs, name)))
            for table in ("claims", "model_states"):
                connection.execute(
                    SQL("delete from {} where (schema, identifier) = (%s, %s)").format(Identifier("headrace", table)),
                    (schema, model),
                )
    except errors.LockNotAvailable:
        return False
    return True


def _may_drop(connection: Connection[Any], schema: str, name: str) -> bool:
    """Whether there is such a table, and it is this role's: a developer's is theirs."""
    row = connection.execute(
        """
        select pg_has_role(relowner, 'usage')
        from pg_class
        where oid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and relkind = 'r'
        """,
        (schema, name),
    ).fetchone()
    return row == (True,)


def short_name(name: str) -> str:
    """A name as the macro short_name of dbt/packages/headrace_dbt makes it: at most 63 bytes, and no two become one."""
    text = name.encode()
    if len(text) <= NAME_BYTES_MAX:
        return name
    return f"{text[:54].decode('utf-8', 'ignore')}_{md5(text, usedforsecurity=False).hexdigest()[:8]}"
