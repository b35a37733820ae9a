"""Builds of maintained models beside other sessions: every build reads one state, and a killed one leaves nothing."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.support.maintained import Trial
from tests.support.warehouse import BLOCKED, shared_warehouse

# waits in its transaction, after the snapshot, while another session holds the gate
PLACES = """{{ config(grain='place', unique_key='place', pre_hook='lock table raw.gate in access share mode') }}
select place, count(*) as visits, sum(minutes) as minutes from {{ ref('visits') }} group by 1"""


@pytest.fixture
def trial(postgres_dsn: str, session_home: Path, tmp_path: Path) -> Trial:
    """Visits by place, and a gate before them; not built."""
    trial = Trial.begin(shared_warehouse(postgres_dsn, session_home), tmp_path, places=PLACES)
    trial.execute("create table raw.gate ()")
    return trial


@contextmanager
def held(trial: Trial, table: str, mode: str) -> Iterator[psycopg.Connection]:
    """A session that holds a lock until it commits."""
    with psycopg.connect(trial.warehouse.dsn) as connection:
        connection.execute(f"lock table {table} in {mode} mode".encode())
        yield connection
        connection.commit()


def counted(trial: Trial) -> list[tuple[object, ...]]:
    """The whole number of visits, by the table and by its upstream."""
    return trial.query("select (select sum(visits) from trial.places), (select count(*) from trial.visits)")


def test_what_commits_during_a_build_is_built_next_time(trial: Trial) -> None:
    trial.build()
    trial.execute("update raw.visits set place = 'P9' where id < 5")
    trial.build("--select", "visits")
    with trial.process("--select", "places") as run:
        with held(trial, "raw.gate", "access exclusive"):
            trial.warehouse.wait_for_sessions(BLOCKED)
            trial.execute(
                "update raw.visits set place = 'P8' where id < 9; insert into raw.visits values (999, 1, 'P8', 1)"
            )
            trial.build("--select", "visits")
        run.join(60)
        assert run.exitcode == 0
    assert counted(trial) == [(200, 201)]
    assert trial.query("select visits from trial.places where place = 'P9'") == [(4,)]
    trial.build("--select", "places")
    trial.assert_equal("places")


def test_what_commits_while_a_build_waits_for_its_turn_is_built(trial: Trial) -> None:
    trial.build()
    with trial.process("--select", "places") as run:
        with held(trial, "trial_log._turn_places", "share row exclusive"):
            trial.warehouse.wait_for_sessions(BLOCKED)
            trial.execute("update raw.visits set place = 'P9' where id < 5")
            trial.build("--select", "visits")
            # it waits for its turn with no lock of its upstreams, which may be swapped meanwhile
            trial.execute(
                "begin; set local lock_timeout = '5s'; lock table trial.visits in access exclusive mode; commit"
            )
        run.join(60)
        assert run.exitcode == 0
    trial.assert_equal("places")


def test_upstream_is_neither_swapped_nor_emptied_under_a_build(trial: Trial) -> None:
    trial.build()
    with trial.process("--select", "places") as run:
        with held(trial, "raw.gate", "access exclusive"):
            trial.warehouse.wait_for_sessions(BLOCKED)
            for statement in ("truncate trial_log.visits", "alter table trial.visits rename to former"):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    trial.execute(f"begin; set local lock_timeout = '200ms'; {statement}; commit")
        run.join(60)
        assert run.exitcode == 0
    trial.assert_equal("places")


def test_two_first_builds_at_once_both_succeed(trial: Trial) -> None:
    trial.execute("create schema if not exists trial")  # which dbt itself cannot do twice at once
    with ExitStack() as stack:
        with held(trial, "headrace.model_locks", "access exclusive"):
            runs = [stack.enter_context(trial.process("--threads", "1")) for _ in range(2)]
            trial.warehouse.wait_for_sessions(BLOCKED, 2)
        for run in runs:
            run.join(60)
        assert [run.exitcode for run in runs] == [0, 0]
    trial.build()
    trial.assert_equal("visits", "people", "places")
    assert trial.query("select count(*) from trial_log.visits") == [(0,)]


def wait_for_the_end_of_its_sessions(trial: Trial) -> None:
    deadline = time.monotonic() + 20  # client_connection_check_interval
    while trial.warehouse.sessions("application_name = 'headrace-build'"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def foreign(trial: Trial) -> Iterator[Trial]:
    """The same on a server with the default of others': it does not look whether a client is still there."""
    name = trial.query("select quote_ident(current_database())")[0][0]
    trial.execute(f"alter database {name} set client_connection_check_interval = 0")
    yield trial
    trial.execute(f"alter database {name} reset client_connection_check_interval")


def test_statement_of_a_killed_build_ends_also_in_a_plain_model_on_any_server(foreign: Trial) -> None:
    foreign.write(slept="{{ config(materialized='table') }} select pg_sleep(60)::text as slept")
    with foreign.process("--select", "slept") as run:
        foreign.warehouse.wait_for_sessions("wait_event = 'PgSleep'")
        run.kill()
        run.join()
    wait_for_the_end_of_its_sessions(foreign)


def test_killed_build_leaves_neither_rows_nor_state(trial: Trial) -> None:
    trial.build()
    trial.execute("update raw.visits set place = 'P9' where id < 5")
    trial.build("--select", "visits")
    state = "select * from headrace.model_states inner join headrace.model_upstreams using (schema, identifier)"
    before = trial.query(f"{state} where identifier = 'places'"), trial.query("select * from trial.places order by 1")
    # it computed the rows and waits to write them
    with held(trial, "trial.places", "share"), trial.process("--select", "places") as run:
        trial.warehouse.wait_for_sessions(BLOCKED)
        run.kill()
        run.join()
    wait_for_the_end_of_its_sessions(trial)
    assert before == (
        trial.query(f"{state} where identifier = 'places'"),
        trial.query("select * from trial.places order by 1"),
    )
    trial.build("--select", "places")
    trial.assert_equal("places")
