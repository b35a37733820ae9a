"""The fields of a Postgres table: its columns, their types, its primary key, and rows as sample records."""

import json
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from headrace.exceptions import DatasetError
from headrace.infer.draft import FieldDraft
from headrace.infer.names import name_fields
from headrace.infer.sample import Sample
from headrace.record import KafkaRecord, Record

# by the name in pg_type; a type that is missing here is written as text
TYPES = {
    "int2": "Integer", "int4": "Integer", "int8": "Integer", "numeric": "Numeric", "float4": "Float", "float8": "Float",
    "bool": "Boolean", "timestamptz": "Timestamp", "timestamp": "Timestamp", "date": "Date", "time": "TimeOfDay",
    "uuid": "UUID", "bytea": "str", "json": "Any", "jsonb": "Any", "varchar": "str", "bpchar": "Text",
}  # fmt: skip
_COLUMNS = """
    select
        a.attname as name,
        t.typname as type,
        t.typelem <> 0 and t.typcategory = 'A' as is_array,
        a.attnotnull as is_required,
        case when t.typname in ('varchar', 'bpchar') and a.atttypmod > 0 then a.atttypmod - 4 end as length,
        coalesce(a.attnum = any (i.indkey), false) as is_key,
        coalesce(i.indnkeyatts, 0) as key_columns
    from pg_catalog.pg_attribute as a
    inner join pg_catalog.pg_type as t on a.atttypid = t.oid
    left join pg_catalog.pg_index as i on a.attrelid = i.indrelid and i.indisprimary
    where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
    order by a.attnum
"""


class Table:
    """A table of the database: `schema.table`."""

    def __init__(self, connection: Connection[Any], name: str) -> None:
        self._connection = connection
        schema, _, table = name.partition(".")
        self._identifier = sql.Identifier(schema, table)
        with connection.cursor(row_factory=dict_row) as cursor:
            self._columns = cursor.execute(_COLUMNS, [self._identifier.as_string(connection)]).fetchall()
        if not self._columns:
            raise DatasetError(
                f"{name}: found no such table that this user can see, expected schema.table; name one of "
                f"{connection.info.dbname}"
            )

    def fields(self) -> list[FieldDraft]:
        """The columns as fields; one that may be null may be absent."""
        fields = [
            FieldDraft(column["name"], _type(column), not column["is_required"], _comment(column))
            for column in self._columns
        ]
        name_fields(fields)
        return fields

    def key(self) -> str | None:
        """The column of the primary key; None if it has none, or several."""
        keys = [column["name"] for column in self._columns if column["is_key"]]
        return str(keys[0]) if len(keys) == 1 else None

    def notes(self) -> list[str]:
        """What the author should know."""
        keys = [column["name"] for column in self._columns if column["is_key"]]
        return (
            [f"the table's primary key is ({', '.join(keys)}): a dataset's key is one field"] if len(keys) > 1 else []
        )

    def sample(self, limit: int) -> Sample:
        """Rows as JSON records, in no order; with the primary key's text as their keys."""
        query = sql.SQL("select to_jsonb(_row)::text from {} as _row limit %s").format(self._identifier)
        key = self.key()
        records: list[tuple[int, Record]] = []
        for number, (text,) in enumerate(self._connection.execute(query, [limit]).fetchall()):
            record_key = str(json.loads(text)[key]).encode() if key else None
            records.append((0, KafkaRecord(number, None, record_key, text.encode(), ())))
        return Sample(records, len(records))


def _type(column: dict[str, Any]) -> str:
    if column["is_array"]:
        return "list[Any]"
    kind = TYPES.get(column["type"], "str")
    length = column["length"]
    return "Text" if kind == "str" and ((length and length <= 255) or column["is_key"]) else kind


def _comment(column: dict[str, Any]) -> str:
    return "" if column["is_array"] or column["type"] in {*TYPES, "text"} else f"{column['type']}, as text"
