"""axe-core (npm's axe-core 4.14.1, MPL-2.0) in the page that a browser shows.

tests/support/axe has its axe.min.js unchanged, with its licence and those of what it contains. No package has it.
"""

from pathlib import Path

from selenium import webdriver

from tests.support import browser

AXE = Path(__file__).with_name("axe") / "axe.min.js"
RUN = """
const done = arguments[arguments.length - 1];
axe.run(document, {resultTypes: ["violations"]}).then(
    (found) => done(found.violations
        .filter((each) => ["serious", "critical"].includes(each.impact))
        .map((each) => `${each.impact} ${each.id}: ` + each.nodes.slice(0, 3)
            .map((node) => `${node.html.slice(0, 200)} ${node.failureSummary}`).join(" | "))),
    (error) => done([String(error)]));
"""


def serious_faults(driver: webdriver.Chrome) -> list[str]:
    """What axe-core finds serious or critical in the page as shown, light and dark, 400 and 1280 pixels wide."""
    driver.set_script_timeout(60)
    driver.execute_script(AXE.read_text())
    found = []
    for width, dark in ((400, False), (1280, False), (400, True), (1280, True)):
        browser.emulate(driver, width=width, dark=dark)
        # the theme follows the emulated system in an event of its own
        driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
        wide, inner = driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
        found += [f"{width} wide: {wide} needed"] if wide > inner else []
        found += [f"{width}{' dark' if dark else ''}: {each}" for each in driver.execute_async_script(RUN)]
    return found
