"""The command `headrace verify` and its DAG: exit status, summary, and nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import psycopg
from click.testing import CliRunner

from headrace.cli import main
from headrace.settings import ROOT
from tests.support.airflow_environment import airflow_environment
from tests.support.drained_topic import ONE_ROW, Drained


def test_verify_command_ends_with_1_and_a_summary_where_something_is_wrong(drained: Drained) -> None:
    settings = drained.stage.deployment.settings
    environment = {
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_POSTGRES_DSN": drained.stage.dsn,
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": drained.bootstrap_servers,
        "HEADRACE_DATASETS_DIR": str(settings.datasets_dir),
    }
    outcome = CliRunner().invoke(main, ["verify", "jobs", "--deep"], env=environment)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.startswith("jobs: clean: [0] [0, 28), [1] [0, 21), [2] [0, 6); ")
    drained.execute(f"delete from staging.jobs where {ONE_ROW % 3}")
    outcome = CliRunner().invoke(main, ["verify", "jobs"], env=environment)
    assert outcome.exit_code == 1
    lines = outcome.output.splitlines()
    assert lines[0].startswith("jobs[0] offset 3 of generation 1: counts: found 7 staged")
    assert lines[1:] == ["verify: 1 finding; the first is jobs[0] offset 3 of generation 1"]
    document = json.loads(CliRunner().invoke(main, ["verify", "jobs", "--json"], env=environment).output)
    assert document["clean"] is False
    assert document["findings"][0] | {"found": "", "expected": "", "remedy": ""} == {
        "dataset": "jobs",
        "generation": 1,
        "partition": 0,
        "offset": 3,
        "check": "counts",
        "found": "",
        "expected": "",
        "remedy": "",
    }
    assert document["datasets"][0]["checks"] == [
        "generations",
        "seq",
        "chain",
        "arithmetic",
        "counts",
        "batch",
        "range",
        "checkpoint",
        "exactly_one",
        "claims",
        "source",
    ]


RUN_TASK = """
import runpy, sys
verify = runpy.run_path(sys.argv[1])["verify_ingestion"].get_task("verify")


def run(**params):
    task = verify.prepare_for_execution()
    task.render_template_fields({"params": params})
    print("result", task.execute({}))


try:
    run(dataset="users", deep=True)
    run(dataset=None, deep=False)
except Exception as error:
    print("raised", type(error).__name__, error)
"""


def test_verify_dag_fails_with_the_first_finding(drained: Drained, tmp_path: Path) -> None:
    environment = airflow_environment(drained.stage, tmp_path)
    drained.execute(f"delete from staging.jobs where {ONE_ROW % 3}; delete from staging.jobs where _partition = 1")
    command = [sys.executable, "-c", RUN_TASK, str(ROOT / "dags" / "verify_ingestion.py")]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "\nresult verify: clean: ledger, rows, claims and records of 1 dataset tie\n" in output
    assert "\nraised AirflowFailException jobs[0] offset 3 of generation 1: counts: found 7 staged" in output
    assert "\njobs[1] offset 0 of generation 1: counts: found 0 staged" in output


def test_verify_writes_nothing(drained: Drained) -> None:
    writes = "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"
    with psycopg.connect(drained.stage.dsn, autocommit=True) as connection:
        connection.execute("select pg_stat_force_next_flush()")
    before = drained.stage.value(writes)
    drained.verify(deep=True)
    assert drained.stage.value(writes) == before
