"""The main job on the real Airflow, judged by plain Python over the produced file."""

import os
import subprocess
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from headrace.local.services import postgres_binary
from headrace.settings import Settings
from tests.support import browser, jobs_oracle
from tests.support.system import System

RECORDS = 20_000


@pytest.fixture(scope="module")
def produced(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of jobs that was produced, drained and built through Airflow."""
    path = tmp_path_factory.mktemp("produced") / "jobs.kafka"
    system.headrace(
        "generate", "jobs", "--records", str(RECORDS), "--seed", "11", "--bad-percent", "2", "--out", str(path)
    )
    system.headrace("produce", "jobs", str(path))
    system.run_dag("load_users")
    system.run_dag("ingest_jobs")
    system.run_dag("build_marts")
    return path


@pytest.fixture(scope="module")
def locations() -> dict[int, str]:
    return jobs_oracle.user_locations(Settings().data_dir / "users.ndjson")


def test_every_record_is_staged_or_dead_per_partition(system: System, produced: Path) -> None:
    jobs = list(jobs_oracle.valid_jobs(produced))
    staged, dead = system.query(
        "select (select count(*) from staging.jobs), "
        "(select count(*) from headrace.dead_letters where dataset = 'jobs')"
    )[0]
    assert dead == sum(job is None for job in jobs)
    assert staged + dead == len(jobs) == RECORDS
    unequal = system.query(
        """
        select c.partition, c.next_offset, s.staged, d.dead
        from headrace.checkpoints as c
        left join (
            select _partition, count(*) as staged from staging.jobs group by 1
        ) as s on s._partition = c.partition
        left join (
            select partition, count(*) as dead from headrace.dead_letters where dataset = 'jobs' group by 1
        ) as d on d.partition = c.partition
        where c.dataset = 'jobs' and c.next_offset <> coalesce(s.staged, 0) + coalesce(d.dead, 0)
        """
    )
    assert unequal == []


def test_top_users_equal_the_oracle_for_every_location(
    system: System, produced: Path, locations: dict[int, str]
) -> None:
    expected = jobs_oracle.top_users(jobs_oracle.current_jobs(produced), locations)
    assert len(expected) > 400
    found: dict[str, list[tuple[int, Decimal]]] = {}
    for location, userid, revenue in system.query(
        "select l.location, t.userid, t.revenue from (select distinct location from marts.jobs) as l "
        "cross join lateral marts.top_users(l.location) with ordinality as t (userid, revenue, position) "
        "order by l.location, t.position"
    ):
        found.setdefault(location, []).append((userid, revenue))
    assert found == {location: rows for location, rows in expected.items() if rows}


def test_jobs_per_minute_equal_the_oracle(system: System, produced: Path) -> None:
    rows = system.query("select minute, jobs, revenue from marts.jobs_per_minute")
    assert {minute: (jobs, revenue) for minute, jobs, revenue in rows} == jobs_oracle.jobs_per_minute(
        jobs_oracle.current_jobs(produced)
    )


def test_answer_case_answers_from_its_form(system: System, produced: Path, locations: dict[int, str]) -> None:
    expected = jobs_oracle.top_users(jobs_oracle.current_jobs(produced), locations)["LOC_1294"][:3]
    for limit in (3.0, "3"):  # as scripts send a whole number
        run = system.run_dag("answer_case", location="LOC_1294 ", service="SERVICE_02", limit=limit)
        answers = system.api.result(run, "answer")
        assert [(int(row["userid"]), Decimal(row["revenue"])) for row in answers["top_users"]] == expected
    assert len(answers["jobs_by_service"]) == 3


def test_second_runs_add_nothing(system: System, produced: Path) -> None:
    count = "select count(*) from headrace.batches"
    before = system.query(count)
    system.run_dag("load_users")
    system.run_dag("ingest_jobs")
    system.run_dag("build_marts")
    assert system.query(count) == before


def test_ledger_names_the_airflow_task(system: System, produced: Path) -> None:
    rows = system.query("select distinct dag_id, task_id from headrace.batches where dataset = 'jobs'")
    assert rows == [("ingest_jobs", "drain")]
    # and which of the mapped ones: Airflow knows no task instance without it, nor one of a task that is not mapped
    for dag_id, run_id, task_id, map_index in system.query(
        "select distinct dag_id, run_id, task_id, map_index from headrace.batches where dag_id is not null"
    ):
        assert (map_index >= 0) == (task_id == "drain")
        path = f"/{map_index}" if map_index >= 0 else ""
        address = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}{path}"
        assert system.api._client.get(address).json()["map_index"] == map_index


def test_the_cases_own_sql_runs_unchanged(system: System, produced: Path, locations: dict[int, str]) -> None:
    response = system.headrace(
        "psql", "-At", "-v", "ON_ERROR_STOP=1", "-c", "set search_path = marts",
        "-c", "SELECT j.userid FROM jobs j JOIN users u ON j.userid = u.userid WHERE j.location = 'LOC_1294' AND "
        "u.location <> j.location GROUP BY j.userid HAVING SUM(j.revenue) > 0 ORDER BY SUM(j.revenue) DESC LIMIT 5;",
        "-c", "PREPARE jobs_by_location(text) AS SELECT jobidentifier, userid, jobstatus, revenue, jobdate FROM jobs "
        "WHERE location = $1 ORDER BY jobdate DESC LIMIT 5; EXECUTE jobs_by_location('LOC_1294');",
        "-c", "PREPARE jobs_by_service(text) AS SELECT jobidentifier, userid, jobstatus, revenue, jobdate FROM jobs "
        "WHERE servicename = $1 ORDER BY jobdate DESC LIMIT 5; EXECUTE jobs_by_service('SERVICE_01');",
    )  # fmt: skip
    lines = response.stdout.splitlines()
    expected = jobs_oracle.top_users(jobs_oracle.current_jobs(produced), locations)["LOC_1294"]
    assert [int(line) for line in lines[1:6]] == [userid for userid, _ in expected]
    assert len([line for line in lines if line.count("|") == 4]) == 10


def test_full_refresh_gives_the_same_tables(system: System, produced: Path) -> None:
    tables = ("users", "jobs", "jobs_per_minute", "top_users_by_location")

    def contents() -> dict[str, list[tuple[object, ...]]]:
        return {
            table: system.query(f"select md5(string_agg(t::text, '|' order by t::text)), count(*) from marts.{table} t")
            for table in tables
        }

    before = contents()
    system.headrace("build", "--full-refresh")
    assert contents() == before


@pytest.mark.security("U2")
def test_files_of_airflow_and_its_tasks_are_closed_to_others(system: System, produced: Path) -> None:
    passed = {system.home, system.home / "postgres"} if os.geteuid() == 0 else set()  # see docs/security.md
    paths = [path for path in (system.home, *system.home.rglob("*")) if not path.is_symlink()]
    assert any(path.suffix == ".log" and "task_id=drain" in str(path) for path in paths)
    assert {path for path in paths if path.exists() and path.stat().st_mode & 0o077} == passed


def test_secrets_are_in_no_log_rendered_template_table_nor_page(system: System, produced: Path) -> None:
    secrets = {
        "postgres": (system.home / "postgres" / "pgpass").read_text().strip().rsplit(":", 1)[1],
        **{
            name: (system.home / "airflow" / name).read_text().strip()
            for name in ("password", "fernet_key", "jwt_secret", "api_secret_key")
        },
    }
    assert all(len(secret) > 20 for secret in secrets.values())
    searched = dict(_texts(system))
    assert any("ingest_jobs" in path for path in searched)  # logs of tasks, by the DAG's name in their path
    assert "rendered_task_instance_fields" in searched["database airflow"]
    found = [(name, path) for name, secret in secrets.items() for path, text in searched.items() if secret in text]
    assert found == []


def _texts(system: System) -> Iterator[tuple[str, str]]:
    """All that this deployment has written where others may read it, by its place."""
    for folder in (system.home / "airflow" / "logs", system.home / "logs", system.home / "dbt"):
        for path in folder.rglob("*"):
            if path.is_file():
                yield str(path.relative_to(system.home)), path.read_bytes().decode(errors="replace")
    yield "headrace env", system.headrace("env").stdout
    for name in ("headrace", "airflow"):
        address = system.settings.require_postgres_dsn().replace("/headrace?", f"/{name}?")
        dump = subprocess.run([postgres_binary("pg_dump"), address], check=True, capture_output=True, text=True)
        yield f"database {name}", dump.stdout
    url, token = str(system.settings.require_airflow_url()), system.api._client.headers["Authorization"]
    for page in ("", "status", "metrics"):
        response = httpx.get(f"{url}/headrace/{page}", headers={"Authorization": token}, trust_env=False, timeout=60)
        assert response.status_code == 200
        yield f"/headrace/{page}", response.text


@pytest.fixture
def driver(system: System, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    password = (system.home / "airflow" / "password").read_text().strip()
    with browser.chromium(tmp_path / "profile") as driver:
        browser.log_in(driver, system.settings.require_airflow_url(), "admin", password)
        yield driver


@pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))
def test_answer_case_is_asked_from_its_form(system: System, produced: Path, driver: webdriver.Chrome) -> None:
    location = "LOC_1293"
    users = [str(userid) for (userid,) in system.query(f"select userid from marts.top_users('{location}', 3)")]
    assert len(users) == 3
    url = system.settings.require_airflow_url()
    before = {run["dag_run_id"] for run in runs(system)}
    # Airflow draws its buttons and fields again whenever it has heard something
    wait = WebDriverWait(driver, browser.WAIT_S, 0.2, ignored_exceptions=[StaleElementReferenceException])
    driver.get(f"{url}/dags/answer_case")
    wait.until(lambda d: clicked(button(d, "Trigger")))
    field: Callable[[], WebElement] = lambda: driver.find_element(By.ID, "element_location")  # noqa: E731
    wait.until(lambda d: d.find_elements(By.ID, "element_location") and field().get_attribute("value") == "LOC_1294")
    assert driver.find_element(By.ID, "element_service").get_attribute("value") == "SERVICE_01"
    field().send_keys(Keys.CONTROL, "a")
    field().send_keys(location)
    wait.until(lambda _: field().get_attribute("value") == location)
    browser.screenshot(driver, "form-answer-case")
    wait.until(lambda d: clicked(submit(d)))
    run = wait.until(lambda _: [run for run in runs(system) if run["dag_run_id"] not in before])[0]
    assert run["conf"]["location"] == location
    system.api.wait(("answer_case", run["dag_run_id"]))
    driver.get(f"{url}/dags/answer_case/runs/{run['dag_run_id']}/tasks/answer")
    wait.until(lambda d: all(user in d.find_element(By.TAG_NAME, "body").text for user in users))
    browser.screenshot(driver, "answer-case-log")


def clicked(element: WebElement | None) -> bool:
    if element is None or not element.is_enabled():
        return False
    element.click()
    return True


def button(driver: webdriver.Chrome, text: str) -> WebElement | None:
    return next((each for each in driver.find_elements(By.TAG_NAME, "button") if each.text.strip() == text), None)


def submit(driver: webdriver.Chrome) -> WebElement | None:
    """The form's own button, not the one that opened it."""
    return next(iter(driver.find_elements(By.XPATH, "//*[@role='dialog']//button[normalize-space()='Trigger']")), None)


def runs(system: System) -> list[dict[str, Any]]:
    found = system.api._send("GET", "/dags/answer_case/dagRuns?limit=100")["dag_runs"]
    return [run for run in found if isinstance(run, dict)]
