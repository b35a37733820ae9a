"""The local server's roles: a superuser that makes the others and nothing else, an owner, and a login that builds.

As in production, what builds the marts cannot touch what the owner has, and no session of ours is a superuser's. In a
home that was made before there was a superuser of its own, the owner remains one: initdb's user cannot be demoted.
"""

import secrets
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from headrace.command import Command
from headrace.exceptions import LocalServiceError
from headrace.local.home import write_file

ADMIN = "headrace_admin"
OWNER = "headrace"
BUILDER = "headrace_builder"
DATABASE = "headrace"
MAINTENANCE = "postgres"  # the database that is always there
READY_LIMIT_S = 10


def passfile(home: Path) -> Path:
    """The owner's and the builder's password file, in libpq's format (PostgreSQL: the password file)."""
    return home / "postgres" / "pgpass"


def admin_passfile(home: Path) -> Path:
    """The superuser's password file: `headrace up` reads it, nothing else."""
    return home / "postgres" / "pgpass-admin"


def dsn(home: Path, port: int, database: str = DATABASE, role: str = OWNER) -> str:
    """The address of the local server; the password stays in the file that it names."""
    return _dsn(passfile(home), port, database, role)


def admin_dsn(home: Path, port: int, database: str = MAINTENANCE) -> str:
    """The same for the superuser."""
    return _dsn(admin_passfile(home), port, database, superuser(home))


def superuser(home: Path) -> str:
    """The superuser's name."""
    return next(iter(passwords(admin_passfile(home))), ADMIN)


def passwords(path: Path) -> dict[str, str]:
    """Role to password, as a password file has them; empty where there is none."""
    try:
        lines = [line.split(":", 4) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return {}
    return {line[3]: line[4] for line in lines if len(line) == 5 and line[4]}


def keep(path: Path, roles: dict[str, str]) -> None:
    """Write a password file; for any port, because it may have to change."""
    write_file(path, "".join(f"127.0.0.1:*:*:{role}:{password}\n" for role, password in roles.items()))


def is_of_former_layout(home: Path) -> bool:
    """Whether the home is of a version whose one role was initdb's."""
    return not admin_passfile(home).exists() and passwords(passfile(home)).keys() == {OWNER}


def prepare(home: Path, port: int) -> None:
    """Make the roles and the database where they are missing: a first start may have been killed before them."""
    import psycopg

    deadline = time.monotonic() + READY_LIMIT_S
    while True:
        try:
            with psycopg.connect(admin_dsn(home, port), autocommit=True, connect_timeout=5) as connection:
                with connection.transaction():
                    known = _make_logins(connection, home)
                keep(passfile(home), known)
                _make_database(connection)
            return
        except psycopg.Error as error:
            if time.monotonic() > deadline:
                said = " ".join(str(error).split())
                raise LocalServiceError(
                    f"postgres: its roles and the database {DATABASE} could not be made ({said}); expected a server "
                    "whose superuser may make them; run `headrace up` again",
                    command=Command("up"),
                ) from error
            time.sleep(0.2)


def _make_logins(connection: Any, home: Path) -> dict[str, str]:
    """Make the owner and the builder; returns the password of each."""
    from psycopg.sql import SQL, Identifier, Literal

    from headrace.postgres.roles import DBT, ROLES

    kept = passwords(passfile(home)) | passwords(admin_passfile(home))
    known = {role: kept.get(role) or secrets.token_hex(24) for role in (OWNER, BUILDER)}
    is_separate = superuser(home) != OWNER
    found = {name for (name,) in connection.execute("select rolname from pg_roles")}
    for role, password in known.items():
        if role not in found:
            options = SQL("createdb createrole") if role == OWNER else SQL("")
            connection.execute(
                SQL("create role {} login password {} {}").format(Identifier(role), Literal(password), options)
            )
        elif role not in kept:
            connection.execute(SQL("alter role {} password {}").format(Identifier(role), Literal(password)))
    if BUILDER not in found:
        for group in ROLES:
            if group not in found:
                connection.execute(SQL("create role {}").format(Identifier(group)))
        names = {"dbt": Identifier(DBT), "builder": Identifier(BUILDER), "owner": Identifier(OWNER)}
        connection.execute(SQL("grant {dbt} to {builder}").format(**names))
        connection.execute(SQL("alter role {builder} set role = {dbt}").format(**names))
        if is_separate:  # it makes logins in the groups, and ends builds that hang
            groups = SQL(", ").join(map(Identifier, (*ROLES, BUILDER)))
            connection.execute(SQL("grant {} to {} with admin option").format(groups, names["owner"]))
    return known


def _make_database(connection: Any) -> None:
    from psycopg.sql import SQL, Identifier

    from headrace.postgres.roles import DBT

    names = {"database": Identifier(DATABASE), "owner": Identifier(OWNER), "dbt": Identifier(DBT)}
    exists = "select from pg_database where datname = %s"
    if connection.execute(exists, [DATABASE]).fetchone() is None:
        connection.execute(SQL("create database {database} owner {owner}").format(**names))
    # `dbt build --target dev` makes a schema of its own
    connection.execute(SQL("grant create on database {database} to {dbt}").format(**names))


def _dsn(file: Path, port: int, database: str, role: str) -> str:
    return f"postgresql://{role}@127.0.0.1:{port}/{database}?passfile={quote(str(file))}"
