"""The files of deploy/: alerts, their tests, and the dashboard with its queries."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
RULES = DEPLOY / "prometheus/headrace.rules.yml"
RULES_TEST = DEPLOY / "prometheus/headrace.rules.test.yml"
DASHBOARD = DEPLOY / "grafana/headrace.json"


def alerts() -> list[dict[str, Any]]:
    """The alerts of the rules file."""
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def dashboard() -> dict[str, Any]:
    """The dashboard."""
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def queries() -> Iterator[tuple[str, str]]:
    """A title and PromQL, of each query of each panel, of the annotations and of the variables."""
    document = dashboard()
    for panel in document["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in document["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for variable in document["templating"]["list"]:
        if found := re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", "")):
            yield variable["name"], f"group by ({found[2]}) ({found[1]})"


def metric_names(text: str) -> set[str]:
    """The metrics of Headrace that an expression reads."""
    return set(re.findall(r"\bheadrace_[a-z_]+", text))
