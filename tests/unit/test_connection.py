"""Postgres' errors in our words."""

import psycopg
import pytest
from psycopg import errors

from headrace.exceptions import DatabaseError, DatabaseUnavailable
from headrace.postgres.connection import is_retriable, translate

RETRIABLE = [
    errors.DeadlockDetected, errors.SerializationFailure, errors.LockNotAvailable, errors.QueryCanceled,
    errors.AdminShutdown, errors.CrashShutdown, errors.CannotConnectNow, errors.TooManyConnections,
    errors.ConnectionException, errors.ConnectionFailure, errors.ProtocolViolation,
    errors.IdleInTransactionSessionTimeout, errors.TransactionTimeout, psycopg.OperationalError,
]  # fmt: skip
PERMANENT = [
    errors.DiskFull, errors.OutOfMemory, errors.ReadOnlySqlTransaction, errors.UndefinedColumn,
    errors.UndefinedTable, errors.DatatypeMismatch, errors.UniqueViolation, errors.NumericValueOutOfRange,
    errors.InsufficientPrivilege, errors.InvalidPassword, psycopg.InterfaceError, psycopg.DataError,
]  # fmt: skip


@pytest.mark.parametrize("kind", RETRIABLE)
def test_database_error_that_may_pass_is_retriable(kind: type[psycopg.Error]) -> None:
    assert is_retriable(kind("x"))
    assert type(translate(kind("x"))) is DatabaseUnavailable


@pytest.mark.parametrize("kind", PERMANENT)
def test_database_error_that_needs_a_repair_is_permanent(kind: type[psycopg.Error]) -> None:
    assert not is_retriable(kind("x"))
    assert type(translate(kind("x"))) is DatabaseError


def test_database_error_is_translated_into_one_line() -> None:
    text = str(translate(errors.DiskFull("could not extend file\nHINT:  Check free disk space.\n")))
    assert text == (
        "postgres: could not extend file HINT: Check free disk space.; nothing was changed; "
        "repair it and run the same command again"
    )


@pytest.mark.parametrize("kind", [errors.UndefinedTable, errors.InvalidSchemaName])
def test_database_without_the_tables_names_headrace_init(kind: type[psycopg.Error]) -> None:
    assert "run `headrace init`" in str(translate(kind('relation "headrace.datasets" does not exist')))


def test_database_error_of_a_rival_does_not_blame_the_server() -> None:
    assert "start it" not in str(translate(errors.DeadlockDetected("deadlock detected")))
    assert "start it" in str(translate(psycopg.OperationalError("connection refused")))


def test_database_error_of_a_time_limit_says_to_run_it_again() -> None:
    assert str(translate(errors.QueryCanceled("canceling statement due to statement timeout"))) == (
        "postgres: canceling statement due to statement timeout; expected no blocking transaction; nothing was "
        "changed; run the same command again"
    )


@pytest.mark.parametrize(
    "said",
    [
        "FATAL: sorry, too many clients already",
        "FATAL: remaining connection slots are reserved for roles with the SUPERUSER attribute",
        'FATAL: too many connections for database "sales"',
        "ERROR: no more connections allowed (max_client_conn)",  # pgbouncer's
    ],
)
def test_database_without_a_free_connection_says_how_to_get_one(said: str) -> None:
    error = psycopg.OperationalError(f"connection failed: {said}")
    assert is_retriable(error)
    translated = translate(error)
    assert type(translated) is DatabaseUnavailable
    assert "pg_stat_activity shows who holds them" in str(translated)
    assert "headrace up" not in str(translated)


@pytest.mark.parametrize("said", ['FATAL: database "sales 2026" does not exist', "FATAL: no such database: sales"])
def test_database_that_does_not_exist_is_permanent_and_named(said: str) -> None:
    error = psycopg.OperationalError(f"connection failed: {said}")
    assert not is_retriable(error)
    translated = translate(error)
    assert type(translated) is DatabaseError
    assert "create database " + ('"sales 2026"' if "2026" in said else '"sales"') in str(translated)
    assert "headrace up" not in str(translated)
