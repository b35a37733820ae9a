"""What random models must hold: each recomputed from the current rows of its datasets, which plain Python has found.

And the grain promise of a drawn model, checked without dbt: of a random change of the datasets, every row that is
different afterwards belongs to a grain that an old or a new image of a changed upstream row touches.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Identifier

from tests.support.random_models import Model, in_schema

CURRENT: dict[str, dict[str, str]] = {
    "jobs": {
        "jobidentifier": "bigint",
        "userid": "bigint",
        "jobcreatedate": "timestamptz",
        "jobdate": "timestamptz",
        "jobstatus": "text",
        "location": "text",
        "revenue": "numeric",
        "servicename": "text",
    },
    "users": {"userid": "bigint", "location": "text"},
    "events": {
        "event_id": "text",
        "event_time": "timestamptz",
        "user_id": "text",
        "event_type": "text",
        "payload": "jsonb",
        "schema_version": "bigint",
    },
    "rides": {
        "pulocationid": "bigint",
        "dolocationid": "bigint",
        "trip_distance": "numeric",
        "total_amount": "numeric",
        "tpep_pickup_datetime": "timestamptz",
        "_generation": "bigint",
        "_partition": "bigint",
        "_offset": "bigint",
    },
}
START = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)

Rows = Iterable[Mapping[str, Any]]


def recompute(connection: Connection[Any], schema: str, models: Sequence[Model], current: Mapping[str, Rows]) -> None:
    """Fill a schema with every model, computed from scratch from the current rows of the datasets."""
    connection.execute(SQL("drop schema if exists {0} cascade; create schema {0}").format(Identifier(schema)))
    for dataset, rows in current.items():
        columns = CURRENT[dataset]
        told = SQL(", ").join(SQL("{} {}").format(Identifier(name), SQL(kind)) for name, kind in columns.items())
        table = Identifier(schema, f"current_{dataset}")
        connection.execute(SQL("create table {} ({})").format(table, told))
        with connection.cursor().copy(SQL("copy {} from stdin").format(table)) as copy:
            for row in rows:
                copy.write_row([row[name] for name in columns])
    for model in models:
        connection.execute(f"create table {schema}.{model.name} as {model.truth(schema)}".encode())


def difference(connection: Connection[Any], found: str, expected: str, model: Model) -> list[tuple[int, str]]:
    """Images of rows of which there are more (1, 2, ...) or fewer (-1, ...) than expected."""
    columns = ", ".join(model.columns)
    sql = (
        f"select sum(side)::int, image from ("
        f"select 1 as side, (select q from (select {columns}) as q)::text as image from {found}.{model.name} union all "
        f"select -1, (select q from (select {columns}) as q)::text from {expected}.{model.name}) as images "
        f"group by image having sum(side) <> 0 order by image"
    )
    return connection.execute(sql.encode()).fetchall()


def broken_promises(connection: Connection[Any], models: Sequence[Model], seed: int, changes: int) -> list[str]:
    """Grains whose rows changed and that no changed row touches, after each of so many random changes."""
    rng = random.Random(f"promises {seed}")
    rows = {dataset: _random_rows(rng, dataset) for dataset in CURRENT}
    recompute(connection, "before", models, _plain(rows))
    broken = []
    for _ in range(changes):
        _change(rng, rows)
        recompute(connection, "after", models, _plain(rows))
        for model in models:
            if model.grain is not None:
                broken += [f"{model.name}: {grain}" for (grain,) in _missed(connection, model)]
        connection.execute("drop schema before cascade; alter schema after rename to before")
    return broken


def _missed(connection: Connection[Any], model: Model) -> list[tuple[str]]:
    """The changed grains of a model that nothing touches, as text."""
    assert model.grain is not None
    names = ", ".join(model.grain)
    touched = []
    for upstream in model.upstreams:
        changed = _changed(upstream)
        if upstream in model.touched:
            select = in_schema(model.touched[upstream], "after")
            touched.append(f"(with changed as ({changed}) {select})")
        else:
            expressions = ", ".join(of[upstream] for of in model.grain.values())
            touched.append(f"select {expressions} from ({changed}) as changed")
    changed = f"select distinct {names} from ({_changed(model.name)}) as rows_changed"
    sql = f"select q::text from ({changed} except ({' union '.join(touched)})) as q"
    return connection.execute(sql.encode()).fetchall()


def _changed(name: str) -> str:
    """The old and new images of the rows of a relation that differ before and after; json has no equality."""
    numbered = "(select t as whole, t::text as image, row_number() over (partition by t::text) as nth from {}.{} as t)"
    sides = [
        f"select (mine.whole).* from {numbered.format(mine, name)} as mine "
        f"where (image, nth) not in (select image, nth from {numbered.format(other, name)} as theirs)"
        for mine, other in (("before", "after"), ("after", "before"))
    ]
    return " union all ".join(sides)


def _plain(rows: Mapping[str, Mapping[Any, Mapping[str, Any]]]) -> dict[str, list[Mapping[str, Any]]]:
    return {dataset: list(of.values()) for dataset, of in rows.items()}


def _random_rows(rng: random.Random, dataset: str) -> dict[Any, Mapping[str, Any]]:
    return {key: _random_row(rng, dataset, key) for key in range(30 if dataset == "jobs" else 15)}


def _change(rng: random.Random, rows: dict[str, dict[Any, Mapping[str, Any]]]) -> None:
    """Delete, insert or replace one to three rows."""
    for _ in range(rng.randint(1, 3)):
        dataset = rng.choice(list(rows))
        key = rng.randrange(40 if dataset == "jobs" else 20)
        if rng.random() < 0.3:
            rows[dataset].pop(key, None)
        else:
            rows[dataset][key] = _random_row(rng, dataset, key)


def _random_row(rng: random.Random, dataset: str, key: int) -> dict[str, Any]:
    if dataset == "users":
        return {"userid": key, "location": rng.choice("ABCDEF")}
    if dataset == "events":
        return {
            "event_id": f"E{key}",
            "event_time": START + timedelta(minutes=rng.choice([0, 0, 1, 2, 59])),
            "user_id": f"user_{rng.randrange(3)}",
            "event_type": rng.choice(["click", "view"]),
            "payload": f'{{"number": {rng.randrange(3)}}}',
            "schema_version": 1,
        }
    if dataset == "rides":
        return {
            "pulocationid": rng.randrange(5),
            "dolocationid": rng.randrange(5),
            "trip_distance": Decimal(rng.randint(0, 900)) / 100,
            "total_amount": Decimal(rng.randint(-200, 900)) / 100,
            "tpep_pickup_datetime": START + timedelta(hours=rng.choice([0, 0, 1, 7])),
            "_generation": 1,
            "_partition": key % 3,
            "_offset": key,
        }
    created = START + timedelta(minutes=rng.choice([0, 0, 1, 2, 7, 59, 61, 500])) if rng.random() < 0.9 else None
    return {
        "jobidentifier": key,
        "userid": rng.randrange(20),
        "jobcreatedate": created,
        "jobdate": created,
        "jobstatus": rng.choice(["SUCCESS", "SUCCESS", "NO SUCCESS"]),
        "location": rng.choice("ABCDEF"),
        "revenue": rng.choice([None, Decimal("1.0"), Decimal("1.00"), Decimal(rng.randint(0, 500)) / 100]),
        "servicename": rng.choice(["Driver", "Courier"]),
    }
