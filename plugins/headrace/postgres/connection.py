"""Connections to Postgres, and psycopg's errors as Headrace's."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, errors
from psycopg.conninfo import make_conninfo
from psycopg.sql import Identifier

from headrace.command import Command
from headrace.exceptions import DatabaseError, DatabaseUnavailable, HeadraceError
from headrace.masking import remember
from headrace.postgres.liveness import FIRST_ANSWER_S, answered_within, watch, with_limits
from headrace.postgres.session import ENCODING, pin
from headrace.service_urls import libpq_parameters

Connect = Callable[[], Connection[Any]]
# SQLSTATE classes and codes that a retry of the same transaction may not meet again (Postgres, appendix A)
UNREACHABLE = ("08", "53300", "57P")  # connection exceptions, too many connections, shut down or starting
# libpq has no code for these; a retry fails in the same way
REFUSED = (
    "password authentication failed",
    "no password supplied",
    "not permitted to log in",
    "no pg_hba.conf entry",
    "server login failed",  # pgbouncer's
)
UNPROVEN = ("certificate", "server does not support SSL")
FULL = ("too many clients already", "remaining connection slots", "too many connections", "no more connections allowed")
NO_DATABASE = re.compile(r'database "(.*)" does not exist|no such database: (\S+)')  # the other one is pgbouncer's
MISCONFIGURED = ("invalid value for parameter", "unrecognized configuration parameter", "unsupported startup parameter")
# causes: the same words for every dataset that meets them
NO_ANSWER = "Postgres does not answer"
NO_CONNECTION = "Postgres has no free connection"
DISK_FULL = "Postgres has no space left"
READ_ONLY = "Postgres is read-only"
NO_PERMISSION = "a permission in Postgres is missing"
INTERRUPTED = ("40", "55P03", "57014", "25P03", "25P04")  # deadlock, serialization failure, every kind of time limit


def connector(dsn: str, application_name: str) -> Connect:
    """Return a function that opens an autocommit connection with this application_name."""

    def connect() -> Connection[Any]:
        given = with_limits(libpq_parameters(dsn, "HEADRACE_POSTGRES_DSN or HEADRACE_DBT_DSN"))
        given |= {
            "application_name": application_name,
            "client_encoding": ENCODING,  # a startup parameter, which poolers keep per client
            "options": given.get("options", ""),  # overrides PGOPTIONS, which a pooler would refuse
        }
        conninfo = make_conninfo("", **given)
        return opened(psycopg.connect(conninfo, autocommit=True, prepare_threshold=None))

    return connect


def opened(connection: Connection[Any]) -> Connection[Any]:
    """Set the session parameters of a new connection and return it; all connections pass here. Close it if that fails.

    Its password, also from a password file, a service file or PGPASSWORD, is masked from now on.
    """
    remember(connection.info.password)
    try:
        with answered_within(FIRST_ANSWER_S):
            watch(connection)
            pin(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def database(connect: Connect) -> Iterator[Connection[Any]]:
    """A connection that is closed at the end; psycopg's errors become Headrace's."""
    with translated_errors():
        connection = connect()
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn psycopg's errors into DatabaseUnavailable (retriable) or DatabaseError (permanent)."""
    try:
        yield
    except HeadraceError:
        raise
    except psycopg.Error as error:
        raise translate(error) from error


def translate(error: psycopg.Error) -> HeadraceError:
    """One line for an error of Postgres: its message and the remedy."""
    text = " ".join(str(error).split())
    if (
        isinstance(
            error, errors.UndefinedTable | errors.UndefinedColumn | errors.UndefinedFunction | errors.InvalidSchemaName
        )
        and "headrace" in text
    ):
        return DatabaseError(
            f"postgres: {text}; expected Headrace's tables; run `headrace init`", command=Command("init")
        )
    if error.sqlstate is not None and error.sqlstate.startswith(INTERRUPTED):
        return DatabaseUnavailable(
            f"postgres: {text}; expected no blocking transaction; nothing was changed; run the same command again"
        )
    where = "HEADRACE_POSTGRES_DSN (in Airflow: the connection headrace_postgres)"
    if _is_full(error):
        return DatabaseUnavailable(
            f"postgres: {text}; expected a free connection; pg_stat_activity shows who holds them: end some, raise "
            "max_connections or the limit of the role or database that it names (alter role .. connection limit), or "
            "put a pooler in front; then run the same command again",
            cause=NO_CONNECTION,
        )
    if misconfigured := _configuration_error(error, text, where):
        return misconfigured
    if isinstance(error, errors.InsufficientPrivilege):
        return DatabaseError(
            f"postgres: {text}; nothing was changed; repair it and run the same command again: docs/security.md says "
            "which role may do what, and `headrace init`, run by the owner, grants it",
            command=Command("init"),
            cause=NO_PERMISSION,
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return DatabaseError(
            f"postgres: {text}; expected a server that accepts writes; promote this standby or correct {where}, then "
            "run the same command again",
            cause=READ_ONLY,
        )
    if is_retriable(error):
        return DatabaseUnavailable(
            f"postgres: {text}; expected a server that answers; start it (`headrace up`) or correct {where}, then run "
            "the same command again",
            command=Command("up"),
            cause=NO_ANSWER,
        )
    cause = DISK_FULL if isinstance(error, errors.DiskFull) else None
    return DatabaseError(
        f"postgres: {text}; nothing was changed; repair it and run the same command again", cause=cause
    )


def _configuration_error(error: psycopg.Error, text: str, where: str) -> DatabaseError | None:
    """The error of a connection with wrong parameters; None for any other error."""
    if missing := _missing_database(error):
        return DatabaseError(
            f"postgres: {text}; expected an existing database; create it (create database {missing} encoding 'UTF8' "
            f"template template0) or correct its name in {where}"
        )
    if _is_one_of(MISCONFIGURED, error):
        return DatabaseError(
            f"postgres: {text}; expected session parameters that the server knows; correct `options` in {where}, or "
            "the environment's PGOPTIONS, PGDATESTYLE, PGTZ, PGGEQO and PGCLIENTENCODING, or the role's or database's "
            "own (alter role .. reset); a pooler needs ignore_startup_parameters to accept others"
        )
    if _is_one_of(UNPROVEN, error):
        return DatabaseError(
            f"postgres: {text}; expected a certificate that satisfies sslmode; correct sslmode or "
            f"sslrootcert in {where}, or the server's certificate"
        )
    if _is_one_of(REFUSED, error):
        return DatabaseError(
            f"postgres: {text}; expected a login that the server accepts; correct user and password in {where}"
        )
    return None


def _is_full(error: psycopg.Error) -> bool:
    return error.sqlstate == "53300" or _is_one_of(FULL, error)


def _missing_database(error: psycopg.Error) -> str | None:
    """The quoted name of the database that does not exist; None for any other error."""
    found = NO_DATABASE.search(str(error)) if error.sqlstate in (None, "3D000") else None
    return Identifier(found[1] or found[2]).as_string() if found else None


def is_retriable(error: psycopg.Error) -> bool:
    """Whether a retry of the same transaction may succeed."""
    if error.sqlstate is None:  # psycopg's own: no server answered
        never = _is_one_of((*UNPROVEN, *REFUSED, *MISCONFIGURED), error) or _missing_database(error) is not None
        return isinstance(error, psycopg.OperationalError) and not never
    return error.sqlstate.startswith((*UNREACHABLE, *INTERRUPTED))


def _is_one_of(signs: tuple[str, ...], error: psycopg.Error) -> bool:
    return error.sqlstate is None and any(sign in str(error) for sign in signs)
