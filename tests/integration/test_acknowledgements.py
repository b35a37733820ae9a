"""Acknowledged dead letters: kept, no problem any more, and who knows of them since when and why."""

import json
from dataclasses import replace

import psycopg
import pytest

from headrace.exceptions import DatasetError, UsageError
from headrace.ingest.parallel import drain_dataset
from headrace.monitor.problems import Overview, find_problems
from headrace.monitor.status import read_status
from headrace.postgres.acknowledgements import WHY_LENGTH_MAX, acknowledge
from headrace.postgres.connection import connector
from headrace.postgres.roles import DBT, LOADER, READER
from headrace.repair.replay import replay
from headrace.verify import verify
from tests.support import topics
from tests.support.commands import headrace
from tests.support.declarations import allow_refunds
from tests.support.jobs import job, servers, topic_of
from tests.support.ledger_checks import environment
from tests.support.logins import login
from tests.support.stage import Stage


def overview(stage: Stage, dsn: str | None = None) -> Overview:
    settings = replace(stage.deployment.settings, postgres_dsn=dsn or stage.dsn)
    return find_problems(read_status(connector(dsn or stage.dsn, "test")), settings)


def send_refunds(stage: Stage, first: int, count: int) -> None:
    """Records that the contract rejects, and accepts once it allows refunds; drained."""
    refunds = [(0, b"%d" % n, job(n, REVENUE="-1")) for n in range(first, first + count)]
    topics.send(servers(stage), topic_of(stage), refunds)
    drain_dataset(stage.deployment, "jobs")


def test_acknowledged_dead_letters_are_no_problem_later_ones_are_and_all_can_be_replayed(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(1, b"%d" % n, job(n)) for n in range(90)])
    send_refunds(stage, 100, 10)
    (problem,) = overview(stage).problems
    assert (problem.kind, problem.severity) == ("dead_letters", "warning")
    assert problem.text.endswith("10 % of its records, expected at most 10 %")
    send_refunds(stage, 200, 1)
    (problem,) = overview(stage).problems
    assert problem.severity == "error"  # 11 of 101

    environ = environment(stage.deployment.settings)
    arguments = ("dead-letters", "jobs", "--acknowledge", "--why", "refunds of the old shop")
    said = headrace(environ, *arguments, "--reason", "out_of_range", "--json")
    assert said.status == 0, said.output
    done = json.loads(said.output)
    assert (done["dead_letters"], done["reason"], done["why"]) == (11, "out_of_range", "refunds of the old shop")
    assert stage.query("select acknowledged_by, acknowledged_login from headrace.acknowledgements") == [
        (done["acknowledged_by"], "headrace")
    ]
    found = overview(stage)
    assert (found.problems, found.status.datasets[0].acknowledged) == ([], 11)
    assert verify(stage.deployment, "jobs", deep=True).is_clean
    again = headrace(environ, *arguments)
    assert (again.status, "found no dead letter that is neither" in again.output) == (1, True)
    listed = headrace(environ, "dead-letters", "jobs").output
    assert "11 acknowledged" in listed
    assert "refunds of the old shop" in listed

    send_refunds(stage, 300, 2)
    (problem,) = overview(stage).problems
    assert problem.text.startswith("2 records became dead letters")
    allow_refunds(stage)
    assert replay(stage.deployment, stage.deployment.dataset("jobs")).staged == 13
    found = overview(stage)
    assert (found.problems, found.status.datasets[0].acknowledged) == ([], 0)
    assert verify(stage.deployment, "jobs", deep=True).is_clean


def test_loader_may_acknowledge_and_readers_see_that_it_was_done(stage: Stage) -> None:
    send_refunds(stage, 100, 2)
    with login(stage.dsn, LOADER) as dsn, psycopg.connect(dsn, autocommit=True) as loader:
        with pytest.raises(UsageError, match="--why: found 0 characters"):
            acknowledge(loader, "jobs", reason=None, why=" ", actor="me")
        with pytest.raises(UsageError, match=f"expected 1 to {WHY_LENGTH_MAX}"):
            acknowledge(loader, "jobs", reason=None, why="x" * 501, actor="me")
        with pytest.raises(DatasetError, match="jobs: found no dead letter of reason wrong_type"):
            acknowledge(loader, "jobs", reason="wrong_type", why="known", actor="me")
        assert acknowledge(loader, "jobs", reason=None, why="known\x1b[2J", actor="me").why == "known\\x1b[2J"
        for statement in (
            "update headrace.acknowledgements set why = 'x'",
            "insert into headrace.acknowledgements (acknowledgement_id, dataset, dead_letters, why, acknowledged_by, "
            "acknowledged_login) values (gen_random_uuid(), 'jobs', 1, 'x', 'x', 'another')",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                loader.execute(statement.encode())
    with login(stage.dsn, READER) as dsn:
        assert overview(stage, dsn).status.datasets[0].acknowledged == 2
    for group in (READER, DBT):
        with (
            login(stage.dsn, group) as dsn,
            psycopg.connect(dsn, autocommit=True) as other,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            acknowledge(other, "jobs", reason=None, why="known", actor="me")
