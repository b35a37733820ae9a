"""The page "Headrace" on the real Airflow: what it says, and how it behaves in a browser."""

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from headrace.sample.airflow_api import DagRunFailed
from tests.support import browser
from tests.support.browser import cell, until
from tests.support.system import System, pause

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # the keys are Headrace's

HOSTILE = "</pre><script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>"
SCHEDULED = ("ingest_events", "ingest_jobs", "ingest_rides", "ingest_telemetry", "load_users", "build_marts")
# what moves by itself between two looks
MOVING = re.compile(r"_s$|^at$|^observed_at$|^history$|^recent_|^dead_since$|^heartbeat_at$")


@pytest.fixture(scope="module")
def ingested(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Events and users that were ingested and built, some of them hostile; no schedule changes them meanwhile."""
    path = tmp_path_factory.mktemp("page") / "events.ndjson"
    system.headrace("generate", "events", "--records", "1000", "--bad-percent", "2", "--out", str(path))
    with path.open("a") as file:
        file.write(json.dumps({"event_id": HOSTILE, "event_type": HOSTILE}) + "\n")
    system.headrace("produce", "events", str(path))
    for dag_id in SCHEDULED:
        pause(system, dag_id, True)
    system.headrace("drain", "events")
    system.headrace("load", "users")
    system.headrace("build")
    yield system
    for dag_id in SCHEDULED:
        pause(system, dag_id, False)


def still(value: Any) -> Any:
    """A document without what moves by itself."""
    if isinstance(value, dict):
        return {key: still(each) for key, each in value.items() if not MOVING.search(key)}
    return [still(each) for each in value] if isinstance(value, list) else value


@pytest.mark.security("V2")
def test_viewer_sees_and_is_offered_nothing_to_do(
    ingested: System, url: str, get_page: Callable[..., httpx.Response], token_of: Callable[[str | None], str]
) -> None:
    viewer = token_of("VIEWER")
    seen = get_page("", bearer=viewer).text
    assert "events" in seen
    assert "Open DAG replay_dead_letters" in get_page("").text
    assert "Open DAG" not in seen
    refused = httpx.post(
        f"{url}/api/v2/dags/replay_dead_letters/dagRuns",
        headers={"Authorization": f"Bearer {viewer}"},
        json={"logical_date": None, "conf": {"dataset": "events"}},
        trust_env=False,
        timeout=60,
    )
    assert refused.status_code == 403


@pytest.mark.security("V3")
def test_parameters_of_who_may_trigger_are_data(
    ingested: System, url: str, token_of: Callable[[str | None], str]
) -> None:
    """A statement as the reason of a replay finds no dead letter; as a dataset the form itself refuses it."""
    bearer = {"Authorization": f"Bearer {token_of('USER')}"}
    statement = "x'; drop table staging.events; --"

    def trigger(**conf: Any) -> httpx.Response:
        return httpx.post(
            f"{url}/api/v2/dags/replay_dead_letters/dagRuns",
            headers=bearer,
            json={"logical_date": None, "conf": {"dry_run": False} | conf},
            trust_env=False,
            timeout=60,
        )

    staged = ingested.query("select count(*) from staging.events")
    response = trigger(dataset="events", reason=statement)
    assert response.status_code == 200, response.text
    run = "replay_dead_letters", response.json()["dag_run_id"]
    ingested.api.wait(run)
    assert ingested.api.result(run, "replay")["staged"] == 0
    assert trigger(dataset=f"events{statement}").status_code == 400
    assert ingested.query("select count(*) from staging.events") == staged


def test_navigation_has_the_page(ingested: System) -> None:
    plugins = ingested.api._client.get("/plugins").json()["plugins"]
    (ours,) = [plugin for plugin in plugins if plugin["name"] == "headrace"]
    (view,) = ours["external_views"]
    assert (view["name"], view["destination"], view["url_route"], view["href"]) == (
        "Headrace", "nav", "headrace", "headrace/",
    )  # fmt: skip
    assert ingested.api._client.get("/plugins/importErrors").json()["total_entries"] == 0


def test_json_is_that_of_the_command(ingested: System, get_page: Callable[..., httpx.Response]) -> None:
    for _ in range(10):  # a scheduled build may end between the two
        page = get_page("status").json()
        command = json.loads(ingested.headrace("status", "--json").stdout)
        if still(page) == still(command):
            break
        time.sleep(2)
    assert still(page) == still(command)
    assert {dataset["dataset"]: dataset["staged"] > 900 for dataset in command["datasets"]}["events"]


def test_metrics_are_those_of_the_page(ingested: System, get_page: Callable[..., httpx.Response]) -> None:
    events = next(each for each in get_page("status").json()["datasets"] if each["dataset"] == "events")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(get_page("metrics").text)
        for sample in family.samples
    }
    assert found["headrace_up",] == 1
    components = {labels[0]: value for (name, *labels), value in found.items() if name == "headrace_airflow_up"}
    assert (components["scheduler"], components["dag_processor"]) == (1, 1)
    assert found["headrace_dag_import_errors",] == 0
    assert found["headrace_rows_total", "events", "staged"] == events["staged"]
    assert found["headrace_rows_total", "events", "dead"] == events["dead"]
    assert sum(value for (name, *labels), value in found.items() if name == "headrace_dead_letters") >= events["dead"]


def test_page_shows_problems_with_their_commands(ingested: System, get_page: Callable[..., httpx.Response]) -> None:
    html = get_page("").text
    assert "records became dead letters in the last hour" in html
    assert 'data-copy="headrace dead-letters events"' in html
    assert "<script>window.hostile" not in html
    assert "&lt;script&gt;window.hostile" in html


def test_tasks_lead_to_the_page(ingested: System, url: str) -> None:
    dag_id, run_id = ingested.run_dag("check_freshness")
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/check/links"
    found = ingested.api._client.get(path).json()["extra_links"]
    assert found == {"Headrace": f"{url}/plugin/headrace"}


def test_forms_take_nothing_for_nothing(ingested: System) -> None:
    for reason in (None, "", " "):
        run = ingested.run_dag("replay_dead_letters", dataset="events", reason=reason, dry_run=True)
        assert ingested.api.result(run, "replay")["staged"] == 0
    assert ingested.api.result(ingested.run_dag("verify_ingestion", dataset=""), "verify").startswith("verify: clean")


def test_parameter_that_cannot_be_used_fails_the_task_in_one_line(ingested: System) -> None:
    run = ingested.api.trigger("answer_case", {"limit": "five"})
    with pytest.raises(DagRunFailed):
        ingested.api.wait(run)
    dag_id, run_id = run
    path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/answer/logs/1"
    log = ingested.api._client.get(path, headers={"Accept": "application/json"}).text
    assert "parameter limit: found 'five', expected a whole number from 1 to 1000" in log


# --- in a browser ---

needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))


@pytest.fixture(scope="module")
def window(
    ingested: System, url: str, admin_password: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[webdriver.Chrome]:
    """A browser whose user has logged in through Airflow's form."""
    with browser.chromium(tmp_path_factory.mktemp("profile")) as driver:
        browser.log_in(driver, url, "admin", admin_password)
        yield driver


@pytest.fixture
def driver(window: webdriver.Chrome, url: str) -> webdriver.Chrome:
    """The page alone, wide and light."""
    window.switch_to.default_content()
    browser.emulate(window, width=1400)
    window.get(f"{url}/headrace/")
    window.execute_script("localStorage.removeItem('theme')")
    window.get(f"{url}/headrace/")
    return window


@needs_browser
def test_page_is_opened_from_the_navigation_and_leads_back_into_airflow(window: webdriver.Chrome, url: str) -> None:
    browser.emulate(window, width=1400)
    window.get(url)
    until(window, lambda d: d.find_elements(By.CSS_SELECTOR, "a[href$='/plugin/headrace']"))[0].click()
    frame = until(window, lambda d: d.find_elements(By.CSS_SELECTOR, "iframe[title=Headrace]"))[0]
    window.switch_to.frame(frame)
    until(window, lambda d: d.find_elements(By.CSS_SELECTOR, "#datasets table"))
    browser.screenshot(window, "page-in-airflow")
    until(window, lambda d: d.find_elements(By.LINK_TEXT, "events"))[0].click()
    window.switch_to.default_content()
    until(window, lambda d: d.current_url.split("?")[0].endswith("/dags/ingest_events"))
    assert not window.find_elements(By.CSS_SELECTOR, "iframe[title=Headrace]")


@needs_browser
def test_page_runs_nothing_that_a_payload_says_and_logs_no_error(driver: webdriver.Chrome) -> None:
    driver.get_log("browser")
    driver.execute_script("for (const each of document.querySelectorAll('#dead-letters details')) each.open = true")
    until(driver, lambda d: HOSTILE[:30] in d.find_element(By.ID, "dead-letters").text)
    assert driver.execute_script("return window.hostile") is None
    assert driver.find_elements(By.CSS_SELECTOR, "#rows-chart canvas")
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    browser.screenshot(driver, "page-dead-letters")


@needs_browser
def test_page_refreshes_itself_and_shows_lag_fall_to_zero(
    ingested: System, driver: webdriver.Chrome, tmp_path: Path
) -> None:
    driver.execute_script("window.marker = 'the same document'")
    driver.find_element(By.CSS_SELECTOR, "#partitions summary").click()
    before = cell(driver, "events", "Staged rows")
    path = tmp_path / "events.ndjson"
    ingested.headrace("generate", "events", "--records", "300", "--seed", "9", "--out", str(path))
    ingested.headrace("produce", "events", str(path))
    ingested.headrace("drain", "events", "--max-records", "1")
    until(driver, lambda d: cell(d, "events", "Lag") != "0")
    assert "behind" in cell(driver, "events", "State")
    browser.screenshot(driver, "page-behind")
    ingested.headrace("drain", "events")
    until(driver, lambda d: cell(d, "events", "Lag") == "0")
    assert cell(driver, "events", "Staged rows") != before
    assert driver.execute_script("return window.marker") == "the same document"
    assert driver.find_element(By.ID, "partitions").get_attribute("open")
    ingested.headrace("build")
    until(driver, lambda d: cell(d, "events", "State") == "up to date")


@needs_browser
def test_page_says_that_its_figures_are_old_when_it_cannot_refresh(driver: webdriver.Chrome) -> None:
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    try:
        notice = until(driver, lambda d: d.find_element(By.ID, "notice").text)
        assert notice.startswith("Airflow does not answer. The figures are those of ")
    finally:
        online = offline | {"offline": False, "downloadThroughput": -1, "uploadThroughput": -1}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", online)
    until(driver, lambda d: not d.find_element(By.ID, "notice").is_displayed())


@needs_browser
def test_page_is_used_from_the_keyboard(driver: webdriver.Chrome) -> None:
    focused: Callable[[], str] = lambda: str(driver.execute_script("return document.activeElement.textContent"))  # noqa: E731
    body = driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert focused() == "Skip to problems"
    outline = driver.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    reached = []
    for _ in range(60):
        driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(focused().strip())
        if reached[-1] == "Partitions":
            break
    assert {"Datasets", "Pause", "events", "Partitions"} <= set(reached)
    driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert driver.find_element(By.ID, "partitions").get_attribute("open")
    as_of = driver.find_element(By.ID, "freshness").text
    until(driver, lambda d: d.find_element(By.ID, "freshness").text != as_of)
    assert focused() == "Partitions"  # a refresh takes nobody's place away
    pause = driver.find_element(By.ID, "pause")
    pause.send_keys(Keys.ENTER)
    assert (pause.get_attribute("aria-pressed"), pause.text) == ("true", "Resume")
    assert driver.find_element(By.ID, "freshness").text.endswith("paused")


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 800, 1400])
def test_page_fits_its_window(driver: webdriver.Chrome, width: int) -> None:
    browser.emulate(driver, width=width)
    driver.refresh()
    until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#rows-chart canvas"))
    wide, inner = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= inner
    browser.screenshot(driver, f"page-{width}")


@needs_browser
def test_page_is_dark_where_the_system_or_airflow_is(driver: webdriver.Chrome, url: str) -> None:
    ground: Callable[[], str] = lambda: str(  # noqa: E731
        driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    )
    light = ground()
    browser.emulate(driver, width=1400, dark=True)
    until(driver, lambda _: ground() != light)
    dark = ground()
    browser.screenshot(driver, "page-dark")
    browser.emulate(driver, width=1400)
    until(driver, lambda _: ground() == light)
    driver.execute_script("localStorage.setItem('theme', 'dark')")
    driver.get(f"{url}/headrace/")
    assert ground() == dark
    driver.get(f"{url}/plugin/headrace")  # inside Airflow, whose theme is dark now
    frame = until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "iframe[title=Headrace]"))[0]
    driver.switch_to.frame(frame)
    until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, "#datasets table"))
    until(driver, lambda _: ground() == dark)
    browser.screenshot(driver, "page-dark-in-airflow")
    driver.switch_to.default_content()
    driver.execute_script("document.documentElement.className = 'light'")  # as Airflow's own switch does
    driver.switch_to.frame(frame)
    until(driver, lambda _: ground() == light)
