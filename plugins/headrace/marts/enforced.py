"""Data tests that a constraint of the table makes superfluous: such a row cannot be written.

packages/headrace_dbt makes the constraints of a maintained model's tests not_null and unique. Run nevertheless, each of
these tests reads nothing, and takes 10 ms of dbt and Postgres.
"""

from typing import Any

from psycopg import Connection

_CONSTRAINED = """
select test.id
from unnest(%(ids)s::text[], %(schemas)s::text[], %(tables)s::text[], %(columns)s::text[], %(kinds)s::text[])
    as test (id, "schema", "table", "column", kind)
inner join pg_catalog.pg_class as c on c.oid = to_regclass(format('%%I.%%I', test."schema", test."table"))
inner join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attname = test."column"
where
    case test.kind
        when 'not_null' then
            a.attnotnull and not exists (  -- from Postgres 18 on such a constraint may be not valid
                select from pg_catalog.pg_constraint as n
                where n.conrelid = c.oid and n.contype = 'n' and n.conkey[1] = a.attnum and not n.convalidated
            )
        else exists (
            select from pg_catalog.pg_index as i
            where
                i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indimmediate
                and i.indnkeyatts = 1 and i.indpred is null and i.indkey[0] = a.attnum
        )
    end
"""


def enforced_tests(connection: Connection[Any], manifest: Any) -> set[str]:
    """The unique_ids of the tests not_null and unique whose constraint the table has."""
    tests = [test for test in manifest.nodes.values() if _is_enforceable(test, manifest)]
    tables = [manifest.nodes[test.attached_node] for test in tests]
    rows = connection.execute(
        _CONSTRAINED,
        {
            "ids": [test.unique_id for test in tests],
            "schemas": [table.schema for table in tables],
            "tables": [table.alias for table in tables],
            "columns": [_unquoted(test.test_metadata.kwargs["column_name"]) for test in tests],
            "kinds": [test.test_metadata.name for test in tests],
        },
    )
    return {unique_id for (unique_id,) in rows}


def _is_enforceable(test: Any, manifest: Any) -> bool:
    """Whether a maintained model makes a constraint of a test; with a condition, a warning or error_if it stays one."""
    metadata = getattr(test, "test_metadata", None)
    model = manifest.nodes.get(getattr(test, "attached_node", None) or "")
    return (
        metadata is not None
        and metadata.namespace is None
        and metadata.name in {"not_null", "unique"}
        and bool(metadata.kwargs.get("column_name"))
        and model is not None
        and model.config.materialized == "maintained"
        and not test.config.where
        and (test.config.severity or "error").lower() == "error"
        and (test.config.error_if or "!= 0") == "!= 0"
    )


def _unquoted(name: str) -> str:
    """An author's name as the catalog has it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
