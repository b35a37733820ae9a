"""The DAG files, imported as Airflow imports them."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.settings import ROOT, Settings
from tests.stalling_proxy import StallingProxy

SCRIPT = """
import os, sys
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

from unittest import mock
params = {{name: bag.dags["load_users"].params[name] for name in bag.dags["load_users"].params}}
with (
    mock.patch("headrace.airflow.connections.deployment") as opened,
    mock.patch("headrace.airflow.connections.run_context"),
    mock.patch("headrace.ingest.load.load_file") as load_file,
):
    load_file.return_value.summary.return_value = "loaded"
    opened.return_value.dataset.return_value.source.name = "users.ndjson"
    load = bag.dags["load_users"].get_task("load")
    load.render_template_fields({{"params": params | {{"replace": True}}}})
    load.execute_callable()
_, given = load_file.call_args
options = {{name: getattr(given["options"], name) for name in ("replace", "max_removed", "again")}}
print("loaded", *(f"{{name}}={{value}}" for name, value in ({{"path": given["path"]}} | options).items()))

os.environ["HEADRACE_DATASETS_DIR"] = {broken!r}
broken = DagBag({dags!r})
print("broken errors", dict(broken.import_errors))
print("broken dags", sorted(set(bag.dags) ^ set(broken.dags)), len(broken.dags))
for dag_id in ("ingest_jobs", "ingest_rides", "load_users"):
    dag = broken.dags[dag_id]
    assert dag.doc_md and "broken" in dag.tags and dag.timetable.can_be_scheduled, dag
    (task,) = dag.tasks
    assert task.task_id in [each.task_id for each in bag.dags[dag_id].tasks], task
    try:
        task.python_callable()
    except Exception as error:
        print("broken", dag_id, type(error).__name__, error)
print("broken enums", [broken.dags[dag_id].params.get_param("dataset").schema["enum"] for dag_id in FORMS])

os.environ["HEADRACE_DATASETS_DIR"] = {shared!r}
from headrace.airflow.dag_factory import build_dag, declarations, ingest_dags
shared = ingest_dags(declarations())
waited_for = build_dag(declarations()).timetable.asset_condition.objects
print("shared waits", sorted(asset.name for asset in waited_for))
print("shared dags", sorted(shared))
dag = shared["ingest_web"]
print("shared shape", dag.schedule, [(t.task_id, sorted(t.downstream_task_ids), t.is_mapped) for t in dag.tasks])
try:
    shared["ingest_web.broken"].get_task("plan").python_callable()
except Exception as error:
    print("shared broken", type(error).__name__, error)

from headrace.exceptions import SourceError
from headrace.ingest.packs import PackResult
with (
    mock.patch("headrace.airflow.connections.run_context"),
    mock.patch("headrace.ingest.packs.drain_pack") as drain_pack,
):
    drain_pack.return_value = PackResult(committed={{"clicks"}}, errors={{"views": SourceError("views: bad batch")}})
    drain = dag.get_task("drain").unmap({{"pack": []}})
    events = {{outlet: mock.Mock() for outlet in drain.outlets}}
    drained = drain.execute({{"outlet_events": events}})
print("shared events", [(alias.name, call.args[0].name) for alias in events for call in events[alias].add.mock_calls])
from headrace.airflow.operators import DrainOperator
clicks = declarations().datasets["clicks"]
own = DrainOperator(task_id="own", dataset="clicks", share={{}})
events = {{outlet: mock.Mock() for outlet in own.outlets}}
with (
    mock.patch("headrace.airflow.connections.run_context"),
    mock.patch("headrace.airflow.operators.opened", return_value=(mock.Mock(), clicks)),
    mock.patch("headrace.airflow.operators.publish_dead_letters"),
    mock.patch("headrace.ingest.plan.Plan.from_dict"),
    mock.patch("headrace.ingest.runner.remaining_plan"),
    mock.patch("headrace.ingest.runner.drain_plan") as drain_plan,
):
    drain_plan.return_value = mock.Mock(log_lines=lambda _: [], seconds=0.0)
    own.execute({{"outlet_events": events}})
