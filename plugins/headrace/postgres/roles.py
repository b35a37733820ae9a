"""The group roles for loading, building and reading: created and granted by `headrace init`."""

from typing import Any

from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier

from headrace.postgres.migrations import hold_migrations, locked, packaged_sql, while_locked

LOADER, DBT, READER = ROLES = ("headrace_loader", "headrace_dbt", "headrace_reader")


def separate(connection: Connection[Any]) -> str | None:
    """Create missing roles and grant each its rights, as the owner of the schemas, in one transaction.

    Returns None; or, if this user may not create roles, one line with the statements for an administrator. Then nothing
    is changed, and the owner keeps all rights. Raises DatabaseError if a table that changes its owner stays locked.
    """
    return while_locked(connection, lambda: _separate(connection))


def _separate(connection: Connection[Any]) -> str | None:
    hold_migrations(connection)
    with locked(connection, "roles"):
        row = connection.execute(
            "select current_user, rolsuper or rolcreaterole from pg_roles where rolname = current_user"
        ).fetchone()
        assert row is not None
        owner, may_create = row
        if may_create:
            for role in _missing(connection):
                _create(connection, role)
        lacking = _lacking(connection, owner)
        if may_create and lacking:
            # alter default privileges needs it, and the owner may build what dbt's role owns
            connection.execute(SQL("grant {} to {}").format(Identifier(DBT), Identifier(owner)))
            lacking = _lacking(connection, owner)
        if lacking:
            return (
                f"roles: {owner} may not create roles, expected {', '.join(ROLES)} to separate who loads, builds and "
                f"reads; everything works without; to have them, an administrator runs: {'; '.join(lacking)}; then run "
                "`headrace init` again"
            )
        connection.execute(SQL(packaged_sql("roles.sql")))
    return None


def _missing(connection: Connection[Any]) -> list[str]:
    rows = connection.execute("select rolname from pg_roles where rolname = any(%s)", (list(ROLES),)).fetchall()
    return [role for role in ROLES if (role,) not in rows]


def _create(connection: Connection[Any], role: str) -> None:
    try:
        with connection.transaction():  # a savepoint
            connection.execute(SQL("create role {}").format(Identifier(role)))
    except (errors.DuplicateObject, errors.UniqueViolation):
        pass  # roles belong to the server: the init of another database was first


def _lacking(connection: Connection[Any], owner: str) -> list[str]:
    """The statements that an administrator has to run before the owner can grant."""
    missing = _missing(connection)
    statements = [f"create role {role}" for role in missing]
    row = None
    if DBT not in missing:
        # before PostgreSQL 16 every member may become the role
        privilege = "set" if connection.info.server_version >= 160_000 else "member"
        row = connection.execute("select pg_has_role(%s, %s)", (DBT, privilege)).fetchone()
    if row != (True,):
        statements.append(SQL("grant {} to {}").format(Identifier(DBT), Identifier(owner)).as_string(connection))
    return statements
