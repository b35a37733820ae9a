"""The lineage of drains and builds: datasets by OpenLineage's names, their fields, and where columns come from.

Computed only when Airflow's provider for OpenLineage asks an operator for its facets. Names follow
https://openlineage.io/docs/spec/naming: kafka://host:port and the topic, postgres://host:port and
database.schema.table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import Connection

from headrace.contracts.columns import Column
from headrace.contracts.rejection import json_path
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.marts.build import BuildResult
from headrace.marts.lineage import Columns, Table, built_models, column_lineage, columns_of
from headrace.postgres.staging import SCHEMA
from headrace.sources.lineage_names import lineage_names

POSTGRES_PORT = 5432


@dataclass(frozen=True, slots=True)
class Origin:
    """A field that a column's values come from; is_masked: the column has a mask of them."""

    namespace: str
    name: str
    field: str
    is_masked: bool = False


@dataclass(frozen=True, slots=True)
class LineageDataset:
    """A topic, stream, file or table.

    fields: name, type and description. origins: of its columns, by name. rows: that the run wrote to it.
    """

    namespace: str
    name: str
    fields: Sequence[tuple[str, str, str]] = ()
    origins: Mapping[str, Sequence[Origin]] = field(default_factory=dict)
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a run reads and writes."""

    inputs: Sequence[LineageDataset]
    outputs: Sequence[LineageDataset]


class Database:
    """The names of a database's tables; parameters are libpq's."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        host = (parameters.get("host") or parameters.get("hostaddr") or "localhost").split(",")[0]
        port = (parameters.get("port") or str(POSTGRES_PORT)).split(",")[0]
        self.namespace = f"postgres://{'localhost' if host.startswith('/') else host}:{port}"
        self._database = parameters.get("dbname") or parameters.get("user", "postgres")

    def table(self, table: Table) -> str:
        """database.schema.table."""
        return ".".join((self._database, *table))


def of_drain(
    deployment: Deployment, dataset: Dataset, database: Database, rows: int | None, path: Path | None = None
) -> Lineage:
    """From the source to the staging tables. path: of a file other than the declared one."""
    sources = lineage_names(dataset.source, deployment, path)
    compiled = dataset.compiled
    children = compiled.children.each if compiled.children is not None else ()
    tables: list[tuple[str, Sequence[Column], str]] = [(dataset.name, compiled.columns, "$")]
    for child, found in zip(dataset.children, children, strict=True):
        tables.append((f"{dataset.name}__{child.name}", found.contract.columns, f"{child.explode}[*]"))
    fields = {_path(column, root): column.value_type or column.sql_type for _, each, root in tables for column in each}
    inputs = [
        LineageDataset(namespace, name, [(path, kind, "") for path, kind in fields.items()])
        for namespace, name in sources
    ]
    outputs = [
        LineageDataset(
            database.namespace,
            database.table((SCHEMA, name)),
            [(column.name, column.sql_type, "") for column in columns],
            {
                column.name: [Origin(*source, _path(column, root), column.is_masked) for source in sources]
                for column in columns
                if sources
            },
            rows if name == dataset.name else None,
        )
        for name, columns, root in tables
    ]
    return Lineage(inputs, outputs)


def of_build(connection: Connection[Any], database: Database, result: BuildResult) -> Lineage:
    """From staging tables and marts to the marts that a build wrote; nothing if dbt did not run."""
    models = [] if result.manifest is None else built_models(result.manifest, result.passes)
    columns = columns_of(connection, [table for model in models for table in (model.table, *model.reads)])
    built = {model.table for model in models}
    read = dict.fromkeys(table for model in models for table in model.reads if table not in built)
    return Lineage(
        [_mart(database, table, columns) for table in read],
        [
            _mart(database, model.table, columns, model.rows, column_lineage(model.sql, _only(columns, model.reads)))
            for model in models
        ],
    )


def _mart(
    database: Database,
    table: Table,
    columns: Columns,
    rows: int | None = None,
    origins: Mapping[str, Sequence[tuple[Table, str]]] | None = None,
) -> LineageDataset:
    found = {
        column: [Origin(database.namespace, database.table(source), name) for source, name in each]
        for column, each in (origins or {}).items()
        if each
    }
    return LineageDataset(database.namespace, database.table(table), columns.get(table, ()), found, rows)


def _only(columns: Columns, tables: Iterable[Table]) -> Columns:
    return {table: columns[table] for table in tables if table in columns}


def _path(column: Column, root: str) -> str:
    """The place of a column's value in the record: $.REVENUE, $.items[*].price."""
    return json_path(column.path).replace("$", root, 1)
