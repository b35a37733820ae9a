"""`audit_marts` compares every mart with its SELECT; builds check a few grains and what they changed."""

import subprocess
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT
from types import SimpleNamespace

import pytest

from headrace.deployment import Deployment
from headrace.exceptions import BuildError
from headrace.marts.audit import audit
from tests.support.airflow_environment import airflow_environment
from tests.support.mart_rows import START, job
from tests.support.warehouse import Warehouse, shared_warehouse

ROOT = Path(__file__).parents[2]
RUN_TASK = """
import runpy, sys
from headrace.airflow import connections
from headrace.postgres.ledger import RunContext
connections.run_context = RunContext  # no task of Airflow runs here
dag = runpy.run_path(sys.argv[1])["audit_marts"]
for line in sys.stdin:
    try:
        print("result", dag.get_task("audit").python_callable({"select": "jobs_per_minute"}), flush=True)
    except Exception as error:
        print("raised", type(error).__name__, error, flush=True)
"""


@pytest.fixture
def warehouse(postgres_dsn: str, session_home: Path) -> Warehouse:
    """Some jobs of which marts were built."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    warehouse.empty()
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()), (1, 2, job(minute=4)))
    warehouse.build()
    return warehouse


def test_audit_finds_a_change_that_no_build_made_and_the_next_build_corrects_it(warehouse: Warehouse) -> None:
    warehouse.tamper("update marts.jobs_per_minute set jobs = 7 where minute = %s", START)
    with pytest.raises(BuildError, match=r"marts.jobs_per_minute: an audit found minute=.*: jobs is 7, not 1"):
        audit(warehouse.settings)
    warehouse.build()
    warehouse.assert_right()
    audit(warehouse.settings)


def test_audit_tests_all_rows(warehouse: Warehouse) -> None:
    warehouse.users((1, 2, "C"))
    warehouse.jobs((2, 3, job(userid=2)))
    warehouse.build()
    warehouse.tamper("delete from marts.users where userid = 1")
    tests = ("test", "--select", "visitor_revenues,test_type:generic")
    assert warehouse.run_dbt(*tests) == (True, "")  # the last build changed rows of user 2 alone
    succeeded, messages = warehouse.run_dbt(*tests, "--vars", "headrace_audit: all")
    assert not succeeded
    assert "Got 1 result" in messages


def test_audit_dag_fails_with_the_difference(warehouse: Warehouse, tmp_path: Path) -> None:
    stage = SimpleNamespace(deployment=Deployment.from_settings(warehouse.settings), dsn=warehouse.dsn)
    environment = airflow_environment(stage, tmp_path)  # type: ignore[arg-type]
    command = [sys.executable, "-c", RUN_TASK, str(ROOT / "dags" / "audit_marts.py")]
    with subprocess.Popen(command, env=environment, stdin=PIPE, stdout=PIPE, stderr=STDOUT, text=True) as process:
        assert process.stdin and process.stdout
        requests, lines = process.stdin, process.stdout

        def outcome() -> str:
            """What one run of the task says last."""
            requests.write("run\n")
            requests.flush()
            return next(line for line in lines if line.startswith(("result ", "raised ")))

        assert outcome().startswith("result build: 1 models, 0 rows written")
        warehouse.tamper("delete from marts.jobs_per_minute where minute = %s", START)
        assert outcome().startswith("raised AirflowFailException marts.jobs_per_minute: ")
    warehouse.build()
