"""Marts of elements: those of current versions, and none of older versions and of deleted records."""

import shutil
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.deployment import Deployment
from headrace.ingest.load import LoadOptions, load_file
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.settings import Settings
from headrace.verify import verify
from tests.support.orders_with_items import DECLARATION, order
from tests.support.stage import Stage

SOURCES = """
sources:
  - name: staging
    tables:
      - name: orders
        config: {meta: {key: id}}
      - name: orders__items
        config: {meta: {parent: orders}}
"""
MODELS = {
    "order_items": "select id, _index as place, sku, quantity, price from {{ current('orders.items') }}",
    # both tables of one dataset
    "order_sizes": """
        select orders.id, count(items.sku) as items
        from {{ current('orders') }}
        left join {{ current('orders.items') }} on orders.id = items.id
        group by orders.id
    """,
    "skus": "{{ config(grain='sku') }} select sku, count(*) as orders from {{ ref('order_items') }} group by sku",
}


@pytest.fixture
def stage(database: str, tmp_path: Path, session_home: Path) -> Stage:
    """A database, a dataset from a file, and a dbt project with three models."""
    (tmp_path / "datasets").mkdir()
    declared = DECLARATION.replace("SOURCE", 'File(path="orders.ndjson")')
    (tmp_path / "datasets" / "orders.py").write_text(declared)
    dbt = tmp_path / "dbt"
    shutil.copytree(Settings().dbt_dir, dbt, ignore=shutil.ignore_patterns("target", "logs", "models", "tests"))
    shutil.rmtree(dbt / "functions")
    for folder in ("models/marts", "functions", "tests"):
        (dbt / folder).mkdir(parents=True)
    (dbt / "models" / "sources.yml").write_text(SOURCES)
    for name, text in MODELS.items():
        (dbt / "models" / "marts" / f"{name}.sql").write_text(text)
    settings = Settings(
        home=session_home, postgres_dsn=database, datasets_dir=tmp_path / "datasets", dbt_dir=dbt, batch_rows=2
    )
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    return Stage(deployment, database)


def load(stage: Stage, *orders: bytes, replace: bool = False) -> None:
    path = stage.deployment.settings.datasets_dir.parent / "orders.ndjson"
    path.write_bytes(b"\n".join(orders))
    load_file(stage.deployment, "orders", path=path, options=LoadOptions(replace=replace, max_removed=100))


def marts(stage: Stage) -> tuple[list[Any], list[Any], list[Any]]:
    build(stage.deployment.settings, tests=False)
    items = stage.query("select id, place, sku from marts.order_items order by 1, 2")
    sizes = stage.query("select id, items from marts.order_sizes order by 1")
    return items, sizes, stage.query("select sku from marts.skus order by 1")


def test_marts_show_the_elements_of_current_versions(stage: Stage) -> None:
    load(stage, order(1, 2), order(2, 3), order(5, 1), order(6, 0))
    items, sizes, skus = marts(stage)
    expected = [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (5, 0)]
    assert items == [(number, place, f"s{number}-{place}") for number, place in expected]
    assert sizes == [(1, 2), (2, 3), (5, 1), (6, 0)]
    assert skus == sorted((sku,) for _, _, sku in items)

    computed = "select identifier, built from headrace.claims order by 1"  # changes where a whole table is computed
    before = stage.query(computed)

    # 1 is deleted, 2 has an item less, 5 has none any more, 6 has its first
    load(stage, order(2, 2), order(5, 0), order(6, 1), replace=True)
    items, sizes, skus = marts(stage)
    assert items == [(2, 0, "s2-0"), (2, 1, "s2-1"), (6, 0, "s6-0")]
    assert sizes == [(2, 2), (5, 0), (6, 1)]
    assert skus == [("s2-0",), ("s2-1",), ("s6-0",)]
    assert stage.query(computed) == before
    assert verify(stage.deployment, "orders", deep=True).is_clean
    assert stage.query("select id, _count_items from staging.orders where _deleted") == [(1, None)]
    claims = "select distinct dataset, to_seq = (select max(seq) from headrace.batches) from headrace.claims"
    assert stage.query(claims) == [("orders", True)]


def test_tables_that_are_not_of_elements_are_refused(stage: Stage) -> None:
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        connection.execute("drop table staging.orders__items; create table staging.orders__items (sku text)")
    with pytest.raises(Exception, match="found the table of a dataset, expected that of elements"):
        initialise(stage.deployment)
