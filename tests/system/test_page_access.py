"""Who may see the page: its routes with and without a login, and what Airflow imports of it."""

import ast
import re
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import pytest

from headrace.settings import ROOT
from tests.support.system import System

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")  # the keys are Headrace's

AIRFLOW = ROOT / "plugins" / "headrace" / "airflow"
DEAD_LETTER = "datasets/jobs/dead-letters/1:0:0"  # which is not there


def routes(module: str, prefix: str = "") -> list[str]:
    """The addresses of a module's routes, below /headrace/."""
    found = re.findall(r'^@(?:app|routes)\.get\("(.*?)"', (AIRFLOW / module).read_text(), re.MULTILINE)
    return [f"{prefix}{each}".lstrip("/").replace("{coordinate}", "1:0:0") for each in found]


ROUTES = [each.replace("{name}", "page.js") for each in routes("page.py")]
ROUTES += [each.replace("{name}", "jobs") for each in routes("page_dataset.py", "datasets/{name}")]


def test_plugin_is_imported_without_the_page() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import airflow.plugins_manager; import airflow.sdk; "
        "airflow.sdk.BaseOperatorLink; before = set(sys.modules); "
        "import headrace.airflow.plugin; print(sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "plugins")], capture_output=True, text=True, check=True, timeout=60
    )
    imported = ast.literal_eval(done.stdout.splitlines()[-1])
    assert "headrace.airflow.lazy_app" in imported
    assert {name for name in imported if name.split(".")[0] != "asyncio"} <= {
        "headrace", "headrace.airflow", "headrace.airflow.lazy_app", "headrace.airflow.links",
        "headrace.airflow.plugin",
    }  # fmt: skip


@pytest.mark.security("V1")
def test_every_route_is_refused_without_a_login(get_page: Callable[..., httpx.Response]) -> None:
    assert {
        "", "figures", "status", "metrics", "runbook", "static/page.js", "datasets/jobs", DEAD_LETTER,
        f"{DEAD_LETTER}/value",
    } == set(ROUTES)  # fmt: skip
    for route in ROUTES:
        assert get_page(route, bearer=None).status_code == 401, route
        assert get_page(route, bearer=None, Accept="text/html").status_code == 401
        assert get_page(route, bearer="a.b.c").status_code in (401, 403)
    assert "Log in to Airflow" in get_page("", bearer=None, Accept="text/html").text
    assert get_page("docs").status_code == get_page("openapi.json").status_code == 404


def test_every_route_is_refused_to_who_may_not_see_airflow(
    get_page: Callable[..., httpx.Response], token_of: Callable[[str | None], str]
) -> None:
    anonymous = token_of(None)
    for route in ROUTES:
        assert get_page(route, bearer=anonymous).status_code == 403, route


def test_admin_sees_every_route(get_page: Callable[..., httpx.Response]) -> None:
    deadline = time.monotonic() + 60
    for route in ROUTES:
        response = get_page(route)
        while response.status_code == 503 and time.monotonic() < deadline:  # it is being read
            time.sleep(0.5)
            response = get_page(route)
        assert response.status_code == (404 if route.startswith(DEAD_LETTER) else 200), route
        assert "default-src 'none'" in response.headers["content-security-policy"]


def test_check_freshness_passes_where_no_dataset_has_limits(system: System) -> None:
    run = system.run_dag("check_freshness")
    assert system.api.result(run, "check") == "0 datasets have limits, none is beyond them"
