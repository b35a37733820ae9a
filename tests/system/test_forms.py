"""The case asked in a browser, with nothing but Airflow's trigger form."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from tests.system import browser
from tests.system.conftest import System

pytestmark = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))


@pytest.fixture(scope="module")
def answers(system: System, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A location, and its top users' ids, in marts that hold some jobs."""
    path = tmp_path_factory.mktemp("forms") / "jobs.kafka"
    system.headrace("generate", "jobs", "--records", "3000", "--seed", "21", "--out", str(path))
    system.headrace("produce", "jobs", str(path))
    system.headrace("load", "users")
    system.headrace("drain", "jobs")
    system.headrace("build")
    ((location,),) = system.query(
        "select location from marts.visitor_revenues where revenue > 0 group by 1 order by count(*) desc, 1 limit 1"
    )
    users = system.query(f"select userid from marts.top_users('{location}')")
    return location, [str(userid) for (userid,) in users[:3]]


@pytest.fixture
def driver(system: System, tmp_path: Path) -> Iterator[webdriver.Chrome]:
    password = (system.home / "airflow" / "password").read_text().strip()
    with browser.chromium(tmp_path / "profile") as driver:
        browser.log_in(driver, system.settings.require_airflow_url(), "admin", password)
        yield driver


def test_answer_case_is_asked_from_its_form(
    system: System, answers: tuple[str, list[str]], driver: webdriver.Chrome
) -> None:
    location, users = answers
    url = system.settings.require_airflow_url()
    before = {run["dag_run_id"] for run in runs(system)}
    wait = WebDriverWait(driver, browser.WAIT_S, poll_frequency=0.2)
    driver.get(f"{url}/dags/answer_case")
    wait.until(lambda d: button(d, "Trigger")).click()
    field = wait.until(lambda d: d.find_element(By.ID, "element_location"))
    wait.until(lambda _: field.get_attribute("value") == "LOC_1294")
    assert driver.find_element(By.ID, "element_service").get_attribute("value") == "SERVICE_01"
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(location)
    browser.screenshot(driver, "form-answer-case")
    wait.until(lambda d: submit(d)).click()
    run = wait.until(lambda _: [run for run in runs(system) if run["dag_run_id"] not in before])[0]
    assert run["conf"]["location"] == location
    system.api.wait(("answer_case", run["dag_run_id"]))
    driver.get(f"{url}/dags/answer_case/runs/{run['dag_run_id']}/tasks/answer")
    wait.until(lambda d: all(user in d.find_element(By.TAG_NAME, "body").text for user in users))
    browser.screenshot(driver, "answer-case-log")


def button(driver: webdriver.Chrome, text: str) -> webdriver.remote.webelement.WebElement | bool:
    found = [each for each in driver.find_elements(By.TAG_NAME, "button") if each.text.strip() == text]
    return found[0] if found and found[0].is_enabled() else False


def submit(driver: webdriver.Chrome) -> webdriver.remote.webelement.WebElement | bool:
    """The form's own button, not the one that opened it."""
    found = driver.find_elements(By.XPATH, "//*[@role='dialog']//button[normalize-space()='Trigger']")
    return found[0] if found and found[0].is_enabled() else False


def runs(system: System) -> list[dict[str, object]]:
    found = system.api._send("GET", "/dags/answer_case/dagRuns?limit=100")["dag_runs"]
    return [run for run in found if isinstance(run, dict)]
