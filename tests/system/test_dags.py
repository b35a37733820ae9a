"""The DAG files, imported as Airflow imports them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.settings import ROOT

SCRIPT = """
import sys
from airflow.dag_processing.dagbag import DagBag
bag = DagBag({dags!r})
print("errors", dict(bag.import_errors))
print("dags", sorted(bag.dags))
print("heavy", sorted({{"kafka", "pandas", "dbt", "redis"}} & set(sys.modules)))
for dag in bag.dags.values():
    for task in dag.tasks:
        assert task.owner == "headrace" and task.retries > 0 and task.execution_timeout, task
    assert dag.doc_md and dag.tags and dag.description, dag
import kafka
print("kafka", kafka.__file__)
"""


@pytest.fixture(scope="module")
def dagbag(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("airflow")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(ROOT / "plugins"),
    }
    script = SCRIPT.format(dags=str(ROOT / "dags"))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dags_import_without_errors(dagbag: str) -> None:
    assert "errors {}" in dagbag


def test_dags_are_those_of_the_declarations(dagbag: str) -> None:
    listed = next(line for line in dagbag.splitlines() if line.startswith("dags"))
    for dag_id in ("load_users", "ingest_jobs", "build_marts", "answer_case"):
        assert f"'{dag_id}'" in listed


def test_dags_import_nothing_heavy(dagbag: str) -> None:
    assert "heavy []" in dagbag


def test_plugins_do_not_shadow_the_kafka_client(dagbag: str) -> None:
    file = next(line for line in dagbag.splitlines() if line.startswith("kafka")).split()[1]
    assert not Path(file).is_relative_to(ROOT / "plugins")
