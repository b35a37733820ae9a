"""The sections of docs/runbook.md that problems lead to."""

import re

import pytest

from headrace.airflow.page_template import render_runbook
from headrace.monitor.runbook import OTHER, anchor, anchors, section
from tests.support.runbook import BLOCK, SECTIONS

# sections that begin with what is no problem of `status`: of verify, of a session, of a person
NO_PROBLEM = {
    "A drain hangs",
    "Records were staged wrongly",
    "Verify finds a row missing",
    "A field that was added to the contract is null",
    "The database was restored from a backup",
}
KINDS = {
    "A declaration cannot be used": "declaration",
    "Dead letters grow": "dead_letters",
    "A dataset is late": "lag",
    "A model or its test fails": "model",
    "A topic is not checked": "unseen",
    "Airflow itself does not run": "airflow",
    "Airflow cannot import a DAG file": "import_error",
}


@pytest.mark.parametrize("title", sorted(SECTIONS.keys() - NO_PROBLEM))
def test_problem_leads_to_the_section_that_shows_its_text(title: str) -> None:
    shown = BLOCK.findall(SECTIONS[title])[0]
    assert section(KINDS.get(title, "source"), shown) == anchor(title)


def test_every_problem_leads_to_a_section_of_the_page_that_airflow_serves() -> None:
    ids = set(re.findall(r'<h[12] id="([^"]+)">', render_runbook("1")))
    assert anchors() <= ids
    assert {anchor(title) for title in SECTIONS} <= ids
    assert section("source", "something else") == OTHER


def test_runbook_links_to_nothing_that_the_page_does_not_serve() -> None:
    html = render_runbook("1")
    assert re.findall(r'<a href="(?!#)', html) == []
    assert "docs/glossary.md" in html
