"""`make lineage`: real Airflow tasks with its provider for OpenLineage, whose events an HTTP server receives."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support import topics
from tests.support.airflow_environment import airflow_environment
from tests.support.jobs import jobs
from tests.support.openlineage import installed, receiver
from tests.support.stage import Stage

pytestmark = pytest.mark.faults

DAG = """
import pendulum
from airflow.sdk import DAG
from headrace.airflow.operators import BuildOperator, DrainOperator, LoadOperator

with DAG("shop", schedule=None, start_date=pendulum.datetime(2026, 1, 1)) as dag:
    load = LoadOperator(task_id="load", dataset="users")
    drain = DrainOperator(task_id="drain", dataset="jobs")
    [load, drain] >> BuildOperator(task_id="build", select="jobs+,resource_type:model users+,resource_type:model")

if __name__ == "__main__":
    run = dag.test()
    print({each.task_id: str(each.state) for each in sorted(run.get_task_instances(), key=lambda each: each.task_id)})
"""


@pytest.fixture
def events(stage: Stage, topic: str, tmp_path: Path) -> list[dict[str, Any]]:
    """The events of a load, a drain of two jobs, and a build."""
    found: list[dict[str, Any]] = []
    topics.send(stage.deployment.settings.require_kafka_bootstrap_servers(), topic, jobs(2))
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "shop.py").write_text(DAG)
    with receiver(found) as url:
        environment = airflow_environment(stage, tmp_path / "airflow") | {
            "PYTHONPATH": os.pathsep.join([str(installed()), str(Path(__file__).parents[2] / "plugins")]),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps({"type": "http", "url": url}),
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "headrace",
            "AIRFLOW__OPENLINEAGE__EXECUTION_TIMEOUT": "600",  # this machine may be busy; 10 s otherwise
            "HEADRACE_HOME": str(stage.deployment.settings.home),
        }
        for argv in (["-m", "airflow", "db", "migrate"], [str(folder / "shop.py")]):
            done = subprocess.run(
                [sys.executable, *argv], env=environment, capture_output=True, text=True, timeout=1800, check=False
            )
            assert done.returncode == 0, done.stderr[-3000:]
        assert "{'build': 'success', 'drain': 'success', 'load': 'success'}" in done.stdout, done.stdout[-9000:]
    return found


def complete(events: list[dict[str, Any]], task: str) -> dict[str, Any]:
    """The event of a task's success."""
    (found,) = [each for each in events if (each["eventType"], each["job"]["name"]) == ("COMPLETE", f"shop.{task}")]
    return found


def names(datasets: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(each["namespace"], each["name"]) for each in datasets}


def origins(event: dict[str, Any], table: str) -> dict[str, set[str]]:
    """The fields behind each column of an output: schema.table.column, or the topic's path."""
    (output,) = [each for each in event["outputs"] if each["name"].endswith(f".{table}")]
    return {
        column: {f"{each['name'].partition('.')[2]}.{each['field']}".lstrip(".") for each in lineage["inputFields"]}
        for column, lineage in output["facets"]["columnLineage"]["fields"].items()
    }


def test_receiver_gets_the_lineage_from_file_and_topic_to_marts(
    events: list[dict[str, Any]], stage: Stage, topic: str
) -> None:
    dsn = conninfo_to_dict(stage.dsn)
    postgres = f"postgres://{dsn['host']}:{dsn['port']}"
    kafka = f"kafka://{stage.deployment.settings.kafka_bootstrap_servers}"

    def tables(*found: str) -> set[tuple[str, str]]:
        return {(postgres, f"{dsn['dbname']}.{each}") for each in found}

    load, drain, build = (complete(events, task) for task in ("load", "drain", "build"))
    file = stage.deployment.settings.data_dir.resolve() / "users.ndjson"
    assert (names(load["inputs"]), names(load["outputs"])) == ({("file", str(file))}, tables("staging.users"))
    assert (names(drain["inputs"]), names(drain["outputs"])) == ({(kafka, topic)}, tables("staging.jobs"))
    assert drain["outputs"][0]["outputFacets"]["outputStatistics"]["rowCount"] == 2
    assert origins(drain, "staging.jobs")["jobstatus"] == {"$.JOBSTATUS"}
    marts = ("marts.users", "marts.jobs", "marts.jobs_per_minute", "marts.visitor_revenues")
    assert names(build["outputs"]) >= tables(*marts)
    assert names(build["inputs"]) == tables("staging.users", "staging.jobs")
    assert origins(build, "marts.jobs")["revenue"] == {"staging.jobs.jobstatus", "staging.jobs.revenue"}
    assert origins(build, "marts.jobs")["jobidentifier"] == {"staging.jobs.jobidentifier"}
    assert origins(build, "marts.jobs_per_minute")["minute"] == {"marts.jobs.jobcreatedate"}
    assert origins(build, "marts.visitor_revenues")["revenue"] == {"marts.jobs.revenue"}
    columns = {
        each["name"]: each["type"] for each in complete(events, "build")["inputs"][0]["facets"]["schema"]["fields"]
    }
    assert columns["_offset"] == "bigint"
    assert_openlineage_s_own_types(events)


def assert_openlineage_s_own_types(events: list[dict[str, Any]]) -> None:
    program = Path(__file__).parents[1] / "support/openlineage_types.py"
    lines = "".join(json.dumps(each) + "\n" for each in events)
    done = subprocess.run(
        [sys.executable, "-P", str(program)],
        env=os.environ | {"PYTHONPATH": str(installed())}, input=lines, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, str(len(events))), done.stderr[-2000:]
