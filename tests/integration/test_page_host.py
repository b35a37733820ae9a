"""The page in an API server (tests/page_host.py), on a database of thousands of datasets that may stop answering."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from headrace.postgres.migrations import migrate
from headrace.settings import ROOT
from tests.integration import many_datasets, page_host_rows
from tests.stalling_proxy import StallingProxy
from tests.support import browser, page_links
from tests.support.accessibility import serious_faults
from tests.support.databases import passing_database

MANY = 3_000  # the host reads them again and again: 10,000 took 40 s of CPU
HELD_UP_S = 4  # the host's connect_timeout: a route that waits for the database waits at least so long
ABANDONED = 45  # more than the 40 threads that the server has for all of its routes
ROUTES = ("", "figures", "status", "metrics", "?q=d0&page=2")


@dataclass(frozen=True, slots=True)
class Host:
    """A server, and the proxy between it and its database."""

    url: str
    port: int
    proxy: StallingProxy
    dsn: str

    def get(self, path: str) -> httpx.Response:
        """GET below /headrace/."""
        return httpx.get(f"{self.url}/headrace/{path}", trust_env=False, timeout=30)

    def abandon(self, requests: int) -> None:
        """Ask and go away."""
        for number in range(requests):
            with socket.create_connection(("127.0.0.1", self.port), timeout=10) as client:
                path = ROUTES[number % len(ROUTES)]
                client.sendall(f"GET /headrace/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())

    def other_route_takes(self) -> float:
        """How long a route of Airflow's needs for its thread."""
        began = time.monotonic()
        httpx.get(f"{self.url}/api/v2/version", trust_env=False, timeout=30).raise_for_status()
        return time.monotonic() - began

    def wait_for(self, said: str | None) -> None:
        """Ask until the page says this is wrong; None: until nothing is."""
        deadline = time.monotonic() + 60
        while True:
            found = self.get("figures?q=none")
            if said in found.text if said else found.status_code == 200 and 'class="notice"' not in found.text:
                return
            assert time.monotonic() < deadline, found.text[:1000]
            time.sleep(0.2)


