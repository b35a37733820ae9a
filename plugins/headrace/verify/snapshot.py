"""A snapshot of the database: a read-only REPEATABLE READ transaction, which does not affect drains."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import Connection, IsolationLevel
from psycopg.rows import dict_row
from psycopg.sql import SQL, Composable, Identifier, Literal

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.postgres.connection import Connect, database
from headrace.postgres.staged_tables import SCHEMA, child_tables, replaced_name
from headrace.sql_files import read_sql
from headrace.verify.mart import become_dbt, kind_of, lock_definition

# sorts and hashes over every staged row: with Postgres's default of 4 MB they would go through the disk
WORK_MEM = "64MB"
NO_NAMES: Mapping[str, Composable] = {}


def query(name: str) -> LiteralString:
    """The statement of sql/`name`.sql, for Snapshot.rows and psycopg.sql.SQL."""
    return read_sql("headrace.verify", name).decode()


@dataclass(frozen=True, slots=True)
class Subject:
    """The dataset that is verified; `declared` is None for one that is only in the database."""

    name: str
    declared: Dataset | None

    @property
    def is_file(self) -> bool:
        """Whether its records are lines of a file."""
        return self.declared is not None and self.declared.source.is_file

    @property
    def staging(self) -> Identifier:
        """Its staging table."""
        return Identifier(SCHEMA, self.name)

    @property
    def replaced(self) -> Identifier:
        """The rows that reloads replaced."""
        return Identifier(SCHEMA, replaced_name(self.name))

    @property
    def restage(self) -> str:
        """The remedy for a ledger and rows that differ; no command, because reset deletes what it reads again."""
        return "restore a backup, or see `Verify finds a row missing` in docs/runbook.md"

    def restage_record(self, partition: int, offset: int) -> str:
        """The remedy for a row that is not what the source sent; of a topic it can be read again and replaced."""
        if self.declared is None or not self.declared.source.can_reload:
            return self.restage
        again = Command("reload", self.name, "--partition", partition, "--from", offset, "--to", offset + 1)
        return f"while the topic has it, `{again}` stages it again; else {self.restage}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A connection inside the transaction, and the dataset to verify."""

    connection: Connection[Any]
    subject: Subject
    has_tables: bool  # staging.<dataset> and staging._replaced_<dataset> exist

    def rows(
        self, statement: LiteralString, names: Mapping[str, Composable] = NO_NAMES, **parameters: Any
    ) -> list[dict[str, Any]]:
        """Rows of a query; {staging}, {replaced} and %(dataset)s stand for the dataset's own, names for others."""
        composed = SQL(statement).format(staging=self.subject.staging, replaced=self.subject.replaced, **names)
        with self.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(composed, {"dataset": self.subject.name, **parameters}).fetchall()

    def row(self, statement: LiteralString, **parameters: Any) -> dict[str, Any]:
        """The one row of a query."""
        return self.rows(statement, **parameters)[0]


@contextmanager
def snapshot(
    connect: Connect, subject: Subject, lock_timeout_ms: int, *, mart: tuple[str, str] | None = None
) -> Iterator[Snapshot]:
    """See one moment of a dataset until the end; with a mart (schema, name) of it too, with the rights of dbt's role.

    Tables are locked (ACCESS SHARE) before the snapshot is taken: truncate and the rename of a full refresh are not
    hidden by snapshots, so a truncated table would look as if its rows were lost.
    """
    with database(connect) as connection:
        wanted = [(SCHEMA, subject.name), (SCHEMA, replaced_name(subject.name))]
        existing = [table for table in wanted if exists(connection, *table)]
        has_tables = len(existing) == len(wanted)
        children = [(SCHEMA, child.name) for child in (child_tables(subject.declared) if subject.declared else ())]
        existing += [table for table in children if exists(connection, *table)]
        locks_mart = (
            mart is not None
            and exists(connection, *mart)
            and may_read(connection, *mart)
            and kind_of(connection, *mart) is None
        )
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        with connection.transaction():
            # none of these takes the snapshot: the first query does (Postgres, LOCK)
            connection.execute(SQL("set local work_mem = {}").format(Literal(WORK_MEM)))
            connection.execute(SQL("set local lock_timeout = {}").format(Literal(f"{lock_timeout_ms}ms")))
            if existing:
                names = SQL(", ").join(Identifier(*table) for table in existing)
                connection.execute(SQL("lock table {} in access share mode").format(names))
            if mart is not None:
                if locks_mart:
                    lock_definition(connection, *mart)
                become_dbt(connection)
            yield Snapshot(connection, subject, has_tables)


def exists(connection: Connection[Any], schema: str, name: str) -> bool:
    """Whether there is such a table, also without the right to read it."""
    # not to_regclass, which fails for a schema that this role may not use
    row = connection.execute(
        "select from pg_class as c inner join pg_namespace as n on c.relnamespace = n.oid "
        "where n.nspname = %s and c.relname = %s",
        (schema, name),
    ).fetchone()
    return row is not None


def may_read(connection: Connection[Any], schema: str, name: str) -> bool:
    """Whether the role of this connection may select from a table; a loader's need not read marts."""
    row = connection.execute(
        "select case when has_schema_privilege(%(schema)s, 'usage') "  # else the other one fails
        "then has_table_privilege(format('%%I.%%I', %(schema)s::text, %(name)s::text), 'select') else false end",
        {"schema": schema, "name": name},
    ).fetchone()
    return row is not None and bool(row[0])
