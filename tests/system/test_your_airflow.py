"""docs/your-airflow.md, to the letter: a new Airflow, the wheel, one dataset, a first run, upgrade, removal.

`make your-airflow AIRFLOW=3.1 PYTHON=3.11 EXECUTOR=celery`. The folder of DAGs is read-only while Airflow runs, where
this system lets us mount it so. Two things differ from the page: its first block, which says to set one's
own values, is replaced by them; and the address of Airflow's constraints, which cannot be reached here, by a file of
what PyPI had at the release. `pip install headrace` finds the wheel by PIP_FIND_LINKS.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from headrace.local import services
from headrace.settings import Settings
from tests.support.your_airflow import (
    PAGE,
    RELEASES,
    Api,
    Shell,
    blocks,
    build_wheel,
    find_python,
    free_port,
    read_only,
    waited,
    warehouse_of,
    warehouse_rows,
    write_constraints,
)

AIRFLOW, PYTHON = os.environ.get("YOUR_AIRFLOW") or "3.1", os.environ.get("YOUR_PYTHON") or "3.11"
EXECUTOR = os.environ.get("YOUR_EXECUTOR") or "local"
COMPONENTS = ["api-server", "scheduler", "dag-processor", "triggerer"]
EXISTING = """
import pendulum
from airflow.sdk import dag, task


@dag(schedule=None, start_date=pendulum.datetime(2026, 1, 1))
def existing():
    @task
    def work():
        pass

    work()


existing()
"""


def test_page_has_a_command_for_each_step() -> None:
    found = blocks()
    assert [heading for heading, commands in found.items() if commands] == [
        "", "Airflow", "Install", "Celery", "A project", "Connections", "Tables", "First run", "Upgrade", "Uninstall",
    ]  # fmt: skip
    assert "tests/system/test_your_airflow.py" in PAGE.read_text()


@pytest.fixture(scope="module")
def warehouse(session_home: Path) -> Iterator[dict[str, str]]:
    """A PostgreSQL and a broker, as the page's variables name them."""
    home = session_home / "services"
    settings = Settings(home=home)
    try:
        names = ("postgres", "kafka", *(("redis",) if EXECUTOR == "celery" else ()))
        started = services.up(settings, only=names, print_line=lambda _line: None)
        found = warehouse_of(started)
        yield found | (_celery(started, found["WAREHOUSE_PASSWORD"]) if EXECUTOR == "celery" else {})
    finally:
        services.down(settings, print_line=lambda _line: None)


def _celery(started: dict[str, Any], password: str) -> dict[str, str]:
    """Settings of an Airflow with Celery workers, and its database, which is made here."""
    address = urlsplit(started["postgres"]["address"])
    with psycopg.connect(started["postgres"]["address"], autocommit=True) as connection:
        connection.execute("create database airflow")
    metadata = f"{address.username}:{password}@{address.hostname}:{address.port}/airflow"
    return {
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor", "AIRFLOW__CELERY__WORKER_CONCURRENCY": "4",
        # of 1 s, Airflow's default, a busy machine needs more for the first import of redis
        "AIRFLOW__CELERY__OPERATION_TIMEOUT": "30",
        "AIRFLOW__CELERY__BROKER_URL": started["redis"]["address"],
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+postgresql://{metadata}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://{metadata}",
    }  # fmt: skip


