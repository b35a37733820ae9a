"""Databases of a test's own on a server that others use too."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from headrace.local.postgres_roles import admin_dsn
from headrace.settings import read_services


def make_owner_superuser(home: Path) -> str:
    """Let the owner of a local server make roles, settings and publications as tests want them; returns its DSN."""
    record = read_services(home)["postgres"]
    with psycopg.connect(admin_dsn(home, record["port"]), autocommit=True) as connection:
        connection.execute("alter role headrace superuser")
    return str(record["address"])


def stop_syncing(home: Path) -> None:
    """Make a local server faster: what it writes survives a kill of its processes, but not of the machine."""
    with psycopg.connect(admin_dsn(home, read_services(home)["postgres"]["port"]), autocommit=True) as connection:
        connection.execute("alter system set fsync = off")
        connection.execute("select pg_reload_conf()")


def create_database(server_dsn: str, name: str, template: str = "template1", encoding: str = "UTF8") -> str:
    """Make a database, in place of one of that name; returns its DSN."""
    options = SQL("") if encoding == "UTF8" else SQL(" encoding {} locale_provider libc locale 'C'").format(encoding)
    if encoding != "UTF8":
        template = "template0"  # the only one that is copied into another encoding
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(SQL("drop database if exists {} with (force)").format(Identifier(name)))
        statement = SQL("create database {} template {}").format(Identifier(name), Identifier(template))
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
