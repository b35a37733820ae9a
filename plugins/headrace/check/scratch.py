"""A schema for one check: nothing of it is left when the check ends, in whatever way it ends."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from secrets import token_hex
from typing import Any

from psycopg import Connection, OperationalError, errors
from psycopg.sql import SQL, Identifier

from headrace.exceptions import DatabaseError
from headrace.postgres.connection import Connect, database, translated_errors

PREFIX = "headrace_check_"


@contextmanager
def scratch_schema(connect: Connect) -> Iterator[str]:
    """A new schema's name; at the end it is dropped, with all schemas whose name begins with its own, and their state.

    What a killed check left is dropped first. Raises DatabaseError where the role may not create schemas.
    """
    name = PREFIX + token_hex(4)
    with translated_errors():
        keeper = connect()
    with closing(keeper), keeper.transaction(), database(connect) as connection:
        # held while the check runs; that of a killed one ends with its connection
        keeper.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
        _drop_leftovers(connection)
        _create(connection, name)
        try:
            yield name
        finally:
            try:
                _drop(connection, name)
            except OperationalError:  # the connection was lost
                with database(connect) as another:
                    _drop(another, name)


def _create(connection: Connection[Any], name: str) -> None:
    try:
        connection.execute(SQL("create schema {}").format(Identifier(name)))
    except errors.InsufficientPrivilege as error:
        (user, database_name) = connection.execute("select session_user, current_database()").fetchone() or ("", "")
        raise DatabaseError(
            f"check: found that {user} may not create schemas in the database {database_name}, expected a role that "
            f"may: the check builds in a schema of its own; grant it (grant create on database {database_name} to "
            f"{user}), or set HEADRACE_DBT_DSN to another login or database"
        ) from error


def _drop_leftovers(connection: Connection[Any]) -> None:
    rows = connection.execute(
        "select nspname from pg_namespace where starts_with(nspname, %s) and pg_has_role(nspowner, 'usage')", (PREFIX,)
    )
    for name in {row[0][: len(PREFIX) + 8] for row in rows}:
        with connection.transaction():
            locked = connection.execute("select pg_try_advisory_xact_lock(hashtextextended(%s, 0))", (name,))
            if locked.fetchone() == (True,):
                _drop(connection, name)


def _drop(connection: Connection[Any], name: str) -> None:
    rows = connection.execute("select nspname from pg_namespace where starts_with(nspname, %s)", (name,)).fetchall()
    with connection.transaction():
        for (schema,) in rows:
            connection.execute(SQL("drop schema {} cascade").format(Identifier(schema)))
        connection.execute("delete from headrace.model_states where starts_with(schema, %s)", (name,))
        with suppress(errors.InsufficientPrivilege), connection.transaction():  # before the next `headrace init`
            connection.execute("delete from headrace.model_locks where position(%s in name) > 0", (name,))
