"""A real Chromium, driven through chromedriver."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 30
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def missing() -> str | None:
    """What this machine lacks for browser tests; None when all is there."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"no {program} on this machine (Debian: apt-get install chromium chromium-driver)"
    return None


@contextmanager
def chromium(profile: Path, width: int = 1400, height: int = 900) -> Iterator[webdriver.Chrome]:
    """A browser of its own, closed at the end."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(60)
        yield driver
    finally:
        driver.quit()


def log_in(driver: webdriver.Chrome, url: str, user: str, password: str) -> None:
    """Through Airflow's own form."""
    driver.get(f"{url}/auth/login")
    wait = WebDriverWait(driver, WAIT_S)
    wait.until(lambda d: d.find_elements(By.NAME, "username"))
    driver.find_element(By.NAME, "username").send_keys(user)
    driver.find_element(By.NAME, "password").send_keys(password)
    driver.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    wait.until(lambda d: d.get_cookie("_token") is not None and "/auth/" not in d.current_url)


def emulate(driver: webdriver.Chrome, *, width: int, height: int = 900, dark: bool = False) -> None:
    """A window of this size, smaller than a real one may be, of somebody who likes it dark or light."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def screenshot(driver: webdriver.Chrome, name: str) -> None:
    """Keep what is seen in the folder that TEST_SCREENSHOTS names, if any."""
    folder = os.environ.get("TEST_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(folder) / f"{name}.png"))


def until(driver: webdriver.Chrome, condition: Callable[[webdriver.Chrome], Any], seconds: float = 30) -> Any:
    """Wait for a condition; the page may refresh itself while it looks."""
    stale = [StaleElementReferenceException]
    return WebDriverWait(driver, seconds, poll_frequency=0.2, ignored_exceptions=stale).until(condition)


def cell(driver: webdriver.Chrome, dataset: str, label: str) -> str:
    """What a cell says, in one look: between two the page may have refreshed itself."""
    look = """
        for (const row of document.querySelectorAll("#datasets table.cards tbody tr"))
            if (row.querySelector("a").innerText === arguments[0])
                return row.querySelector(`td[data-label='${arguments[1]}']`).innerText;
    """
    return str(driver.execute_script(look, dataset, label)).splitlines()[0]