print("shared own", [(outlet.name, [each.args[0].name for each in events[outlet].add.mock_calls]) for outlet in events])
report = dag.get_task("report")
report.planned, report.drained = {{"clicks": "no topic"}}, [drained]
try:
    report.execute({{}})
except Exception as error:
    print("shared report", type(error).__name__, error)
report.planned, report.drained = {{}}, []
print("shared quiet", report.execute({{}}))

os.environ["HEADRACE_DATASETS_DIR"] = {empty!r}
empty = DagBag({dags!r})
print("empty errors", dict(empty.import_errors), sorted(empty.dags))
""".replace("FORMS", '("replay_dead_letters", "reload_range", "verify_ingestion")')

RIDES = (Settings().datasets_dir / "rides.py").read_text()
# as a typo leaves a declaration, and one that only Airflow refuses
BROKEN = {
    "jobs": "def broken(:",
    "users": "import sys\nsys.exit(0)\nDATASET = Dataset(source=File(path='users.ndjson'))",
    "rides": RIDES.replace("DATASET = Dataset(", "DATASET = Dataset(schedule_s=10**15, "),
}
# of datasets that share a DAG, and of one that does not
SHARED = {
    "clicks": 'dag="web", schedule_s=30',
    "views": 'dag="web", schedule_s=90',
    "hits": 'dag="web", zone="Mars/Base"',
    "taps": 'dag="web", max_lag=0',
    "lone": "schedule_s=60",
}


@pytest.fixture(scope="module")
def silent() -> Iterator[StallingProxy]:
    """A listener that accepts and never answers: every service that a DAG file could ask."""
    with StallingProxy() as listener:
        yield listener


def _services_at(port: int) -> dict[str, str]:
    extra = {"bootstrap.servers": f"127.0.0.1:{port}"}
    return {
        "HEADRACE_POSTGRES_DSN": f"postgresql://hr@127.0.0.1:{port}/sales",
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}",
        "HEADRACE_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        "AIRFLOW_CONN_HEADRACE_POSTGRES": f"postgres://hr@127.0.0.1:{port}/sales",
        "AIRFLOW_CONN_HEADRACE_KAFKA": json.dumps({"conn_type": "kafka", "extra": extra}),
        "AIRFLOW_CONN_HEADRACE_REDIS": f"redis://127.0.0.1:{port}/0",
    }


@pytest.fixture(scope="module")
def dagbag(tmp_path_factory: pytest.TempPathFactory, silent: StallingProxy) -> str:
    home = tmp_path_factory.mktemp("airflow")
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "PYTHONPATH": str(ROOT / "plugins"),
        **_services_at(silent.port),
    }
    broken, empty = tmp_path_factory.mktemp("broken"), tmp_path_factory.mktemp("empty")
    for path in Settings().datasets_dir.glob("*.py"):
        (broken / path.name).write_text(path.read_text())
    for name, text in BROKEN.items():
        (broken / f"{name}.py").write_text(text)
    shared = tmp_path_factory.mktemp("shared")
    events = (Settings().datasets_dir / "events.py").read_text()
    for name, given in SHARED.items():
        declared = events.replace('"events"', f'"{name}"').replace("Dataset(\n", f"Dataset(\n    {given},\n")
        (shared / f"{name}.py").write_text(declared)
    script = SCRIPT.format(dags=str(ROOT / "dags"), broken=str(broken), empty=str(empty), shared=str(shared))
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dags_import_without_errors(dagbag: str) -> None:
    assert "errors {}" in dagbag


def test_dags_are_imported_without_a_connection_to_any_service(dagbag: str, silent: StallingProxy) -> None:
    assert "errors {}" in dagbag
    assert silent.accepted == 0


def test_dags_are_those_of_the_declarations(dagbag: str) -> None:
    listed = next(line for line in dagbag.splitlines() if line.startswith("dags"))
    for dag_id in ("load_users", "ingest_jobs", "build_marts", "answer_case"):
        assert f"'{dag_id}'" in listed


def test_declarations_that_cannot_be_used_have_dags_that_say_so_and_leave_all_others(dagbag: str) -> None:
    lines = {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in dagbag.splitlines() if line.startswith("broken ")}
    assert lines["errors"] == "{}"
    assert lines["dags"] == "[] 13"  # as many as without a typo, by the same names
    for dag_id, expected in (
        ("ingest_jobs", "SyntaxError"),
        ("load_users", "SystemExit"),
        ("ingest_rides", "rides: Airflow refuses its declaration: OverflowError"),
    ):
        assert lines[dag_id].startswith("AirflowFailException ")
        assert expected in lines[dag_id]
    topics = ["events", "jobs", "rides"]
    everything = ["events", "jobs", "rides", "telemetry", "users"]
    assert lines["enums"] == str([everything, topics, [None, "", *everything]])


def test_dag_that_loads_a_file_has_the_guards_of_the_command(dagbag: str) -> None:
    assert "loaded path=None replace=True max_removed=10.0 again=False" in dagbag.splitlines()


def test_datasets_that_share_a_dag_have_one_of_three_tasks_and_a_broken_one_is_told_beside_it(dagbag: str) -> None:
    lines = dict(
        line.removeprefix("shared ").split(" ", 1) for line in dagbag.splitlines() if line.startswith("shared ")
    )
    assert lines["dags"] == "['ingest_lone', 'ingest_web', 'ingest_web.broken']"
    tasks = "[('plan', ['drain', 'report'], False), ('drain', ['report'], True), ('report', [], False)]"
    assert lines["shape"] == f"0:00:30 {tasks}"
    assert "hits.py: cannot be imported: ZoneInfoNotFoundError" in lines["broken"]
    assert "; taps: max_lag is 0, expected more than 0" in lines["broken"]


def test_marts_wait_for_one_asset_of_a_shared_dag(dagbag: str) -> None:
    (found,) = [line for line in dagbag.splitlines() if line.startswith("shared waits ")]
    waited_for = ast.literal_eval(found.removeprefix("shared waits "))
    assert "ingest/web" in waited_for
    assert not {"staging/clicks", "staging/views"} & set(waited_for)
    assert {"staging/taps", "staging/lone"} < set(waited_for)  # a declaration that cannot be used yet, and its own DAG


def test_drain_of_a_pack_updates_the_assets_that_it_filled_and_the_report_names_what_failed(dagbag: str) -> None:
    lines = dict(
        line.removeprefix("shared ").split(" ", 1) for line in dagbag.splitlines() if line.startswith("shared ")
    )
    assert lines["events"] == "[('staging/web', 'staging/clicks'), ('staging/web', 'ingest/web')]"
    assert lines["own"] == "[('staging/clicks', []), ('staging/drained', ['ingest/web'])]"  # a DAG of one's own
    told = "AirflowFailException 2 datasets failed, the others are done: clicks: no topic | views: bad batch"
    assert (lines["report"], lines["quiet"]) == (told, "None")


def test_dags_without_a_dataset_import_without_errors(dagbag: str) -> None:
    (line,) = [line for line in dagbag.splitlines() if line.startswith("empty")]
    assert line.startswith("empty errors {} ")
    assert "'build_marts'" in line
    assert "'reload_range'" in line


def test_dags_import_nothing_heavy(dagbag: str) -> None:
    assert "heavy []" in dagbag


def test_plugins_do_not_shadow_the_kafka_client(dagbag: str) -> None:
    file = next(line for line in dagbag.splitlines() if line.startswith("kafka")).split()[1]
    assert not Path(file).is_relative_to(ROOT / "plugins")
