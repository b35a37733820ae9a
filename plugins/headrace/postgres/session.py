"""The parameters of a Postgres session: every parameter that affects a result is set here, none is inherited.

Roles, databases and the environment may have other defaults (alter role .. set, PGCLIENTENCODING, PGOPTIONS): with
LATIN1 a payload was stored as other characters, with a German DateStyle no time could be read.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from psycopg import Connection, Cursor, IsolationLevel, Transaction
from psycopg.errors import InvalidParameterValue
from psycopg.pq import TransactionStatus
from psycopg.sql import SQL, Composed, Identifier, Literal

from headrace.exceptions import DatabaseError

VERSION_MIN = 150_000  # MERGE, and unique nulls not distinct
ENCODING = "UTF8"

PARAMETERS = {
    "client_encoding": ENCODING,
    "standard_conforming_strings": "on",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "extra_float_digits": "1",  # the shortest text that reads back as the same number
    "bytea_output": "hex",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "search_path": "pg_catalog, pg_temp",  # all other names in our statements have a schema
    "row_security": "off",  # a policy that would hide rows is an error
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    # a transaction that needs a limit sets it itself
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
SINCE = {"transaction_timeout": (170_000, "0")}

# libpq's variables for parameters that it sends at startup and that poolers keep per client
STARTUP_VARIABLES = {
    "PGCLIENTENCODING": ENCODING,
    "PGDATESTYLE": PARAMETERS["datestyle"],
    "PGTZ": PARAMETERS["timezone"],
}

# A pooler gives each transaction another backend, whose pid differs from the one that libpq was told. A parameter set
# for the session would apply to another client's next transaction. So it is set for this statement only, and again in
# each transaction. client_encoding is the exception: every pooler tracks it, because clients read it. All names are
# qualified: the role's search_path is not known yet.
_PIN = """
select
    pooled.is_pooled,
    (
        select pg_catalog.count(
            pg_catalog.set_config(
                parameter.name,
                parameter.value,
                pooled.is_pooled and parameter.name operator(pg_catalog.<>) 'client_encoding'
            )
        )
        from rows from (
            pg_catalog.unnest(%(names)s::pg_catalog.text[]), pg_catalog.unnest(%(values)s::pg_catalog.text[])
        ) as parameter (name, value)
    )
from (select pg_catalog.pg_backend_pid() operator(pg_catalog.<>) %(pid)s::pg_catalog.int4 as is_pooled) as pooled
"""


class PooledConnection(Connection[Any]):
    """A connection through a pooler: each of its transactions begins with the session's parameters.

    A statement outside a transaction is run in a new one.
    """

    pinned: Composed

    @contextmanager
    def transaction(self, savepoint_name: str | None = None, force_rollback: bool = False) -> Iterator[Transaction]:
        """Begin a transaction or, inside one, a savepoint."""
        is_outermost = self.info.transaction_status == TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as transaction:
            if is_outermost:
                self.execute(self.pinned)  # `set local`, which takes no snapshot
            yield transaction


class _PooledCursor(Cursor[Any]):
    def execute(self, *arguments: Any, **options: Any) -> Self:
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            return super().execute(*arguments, **options)
        with self.connection.transaction():
            return super().execute(*arguments, **options)


def pin(connection: Connection[Any]) -> None:
    """Set the parameters of a new connection, which is in autocommit mode.

    Without a pooler for the session, in one round trip; with a pooler in each transaction (PooledConnection). Raises
    DatabaseError for a server or a database that Headrace cannot use.
    """
    _check_server(connection)
    connection.autocommit = True
    connection.prepare_threshold = None  # a pooler may give each transaction another backend
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    connection.read_only = connection.deferrable = False
    parameters = parameters_for(connection)
    row = connection.execute(
        _PIN,
        {"names": list(parameters), "values": list(parameters.values()), "pid": connection.info.backend_pid},
    ).fetchone()
    if row is not None and row[0]:
        connection.__class__ = PooledConnection
        assert isinstance(connection, PooledConnection)
        connection.pinned = _set_local(parameters)
        connection.cursor_factory = _PooledCursor


def parameters_for(connection: Connection[Any]) -> Mapping[str, str]:
    """The parameters that this server supports."""
    version = connection.info.server_version
    return PARAMETERS | {name: value for name, (since, value) in SINCE.items() if version >= since}


def startup_options(connection: Connection[Any], **changed: str) -> list[str]:
    """The parameters for another client's session on this server, as words of libpq's `options`."""
    parameters = {**parameters_for(connection), **changed}
    del parameters["client_encoding"]  # libpq has a connection parameter for it
    return ["-c {}={}".format(name, value.replace(" ", r"\ ")) for name, value in parameters.items()]


def is_accepted(connection: Connection[Any], name: str, value: str) -> bool:
    """Whether the server takes a value of a parameter: its platform may lack what that needs."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute("select pg_catalog.set_config(%s, %s, true)", (name, value))
    except InvalidParameterValue:
        return False
    return True


def _set_local(parameters: Mapping[str, str]) -> Composed:
    return SQL("; ").join(
        SQL("set local {} = {}").format(Identifier(name), SQL(", ").join(map(Literal, value.split(", "))))
        for name, value in parameters.items()
    )


def _check_server(connection: Connection[Any]) -> None:
    info = connection.info
    if info.server_version < VERSION_MIN:
        raise DatabaseError(
            f"postgres: found version {info.parameter_status('server_version')}, expected 15 or later; upgrade the "
            "server, or name another one in HEADRACE_POSTGRES_DSN (in Airflow: the connection headrace_postgres)"
        )
    encoding = info.parameter_status("server_encoding")
    if encoding != ENCODING:
        raise DatabaseError(
            f"postgres: found the database {info.dbname} with encoding {encoding}, expected {ENCODING}: it cannot hold "
            "every text; make another one (create database NAME encoding 'UTF8' template template0) and name it in "
            "HEADRACE_POSTGRES_DSN (in Airflow: the connection headrace_postgres)"
        )
