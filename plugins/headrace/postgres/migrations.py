"""Migrations: the numbered files in sql/migrations/, each applied once per database, also while drains run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any, TypeVar

from psycopg import Connection, errors
from psycopg.sql import SQL, Identifier

from headrace.command import Command
from headrace.exceptions import DatabaseError

T = TypeVar("T")

MIGRATION_WAIT_MS = 10_000  # in all, for the locks of tables
MIGRATION_LOCK_MS = 500  # for one lock at a time: less than Postgres's deadlock_timeout, so that no drain is the victim


def migrate(connection: Connection[Any]) -> list[str]:
    """Apply this database's outstanding migrations in one transaction; return their names.

    Raises DatabaseError if a table stays locked.
    """
    return while_locked(connection, lambda: _migrate(connection))


def while_locked(connection: Connection[Any], work: Callable[[], T]) -> T:
    """Run a part of `headrace init` in a transaction; repeat it for MIGRATION_WAIT_MS while locked() finds a lock.

    Each wait for a table's lock is short: later queries queue behind it, and drains and plans lock the same tables in
    other orders. After a wait without the lock everything is rolled back and tried again. Raises DatabaseError if a
    table stays locked.
    """
    deadline = time.monotonic() + MIGRATION_WAIT_MS / 1000
    while True:
        try:
            with connection.transaction():
                return work()
        except _Locked as locked:
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"postgres: {locked.doing}: found a table locked by another transaction for "
                    f"{MIGRATION_WAIT_MS / 1000:g} s ({_holders(connection)}), expected it free; nothing was "
                    "changed; let drains, builds and queries end, or end that session (select "
                    "pg_terminate_backend(pid)), then run `headrace init` again",
                    command=Command("init"),
                ) from locked.__cause__
        except _CreatedMeanwhile:
            continue
        time.sleep(MIGRATION_LOCK_MS / 1000)


@contextmanager
def locked(connection: Connection[Any], doing: str) -> Iterator[None]:
    """Limit the waits for locks taken inside; use it only inside while_locked()."""
    connection.execute(SQL("set local lock_timeout = {}").format(f"{MIGRATION_LOCK_MS}ms"))
    try:
        yield
    except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
        raise _Locked(doing) from error
    connection.execute("set local lock_timeout = 0")


class _Locked(Exception):
    """A table that `headrace init` changes is locked by another transaction; never leaves this module."""

    def __init__(self, doing: str) -> None:
        super().__init__(doing)
        self.doing = doing


class _CreatedMeanwhile(Exception):
    """Another first `headrace init` of this database has committed; never leaves this module."""


def hold_migrations(connection: Connection[Any]) -> None:
    """Exclude other runs of `headrace init` until the end of the transaction.

    Locks headrace.migrations in a mode that blocks no reader and that only the owner may take. An advisory lock could
    be held by every user who may connect, and would stop every `headrace init`.
    """
    if connection.execute("select to_regclass('headrace.migrations')").fetchone() == (None,):
        try:
            with locked(connection, "schema headrace"):
                connection.execute("create schema if not exists headrace")
                _check_schemas(connection)
                connection.execute(
                    "create table if not exists headrace.migrations ("
                    "name text primary key, applied_at timestamptz not null default clock_timestamp())"
                )
        except (errors.UniqueViolation, errors.DuplicateSchema, errors.DuplicateTable) as error:
            raise _CreatedMeanwhile from error
    connection.execute("lock table headrace.migrations in exclusive mode")


def _check_schemas(connection: Connection[Any]) -> None:
    """Refuse schemas of other owners: code in them would run with this session's rights."""
    row = connection.execute(
        """
        select n.nspname, pg_get_userbyid(n.nspowner), current_user
        from pg_namespace as n
        inner join pg_roles as o on n.nspowner = o.oid
        where
            n.nspname in ('headrace', 'staging', 'marts', 'marts_log')
            and n.nspowner <> current_user::regrole
            and not o.rolsuper
            and (
                o.rolname in ('headrace_loader', 'headrace_dbt', 'headrace_reader')
                or not pg_has_role(current_user, n.nspowner, 'usage')
            )
        order by n.nspname
        """
    ).fetchone()
    if row is not None:
        schema, owner, user = row
        remedy = SQL("alter schema {} owner to {}").format(Identifier(schema), Identifier(user)).as_string(connection)
        raise DatabaseError(
            f"postgres: schema {schema}: belongs to {owner}, expected {user}, because its owner decides what runs in "
            f"it; nothing was changed; an administrator runs: {remedy}; then run `headrace init` again",
            command=Command("init"),
        )


def _holders(connection: Connection[Any]) -> str:
    """The other sessions that hold locks of Headrace's tables, for a message.

    The server's own processes, which have no user, are named only when no client holds one: autovacuum gives way to
    those that wait for it, except when it prevents the wraparound of transaction ids.
    """
    rows = connection.execute(
        """
        select distinct a.pid, a.usename, a.application_name, a.backend_type
        from pg_locks as l
        inner join pg_class as c on l.relation = c.oid
        inner join pg_namespace as n on c.relnamespace = n.oid
        inner join pg_database as d on l.database = d.oid and d.datname = current_database()
        inner join pg_stat_activity as a on l.pid = a.pid
        where n.nspname in ('headrace', 'staging', 'marts', 'marts_log') and l.granted and l.pid <> pg_backend_pid()
        order by a.pid
        """
    ).fetchall()
    clients = [f"pid {pid}, user {user}, application {name!r}" for pid, user, name, _ in rows if user is not None]
    servers = [f"pid {pid}, {kind or 'a process of the server'}" for pid, user, _, kind in rows if user is None]
    return "; ".join((clients or servers)[:3]) or "no session that holds one was found"


def _migrate(connection: Connection[Any]) -> list[str]:
    hold_migrations(connection)
    connection.execute("create schema if not exists staging")
    _check_schemas(connection)
    applied = {name for (name,) in connection.execute("select name from headrace.migrations")}
    pending = [(name, text) for name, text in _migrations() if name not in applied]
    for name, text in pending:
        with locked(connection, f"migration {name}"):
            connection.execute(SQL(text))
        connection.execute("insert into headrace.migrations (name) values (%s)", (name,))
    return [name for name, _ in pending]


def packaged_sql(*path: str) -> str:
    """The text of a file in sql/."""
    return resources.files("headrace.postgres").joinpath("sql", *path).read_text()


def _migrations() -> list[tuple[str, str]]:
    folder = resources.files("headrace.postgres") / "sql" / "migrations"
    files = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".sql")), key=lambda entry: entry.name)
    return [(entry.name.removesuffix(".sql"), entry.read_text()) for entry in files]
