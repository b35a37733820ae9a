"""What models read: tables from dbt's manifest, columns from the models' SQL by sqlglot."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from headrace.marts.claims import NodeResult

Table = tuple[str, str]  # schema and name
Columns = Mapping[Table, Sequence[tuple[str, str, str]]]  # of each column name, type and description

logger = logging.getLogger(__name__)

_COLUMNS = """
    select
        n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
        coalesce(col_description(c.oid, a.attnum), '')
    from unnest(%s::text[], %s::text[]) as wanted (schema, name)
    inner join pg_namespace as n on n.nspname = wanted.schema
    inner join pg_class as c on c.relnamespace = n.oid and c.relname = wanted.name
    inner join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    order by n.nspname, c.relname, a.attnum
"""


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model that a build ran: its table, the tables that it reads, its SELECT, and the rows that were written."""

    table: Table
    reads: tuple[Table, ...]
    sql: str
    rows: int | None


def built_models(manifest: Any, passes: Iterable[Sequence[NodeResult]]) -> list[BuiltModel]:
    """The models that the passes of a build ran without an error; rows are those of all passes."""
    rows: dict[Table, int | None] = {}
    for node in (node for nodes in passes for node in nodes):
        if node.kind == "model" and node.status == "success":
            table = (node.schema, node.model)
            rows[table] = None if node.rows is None else node.rows + (rows.get(table) or 0)
    return [
        BuiltModel(table, tuple(_reads(manifest, node)), node.compiled_code or "", rows[table])
        for node in manifest.nodes.values()
        if (table := (node.schema, node.alias)) in rows and str(node.resource_type) == "model"
    ]


def columns_of(connection: Connection[Any], tables: Iterable[Table]) -> Columns:
    """The columns of tables and views that exist."""
    wanted = sorted(set(tables))
    found: dict[Table, list[tuple[str, str, str]]] = {}
    parameters = ([schema for schema, _ in wanted], [name for _, name in wanted])
    for schema, table, *column in connection.execute(_COLUMNS.encode(), parameters):
        found.setdefault((schema, table), []).append((column[0], column[1], column[2]))
    return found


def column_lineage(sql: str, columns: Columns) -> dict[str, list[tuple[Table, str]]]:
    """For each column of a SELECT the columns whose values it is computed from; conditions do not count.

    Empty where sqlglot cannot read the SELECT, or is not installed: its lineage is then that of tables only.
    """
    try:
        from sqlglot import parse_one
        from sqlglot.errors import SqlglotError
        from sqlglot.lineage import lineage
        from sqlglot.optimizer.qualify import qualify
        from sqlglot.optimizer.scope import build_scope
    except ModuleNotFoundError:  # the provider without the extra
        return {}
    schema: dict[str, dict[str, dict[str, str]]] = {}
    for (schema_name, table), each in columns.items():
        schema.setdefault(schema_name, {})[table] = {name: "text" for name, _, _ in each}
    try:
        select = _without_databases(parse_one(sql, dialect="postgres"))
        qualified = qualify(select, schema=schema, dialect="postgres", validate_qualify_columns=False)
        scope = build_scope(qualified)
        return {
            name: sorted(
                set(_origins(lineage(name, qualified, schema=schema, scope=scope, dialect="postgres"), columns))
            )
            for name in qualified.named_selects
        }
    except (SqlglotError, ValueError, RecursionError) as error:
        logger.debug("no lineage of columns: %s", error)
        return {}


def _without_databases(select: Any) -> Any:
    from sqlglot import exp

    for table in select.find_all(exp.Table):
        table.set("catalog", None)
    return select


def _origins(node: Any, columns: Columns) -> Iterator[tuple[Table, str]]:
    from sqlglot import exp

    for each in node.walk():
        if isinstance(each.source, exp.Table) and not each.downstream:
            table = (each.source.db, each.source.name)
            column = each.name.rpartition(".")[2].strip('"')
            if any(column == name for name, _, _ in columns.get(table, ())):
                yield table, column


def _reads(manifest: Any, node: Any) -> Iterator[Table]:
    """The tables behind a model; an ephemeral one is no table, so those behind it."""
    for unique_id in node.depends_on.nodes:
        if unique_id in manifest.sources:
            source = manifest.sources[unique_id]
            yield source.schema, source.identifier
        elif (upstream := manifest.nodes.get(unique_id)) is not None:
            if upstream.is_ephemeral_model:
                yield from _reads(manifest, upstream)
            elif upstream.is_relational:
                yield upstream.schema, upstream.alias
