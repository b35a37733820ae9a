"""What an analyst gets from dbt besides tables: a documentation of every column, and freshness on the ledger."""

import json
import os
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.mart_rows import reading
from tests.support.warehouse import Warehouse
from tests.support.warm_dbt import spared_runner


def run_dbt(warehouse: Warehouse, target: Path, *command: str) -> Any:
    folder = str(warehouse.settings.dbt_dir)
    options = ["--project-dir", folder, "--profiles-dir", folder, "--target", "prod", "--log-level", "none"]
    with mock.patch.dict(os.environ, warehouse.environment()):
        return spared_runner().invoke([*command, *options, "--target-path", str(target), "--log-path", str(target)])


def test_docs_describe_every_mart_and_every_column_of_it(warehouse: Warehouse, tmp_path: Path) -> None:
    outcome = run_dbt(warehouse, tmp_path, "docs", "generate")
    assert outcome.success, outcome.exception
    manifest = json.loads((tmp_path / "manifest.json").read_bytes())
    catalog = json.loads((tmp_path / "catalog.json").read_bytes())
    marts = {name: node for name, node in catalog["nodes"].items() if node["metadata"]["schema"] == "marts"}
    assert len(marts) >= 13
    undescribed = [
        f"{name}.{column}"
        for name, node in marts.items()
        for column in node["columns"]
        if not manifest["nodes"][name]["columns"].get(column, {}).get("description")
    ]
    undescribed += [name for name in marts if not manifest["nodes"][name]["description"]]
    assert undescribed == []
    described = {f"{n}.{c}" for n in marts for c in manifest["nodes"][n]["columns"]}
    assert described == {f"{n}.{c}" for n, node in marts.items() for c in node["columns"]}
    used = {node for exposure in manifest["exposures"].values() for node in exposure["depends_on"]["nodes"]}
    ends = {name for name in marts if not any(child.startswith("model.") for child in manifest["child_map"][name])}
    assert ends <= used  # every mart has an exposure that uses it
    assert manifest["docs"]["doc.headrace.__overview__"]["block_contents"].startswith("# Headrace: the marts")
    bare = """
        select c.relname, a.attname
        from pg_class as c
        inner join pg_attribute as a on c.oid = a.attrelid
        where
            c.relnamespace = 'marts'::regnamespace and c.relkind = 'r' and a.attnum > 0
            and (col_description(c.oid, a.attnum) is null or obj_description(c.oid) is null)
    """
    assert warehouse.query(bare) == []  # what psql's \\d+ shows


def test_source_freshness_is_that_of_the_ledger(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.telemetry((0, "R1", reading()))
    warehouse.events((0, "E1", None))
    warehouse.execute("update headrace.batches set committed_at = now() - interval '3 days' where dataset = 'events'")
    run_dbt(warehouse, tmp_path, "source", "freshness", "--output", str(tmp_path / "sources.json"))
    results = json.loads((tmp_path / "sources.json").read_bytes())["results"]
    status = {result["unique_id"].removeprefix("source.headrace."): result["status"] for result in results}
    assert status["staging.telemetry"] == "pass"
    assert status["staging.events"] == "warn"
