"""deploy/: each metric exists, each alert has a test and a section; `make alerts` runs Prometheus with it."""

import re
from itertools import combinations
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from headrace.monitor.metrics import exposition
from tests.support.deploy_files import DEPLOY, ROOT, RULES_TEST, alerts, dashboard, metric_names, queries
from tests.unit.test_metrics import OVERVIEW

PAGE = (ROOT / "docs/alerts.md").read_text()
KINDS = {"stat", "table", "timeseries", "state-timeline"}  # of Grafana 10


def exported() -> set[str]:
    """The names of samples, and those of families that have none just now."""
    families = list(text_string_to_metric_families(exposition(OVERVIEW).decode()))
    return {sample.name for family in families for sample in family.samples} | {
        family.name for family in families if family.type == "gauge"
    }


def test_metrics_of_alerts_and_dashboard_are_exported() -> None:
    read = {rule["alert"]: rule["expr"] for rule in alerts()} | dict(queries())
    assert len(read) > 40
    missing = {title: names for title, text in read.items() if (names := metric_names(text) - exported())}
    assert not missing


def test_metrics_of_the_alerts_tests_and_of_the_page_are_exported() -> None:
    assert not metric_names(RULES_TEST.read_text()) - exported()
    table = re.findall(r"^\| (`headrace_.*?) \|", (ROOT / "docs/page.md").read_text(), re.MULTILINE)
    assert metric_names("\n".join(table)) == exported()


def test_alerts_have_a_severity_a_test_and_a_section() -> None:
    tests = RULES_TEST.read_text()
    sections = re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)
    assert sections == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        name = rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical"), name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["runbook_url"] == f"https://docs.example/headrace/alerts.md#{name.lower()}"
        assert f'alertname="{name}"' in tests or f"alertname: {name}" in tests, name


def test_links_of_the_alerts_page_lead_to_headings() -> None:
    links = re.findall(r"\]\((\w+\.md)#([\w-]+)\)", PAGE)
    assert len(links) > 10
    for page, anchor in links:
        headings = re.findall(r"^#+ (.*)$", (ROOT / "docs" / page).read_text(), re.MULTILINE)
        assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, anchor


def test_panels_of_the_dashboard_do_not_overlap_and_read_the_chosen_datasource() -> None:
    panels: list[dict[str, Any]] = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} == KINDS
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), panel["title"]
        assert panel["datasource"] == source
        assert all(target["datasource"] == source for target in panel["targets"]), panel["title"]
    for one, other in combinations(panels, 2):
        a, b = one["gridPos"], other["gridPos"]
        apart = [a[at] + a[size] <= b[at] or b[at] + b[size] <= a[at] for at, size in (("x", "w"), ("y", "h"))]
        assert any(apart), (one["title"], other["title"])


def test_other_files_are_read_as_yaml() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert (job["job_name"], job["metrics_path"]) == ("headrace", "/headrace/metrics")
    for name, key in (("datasources", "datasources"), ("dashboards", "providers")):
        document = yaml.safe_load((DEPLOY / f"grafana/provisioning/{name}.yml").read_text())
        assert document["apiVersion"] == 1
        assert document[key]