@pytest.fixture(scope="module")
def running(postgres_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The server, on a database of its own."""
    home = tmp_path_factory.mktemp("page_host")
    datasets = home / "datasets"
    datasets.mkdir()
    (datasets / "d00001.py").write_text(page_host_rows.DECLARATION)
    with passing_database(postgres_dsn, "page_host") as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            migrate(connection)
        given = conninfo_to_dict(dsn)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = int(listener.getsockname()[1])
        with StallingProxy(int(given["port"] or 0)) as proxy:
            environment = {
                "PATH": os.environ["PATH"],
                "AIRFLOW_HOME": str(home / "airflow"),
                "AIRFLOW_CONN_HEADRACE_POSTGRES": json.dumps(
                    {
                        "conn_type": "postgres",
                        "host": "127.0.0.1",
                        "port": proxy.port,
                        "login": given["user"],
                        "schema": given["dbname"],
                        "extra": {"passfile": given.get("passfile", ""), "connect_timeout": HELD_UP_S},
                    }
                ),
                "HEADRACE_HOME": str(home),
                "HEADRACE_DATASETS_DIR": str(datasets),
            }
            command = [sys.executable, "-m", "tests.page_host", str(port), str(MANY)]
            with (home / "log").open("wb") as log:
                process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
            try:
                deadline = time.monotonic() + 60
                while process.poll() is None and not _listens(port):
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
                assert process.poll() is None, (home / "log").read_text()
                yield Host(f"http://127.0.0.1:{port}", port, proxy, dsn)
                assert "Traceback" not in (home / "log").read_text()
            finally:
                process.terminate()
                process.wait(10)  # also with a database that never answers


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.fixture
def host(running: Host) -> Iterator[Host]:
    """A server whose database answers, before and after."""
    running.wait_for(None)
    yield running
    if running.proxy.silent or running.proxy.stall_at:
        running.proxy.heal()
        running.wait_for(None)


@pytest.fixture(scope="module")
def seeded(running: Host) -> None:
    """From now on there are many datasets; until then there are none."""
    with psycopg.connect(running.dsn, autocommit=True) as connection:
        many_datasets.seed(connection, MANY)
        page_host_rows.add_dead_letters(connection)


@pytest.fixture
def many(seeded: None, host: Host) -> Host:
    """A server that shows many datasets."""
    deadline = time.monotonic() + 60
    while "d00001" not in host.get("figures").text:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return host


@pytest.mark.security("V4")
def test_database_that_never_answers_holds_up_no_other_route(host: Host) -> None:
    host.proxy.silent = True
    before = host.proxy.accepted
    for _ in range(3):
        host.abandon(ABANDONED)
        assert host.other_route_takes() < HELD_UP_S
    host.wait_for("old: postgres: connection timeout expired")
    found = host.get("status")
    assert found.status_code == 503
    assert "connection timeout expired" in found.json()["error"]
    assert found.json()["age_s"] > 0
    assert {"at", "problems", "datasets", "history"} < found.json().keys()  # the last figures
    assert "old: postgres: connection timeout expired" in host.get("").text
    assert host.get("").status_code == host.get("figures").status_code == 200
    assert "headrace_up 0.0" in host.get("metrics").text
    assert host.proxy.accepted - before <= 5  # one at a time, not one for each who asked


@pytest.mark.security("V4")
def test_database_that_freezes_in_mid_query_holds_up_no_other_route(host: Host) -> None:
    host.proxy.stall_at = b"headrace.status"
    before = host.proxy.accepted
    for _ in range(3):
        host.abandon(ABANDONED)
        assert host.other_route_takes() < HELD_UP_S
        time.sleep(1)
    host.wait_for("old: postgres: found no answer for ")
    assert "postgres: found no answer for " in host.get("status").json()["error"]
    assert host.proxy.accepted - before == 1  # and the one that is frozen is not joined by others


needs_browser = pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing()))


@pytest.fixture(scope="module")
def driver(running: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    with browser.chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def names(driver: webdriver.Chrome) -> list[str]:
    look = "return [...document.querySelectorAll('#datasets .cards tbody th a')].map((each) => each.innerText)"
    return list(driver.execute_script(look))


def until(driver: webdriver.Chrome, condition: object) -> None:
    WebDriverWait(driver, 30, poll_frequency=0.2).until(condition)  # type: ignore[arg-type]


@needs_browser
def test_page_in_a_browser_says_how_old_its_figures_are(host: Host, driver: webdriver.Chrome) -> None:
    browser.emulate(driver, width=1400)
    driver.get(f"{host.url}/headrace/")
    host.proxy.silent = True
    until(driver, lambda d: "old: postgres: connection timeout expired" in d.find_element(By.ID, "age").text)
    browser.screenshot(driver, "page-silent")
    assert driver.find_element(By.ID, "datasets").is_displayed()
    host.proxy.heal()
    until(driver, lambda d: not d.find_element(By.ID, "age").text)


@needs_browser
@pytest.mark.parametrize(("width", "scripts"), [(1400, True), (390, False)])
def test_datasets_are_searched_and_paged_from_the_keyboard(
    many: Host, driver: webdriver.Chrome, width: int, scripts: bool
) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    browser.emulate(driver, width=width)
    driver.get(f"{many.url}/headrace/")
    browser.screenshot(driver, f"page-many-{width}")
    assert names(driver)[0] == "d00001"
    driver.find_element(By.ID, "query").send_keys("d02", Keys.ENTER)
    until(driver, lambda d: names(d)[:1] == ["d02000"])
    assert driver.find_element(By.ID, "query").get_attribute("value") == "d02"
    driver.find_element(By.CSS_SELECTOR, "a[rel=next]").send_keys(Keys.ENTER)
    until(driver, lambda d: names(d)[:1] == ["d02050"])
    wide, inner = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= inner
    if scripts:
        driver.find_element(By.ID, "query").send_keys("5")  # and not yet sent
        as_of = driver.find_element(By.ID, "freshness").text
        until(driver, lambda d: d.find_element(By.ID, "freshness").text != as_of)
        assert names(driver)[0] == "d02050"  # the refresh keeps what was searched, and what is being typed
        assert driver.find_element(By.ID, "query").get_attribute("value") == "d025"
    browser.screenshot(driver, f"page-search-{width}")
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@needs_browser
def test_page_has_no_serious_fault_of_accessibility(many: Host, driver: webdriver.Chrome) -> None:
    driver.get(f"{many.url}/headrace/?range=6h&q=d0001")
    label = "svg[aria-label^='d00010, last 6 h: 600 records committed']"
    until(driver, lambda d: d.find_elements(By.CSS_SELECTOR, label))
    assert serious_faults(driver) == []


@needs_browser
def test_runbook_has_no_serious_fault_of_accessibility(host: Host, driver: webdriver.Chrome) -> None:
    driver.get(f"{host.url}/headrace/runbook")
    assert "A service does not answer" in driver.find_element(By.TAG_NAME, "body").text
    assert serious_faults(driver) == []


@needs_browser
def test_page_of_a_dataset_shows_its_contract_ledger_and_marts(many: Host, driver: webdriver.Chrome) -> None:
    browser.emulate(driver, width=1280)
    driver.get(f"{many.url}/headrace/?q=d00001")
    driver.find_element(By.CSS_SELECTOR, "#datasets .cards tbody th a").send_keys(Keys.ENTER)
    until(driver, lambda d: d.title.startswith("d00001"))
    sections = "partitions", "batches", "marts", "contract", "runs"
    text = {each: driver.find_element(By.ID, each).text for each in sections}
    assert "[0] 300 300 0" in text["partitions"]
    assert "drain [0] 200 \N{EN DASH} 300 99 1" in text["batches"]
    assert "d00001 d00001 success" in text["marts"]
    assert "card card text no stored as its last four characters" in text["contract"]
    assert "scheduled__2026-03-01T12:00:00+00:00 ingest_d00001 6 600 6" in text["runs"]
    browser.screenshot(driver, "dataset-1280")
    assert serious_faults(driver) == []


@needs_browser
def test_page_of_a_dead_letter_previews_its_replay_from_the_keyboard(many: Host, driver: webdriver.Chrome) -> None:
    browser.emulate(driver, width=1280)
    driver.get(f"{many.url}/headrace/datasets/d00001/dead-letters/1:0:14")
    link = driver.find_element(By.CSS_SELECTOR, "a[href^='?dry-run']")
    link.send_keys(Keys.ENTER)
    WebDriverWait(driver, 90, poll_frequency=0.2).until(lambda d: d.find_elements(By.ID, "preview"))
    preview = driver.find_element(By.ID, "preview").text
    assert "Today's contract accepts it" in preview
    assert "name <b>" in preview
    assert "card ****" in preview
    browser.screenshot(driver, "dead-letter-1280")
    assert serious_faults(driver) == []
    for offset in page_host_rows.DEAD_LETTERS:
        driver.get(f"{many.url}/headrace/datasets/d00001/dead-letters/1:0:{offset}")
        assert driver.execute_script("return window.hostile") is None
        assert len(driver.page_source) < 150_000
    assert "Published" in driver.find_element(By.ID, "copy").text
    with psycopg.connect(many.dsn) as connection:
        found = connection.execute("select count(*) from headrace.dead_letters where replayed_by is not null")
        assert found.fetchone() == (0,)


def test_large_and_binary_values_are_cut_and_can_be_had_whole(many: Host) -> None:
    address = "datasets/d00001/dead-letters/1:0:"
    binary, large = many.get(f"{address}12").text, many.get(f"{address}13").text
    assert "2,560 bytes that are not text" in binary
    assert "00000010  10 11 12" in binary
    assert len(large) < 100_000
    assert "This is its beginning" in large
    for offset in (12, 13):
        whole = many.get(f"{address}{offset}/value")
        assert whole.content == page_host_rows.DEAD_LETTERS[offset][1]
        assert whole.headers["content-type"] == "application/octet-stream"
        assert whole.headers["content-disposition"].startswith("attachment")
    for wrong in ("datasets/none", f"{address}999", f"{address}x", "datasets/none/dead-letters/1:0:1"):
        assert many.get(wrong).status_code == 404, wrong


def test_every_link_of_the_pages_resolves(many: Host) -> None:
    """Those into Airflow are followed on a real one, by tests/system/test_page_links.py."""
    assert page_links.broken(many.get, ["?q=d00001"], re.compile(r"q=d00001$|datasets/d00001")) == []


def test_thousands_of_datasets_are_a_small_page_and_complete_for_programs(many: Host) -> None:
    many.get("")
    for path in ("", "?page=45", "?q=d0123&range=24h&scale=shared", "figures?q=late&page=7"):
        took: list[float] = []
        while not took or (min(took) >= 0.5 and len(took) < 20):  # some of them wait for newer figures
            began = time.monotonic()
            found = many.get(path)
            took.append(time.monotonic() - began)
            assert (found.status_code, len(found.content) < 400_000) == (200, True), path
        assert min(took) < 0.5, path
    assert "d00123" in many.get("?q=d0012").text
    assert many.get("?page=nonsense").status_code == many.get("?page=-1").status_code == 200
    assert len(many.get("status").json()["datasets"]) == MANY
    assert many.get("metrics").text.count("\nheadrace_lag_records{") == 2 * MANY
