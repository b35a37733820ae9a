"""Databases of a test's own on a server that others use too."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier


def create_database(server_dsn: str, name: str, template: str = "template1", encoding: str = "UTF8") -> str:
    """Make a database, in place of one of that name; returns its DSN."""
    options = SQL("") if encoding == "UTF8" else SQL(" encoding {} locale_provider libc locale 'C'").format(encoding)
    if encoding != "UTF8":
        template = "template0"  # the only one that is copied into another encoding
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(SQL("drop database if exists {} with (force)").format(Identifier(name)))
        statement = SQL("create database {} template {}").format(Identifier(name), Identifier(template))
        connection.execute(statement + options)
    return make_conninfo("", **{**conninfo_to_dict(server_dsn), "dbname": name})


@contextmanager
def passing_database(server_dsn: str, name: str, template: str = "template1", encoding: str = "UTF8") -> Iterator[str]:
    """The DSN of a database that is dropped at the end."""
    yield create_database(server_dsn, name, template, encoding)
    with psycopg.connect(server_dsn, autocommit=True) as connection:
        connection.execute(SQL("drop database {} with (force)").format(Identifier(name)))