@pytest.fixture(scope="module")
def shell(warehouse: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A user's terminal: an empty home, the Python of that version, and the wheel."""
    folder = tmp_path_factory.mktemp("yours")
    home, airflow_home = folder / "home", folder / "home" / "airflow"
    (airflow_home / "dags").mkdir(parents=True)
    (airflow_home / "dags" / "existing.py").write_text(EXISTING)
    build_wheel(folder, "0.1.0")
    version, day = RELEASES[AIRFLOW]
    write_constraints(folder / "constraints.txt", version, day, PYTHON)
    python = find_python(PYTHON)
    port = free_port()
    variables = {
        "HOME": str(home), "PATH": f"{Path(python).parent}:{os.defpath}", "LANG": "C.UTF-8",
        "PIP_FIND_LINKS": str(folder / "wheels"), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_QUIET": "1",
        **{name: os.environ[name] for name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE", "PIP_CERT") if name in os.environ},
        "AIRFLOW_VERSION": version, "PYTHON_VERSION": PYTHON, "AIRFLOW_HOME": str(airflow_home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled", "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",
        "AIRFLOW__API__HOST": "127.0.0.1", "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}", "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5", "PYTHONDONTWRITEBYTECODE": "1", "DO_NOT_TRACK": "1",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor", "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__API_AUTH__JWT_SECRET": "x" * 64, **warehouse,
    }  # fmt: skip
    terminal = Shell(home, variables, folder / "constraints.txt")
    try:
        yield terminal
    finally:
        terminal.stop()


def _dag_ids(api: Api) -> set[str]:
    return {dag["dag_id"] for dag in api.get("/api/v2/dags")["dags"]}


@pytest.mark.faults
def test_page_leads_from_an_airflow_to_a_mart_an_upgrade_and_the_removal(
    shell: Shell, warehouse: dict[str, str]
) -> None:
    steps = blocks()
    if EXECUTOR == "celery":  # the Airflow that its user has: with Celery and its own database
        steps["Airflow"] = [
            block.replace('"apache-airflow==', '"apache-airflow[celery,postgres]==') for block in steps["Airflow"]
        ]
        steps["Install"] = []
    else:
        steps["Celery"] = []
    for heading in ("Airflow", "Install", "Celery", "A project", "Connections", "Tables"):
        for block in steps[heading]:
            shell.run(block)
    assert "0.1.0" in shell.run("headrace --version")
    project = shell.home / "airflow" / "dags" / "sales"
    before = sorted(project.rglob("*"))

    with read_only(shell.home / "airflow" / "dags"):
        shell.start(*COMPONENTS, *(["celery worker"] if EXECUTOR == "celery" else []))
        api = Api(shell.variables["AIRFLOW__API__BASE_URL"])
        waited("health", lambda: api.get("/api/v2/monitor/health")["scheduler"]["status"] == "healthy", shell)
        waited("DAGs", lambda: {"existing", "ingest_orders", "build_marts"} <= _dag_ids(api), shell)
        assert api.get("/api/v2/importErrors")["total_entries"] == 0
        for block in steps["First run"]:
            shell.run(block)
        rows = waited(
            "mart",
            lambda: warehouse_rows(warehouse, "select order_id, customer, amount::text from marts.orders"),
            shell,
        )
        assert rows == [(1, "Ada", "12.5")]
        assert warehouse_rows(warehouse, "select reason from headrace.dead_letters") == [("out_of_range",)]
        assert sorted(project.rglob("*")) == before, "the project's folder may be read-only"
        _check_page_and_connections(api, shell, warehouse)
        shell.stop()
    _upgrade_and_remove(shell, warehouse)


def _check_page_and_connections(api: Api, shell: Shell, warehouse: dict[str, str]) -> None:
    document = waited("figures", lambda: api.get("/headrace/status").get("datasets"), shell)
    assert [each["dataset"] for each in document] == ["orders"]
    assert "Headrace" in [plugin["name"].title() for plugin in api.get("/api/v2/plugins")["plugins"]]
    # first, as the browser does: Airflow 3.1 has no form for a type whose button Test was used before
    types = {each["connection_type"]: each for each in api.get("/ui/connections/hook_meta")}
    assert types["headrace_kafka"]["hook_name"] == "Headrace Kafka"
    assert "bootstrap_servers" in types["headrace_kafka"]["extra_fields"]
    body = {
        "connection_id": "tried", "conn_type": "headrace_kafka",
        "extra": f'{{"bootstrap_servers": "{warehouse["BROKERS"]}"}}',
    }  # fmt: skip
    tested = api.call("POST", "/api/v2/connections/test", body).json()
    assert tested["status"], tested
    assert tested["message"].startswith("Kafka: 1 brokers")


def _upgrade_and_remove(shell: Shell, warehouse: dict[str, str]) -> None:
    steps = blocks()
    package = Path("dbt", "packages", "headrace_dbt", "dbt_project.yml")

    def change(source: Path) -> None:
        text = (source / package).read_text()
        (source / package).write_text(text.replace("version: 1.0.0", "version: 1.0.1"))

    build_wheel(Path(shell.variables["PIP_FIND_LINKS"]).parent, "0.1.1", change)
    for block in steps["Upgrade"]:
        shell.run(block)
    assert "0.1.1" in shell.run("headrace --version")
    project = shell.home / "airflow" / "dags" / "sales"
    assert "version: 1.0.1" in (project / package).read_text()
    assert "no faults" in shell.run("headrace check")
    assert warehouse_rows(warehouse, "select order_id from marts.orders") == [(1,)]

    shell.run('cd "$AIRFLOW_HOME"')
    for block in steps["Uninstall"]:
        shell.run(block)
    shell.run("! python -c 'import headrace'")
    assert "existing" in shell.run("airflow dags reserialize && airflow dags list --output plain")
    assert warehouse_rows(warehouse, "select order_id from marts.orders") == [(1,)]
