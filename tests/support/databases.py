"""Databases of a test's own on a server that others use too."""

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier, Literal

from headrace.local.postgres_roles import admin_dsn, admin_passfile, passfile, passwords
from headrace.settings import read_services

_kept = threading.local()
KEPT = "headrace tests"  # the application_name of a kept connection


def rows(dsn: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Rows of a query in a transaction of its own.

    The thread's connection is kept for the next query of the same database: a login takes as long as ten of them.
    """
    connection: psycopg.Connection[Any] | None = getattr(_kept, "connection", None)
    if connection is None or _kept.dsn != dsn or connection.closed or not _is_alive(connection):
        if connection is not None:
            connection.close()
        _kept.connection = connection = psycopg.connect(dsn, autocommit=True, application_name=KEPT)
        _kept.dsn = dsn
    return connection.execute(statement, parameters or None).fetchall()


def forget_kept() -> None:
    """Close the thread's connection: a database that is copied may have no session."""
    if (connection := getattr(_kept, "connection", None)) is not None:
        connection.close()


def _is_alive(connection: "psycopg.Connection[Any]") -> bool:
    """Whether the server has not ended the connection: it would have sent why."""
    return not select.select([connection], [], [], 0)[0]


def make_owner_superuser(home: Path) -> str:
    """Let the owner of a local server make roles, settings and publications as tests want them; returns its DSN."""
    record = read_services(home)["postgres"]
    with psycopg.connect(admin_dsn(home, record["port"]), autocommit=True) as connection:
        connection.execute("alter role headrace superuser")
    return str(record["address"])


def make_server_faster(home: Path) -> None:
    """Spare a local server what tests do not need: syncing, whole pages in the log, 4,096 rounds of hashing a login.

    What it writes survives a kill of its processes, but not of the machine. A login takes 4 ms of CPU less, a copy of
    a database 150 ms.
    """
    roles = passwords(passfile(home)) | passwords(admin_passfile(home))
    with psycopg.connect(admin_dsn(home, read_services(home)["postgres"]["port"]), autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "wal_compression"):
            connection.execute(SQL("alter system set {} = off").format(Identifier(setting)))
        connection.execute("alter system set scram_iterations = 1")
        connection.execute("select pg_reload_conf()")
        connection.execute("set scram_iterations = 1")  # the signal of the reload may come later
        for role, password in roles.items():  # a stored password keeps its rounds
            connection.execute(SQL("alter role {} password {}").format(Identifier(role), Literal(password)))


def create_database(server_dsn: str, name: str, template: str = "template1", encoding: str = "UTF8") -> str:
    """Make a database, in place of one of that name; returns its DSN."""
    options = SQL("") if encoding == "UTF8" else SQL(" encoding {} locale_provider libc locale 'C'").format(encoding)
    if encoding != "UTF8":
        template = "template0"  # the only one that is copied into another encoding
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(SQL("drop database if exists {} with (force)").format(Identifier(name)))
        # its files as they are: by the log, each page would be read, logged and written again
        statement = SQL("create database {} template {} strategy file_copy").format(
            Identifier(name), Identifier(template)
        )
        connection.execute(statement + options)
        # only roles that a test lets in are this database's: the server has a login that builds
        connection.execute(SQL("revoke connect on database {} from public").format(Identifier(name)))
    return make_conninfo("", **{**conninfo_to_dict(server_dsn), "dbname": name})


@contextmanager
def passing_database(server_dsn: str, name: str, template: str = "template1", encoding: str = "UTF8") -> Iterator[str]:
    """The DSN of a database that is dropped at the end."""
    yield create_database(server_dsn, name, template, encoding)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))
