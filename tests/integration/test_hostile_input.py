"""Malicious records: they are stored unchanged or become dead letters, and nothing else happens."""

import json
from pathlib import Path

import pytest

from headrace.airflow.page_template import render_figures, render_page
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.monitor.problems import find_problems
from headrace.monitor.status import read_status
from headrace.verify import verify
from tests.support import topics
from tests.support.commands import headrace
from tests.support.jobs import job, servers, topic_of
from tests.support.ledger_checks import assert_ledger, environment
from tests.support.stage import Stage

TEXTS = [
    "'); drop table staging.jobs; --",
    '"; delete from headrace.checkpoints; --',
    "$$; select pg_sleep(10); $$",
    "%(dataset)s %s {table} {{ 7 * 7 }} ${jndi:ldap://127.0.0.1/x}",
    "\\.\n\\N\t\\x00 \r\n",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://127.0.0.1","x")',
    "+1+cmd|' /C calc'!A0",
    "../../../../etc/passwd",
    "\x1b[2J\x1b]0;owned\x07 \u202egnp.exe",
    "[red]bold[/red]",
]


@pytest.mark.security("P1")
def test_texts_that_mean_something_elsewhere_are_stored_as_they_came(stage: Stage) -> None:
    messages: list[topics.Message] = [
        (0, b"%d" % n, job(n, LOCATION=text, SERVICENAME=text, **{text: text})) for n, text in enumerate(TEXTS)
    ]
    sent = topics.send(servers(stage), topic_of(stage), messages)
    drain_dataset(stage.deployment, "jobs")
    rows = stage.query("select jobidentifier, location, servicename, _key, _extra from staging.jobs order by _offset")
    assert rows == [(n, text, text, b"%d" % n, {text: text}) for n, text in enumerate(TEXTS)]
    assert_ledger(stage, sent)
    assert verify(stage.deployment, "jobs", deep=True).is_clean


@pytest.mark.security("P1")
def test_dead_letters_are_shown_without_taking_effect(stage: Stage, tmp_path: Path) -> None:
    texts = sorted(TEXTS, key=lambda text: "<script>" in text)
    messages: list[topics.Message] = [
        (0, text.encode(), json.dumps({"JOBIDENTIFIER": text, "REVENUE": text, text: text}).encode()) for text in texts
    ]
    for part in (messages[:-1], messages[-1:]):  # the page shows the newest ones
        topics.send(servers(stage), topic_of(stage), part)
        drain_dataset(stage.deployment, "jobs")
    assert stage.value("select count(*) from headrace.dead_letters") == len(texts)
    overview = find_problems(read_status(stage.deployment.connect("test")), stage.deployment.settings)
    page = render_page("1", render_figures(overview, []))
    assert "&lt;script&gt;" in page
    for markup in ("<script>alert", "<img src=x", "\x1b", "\u202e"):
        assert markup not in page
    environ = environment(stage.deployment.settings)
    shown = [("dead-letters", "jobs", "--show", f"0:{number}") for number in range(len(texts))]
    for arguments in (("status",), ("dead-letters", "jobs"), *shown):
        said = headrace(environ, *arguments)
        assert said.status == 0
        assert "\x1b" not in said.output
        assert "\u202e" not in said.output
    # the only file that dead letters are written to is one of JSON lines: no field of it can begin a formula
    exported = tmp_path / "letters.jsonl"
    assert headrace(environ, "dead-letters", "jobs", "--export", str(exported)).status == 0
    lines = exported.read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == texts
    assert all(line.startswith('{"dataset":') for line in lines)


@pytest.mark.parametrize("name", ["users.csv", "users.ndjson"])
def test_files_with_formulas_are_loaded_as_text(name: str, stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / name
    formulas = ["=1+1", "@SUM(A1)", "-2+3", "=cmd|' /C calc'!A0"]
    if name.endswith(".csv"):
        path.write_text("USERID,LOCATION\n" + "".join(f"{n},{text}\n" for n, text in enumerate(formulas)))
    else:
        path.write_text("".join(json.dumps({"USERID": n, "LOCATION": text}) + "\n" for n, text in enumerate(formulas)))
    load_file(stage.deployment, "users", path=path)
    assert stage.query("select location from staging.users order by userid") == [(text,) for text in formulas]
