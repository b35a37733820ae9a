"""Two builds at once, and builds that are killed."""

import threading
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from tests.support.mart_rows import job
from tests.support.warehouse import ALL_OF_JOBS, BLOCKED, Warehouse, shared_warehouse


@pytest.fixture
def warehouse(postgres_dsn: str, session_home: Path) -> Warehouse:
    """Two jobs are staged and everything is built."""
    warehouse = shared_warehouse(postgres_dsn, session_home)
    warehouse.empty()
    warehouse.users((0, 1, "B"))
    warehouse.jobs((0, 1, job()), (1, 2, job(minute=3)))
    warehouse.build(select=ALL_OF_JOBS)
    return warehouse


@pytest.mark.parametrize("arguments", [["run"], ["run", "--full-refresh"]], ids=["first builds", "full refreshes"])
def test_two_dbt_runs_at_once_both_succeed(warehouse: Warehouse, arguments: list[str]) -> None:
    if "--full-refresh" not in arguments:
        warehouse.clear()
        warehouse.users((0, 1, "B"))
        warehouse.jobs((0, 1, job()), (1, 2, job(minute=3)))
    with ExitStack() as stack:
        # both have listed the relations, and found none or the same, before either may claim
        gate = stack.enter_context(psycopg.connect(warehouse.dsn))
        gate.execute("lock table headrace.claims in access exclusive mode")
        runs = [stack.enter_context(warehouse.dbt(*arguments, "--threads", "1")) for _ in range(2)]
        warehouse.wait_for_sessions(BLOCKED, 2)
        gate.commit()
        for run in runs:
            run.join(120)
        assert [run.exitcode for run in runs] == [0, 0]
    warehouse.assert_right()
    assert {to_seq for (_, dataset), to_seq in warehouse.claims().items() if dataset in ("jobs", "users")} == {1}
    warehouse.jobs((2, 3, job(minute=9)))
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()


def test_second_build_waits_for_the_first_and_finds_nothing_to_do(warehouse: Warehouse) -> None:
    warehouse.jobs((2, 3, job(minute=9)))
    reports: list[str] = []
    with psycopg.connect(warehouse.dsn) as first:
        first.execute("lock table headrace.build_lock in exclusive mode")
        passes: list[int] = []
        second = threading.Thread(target=lambda: passes.append(len(warehouse.build(print_line=reports.append).passes)))
        second.start()
        warehouse.wait_for_sessions("application_name = 'headrace-build' and wait_event = 'relation'")
        assert reports == ["build: another build is running; waiting for it to end"]
        first.commit()
        second.join(60)
    assert passes == [1]
    warehouse.assert_right()


@pytest.mark.parametrize("blocked", ["jobs", "jobs_per_minute"])
def test_dbt_killed_between_claim_and_commit_leaves_neither_claim_nor_rows(warehouse: Warehouse, blocked: str) -> None:
    warehouse.jobs((2, 1, job(minute=60)), (3, 2, None))
    before = warehouse.marts()[blocked]
    with psycopg.connect(warehouse.dsn) as gate:
        gate.execute(f"lock table marts.{blocked} in share mode".encode())  # it can be read; the merge waits
        with warehouse.dbt("run", "--select", "jobs", "jobs_per_minute", "--threads", "1") as run:
            warehouse.wait_for_sessions(BLOCKED)
            run.kill()
            run.join()
        gate.commit()
    # the backend notices that its client is gone: at the latest client_connection_check_interval later
    deadline = time.monotonic() + 20
    while warehouse.sessions("application_name = 'headrace-build'"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert warehouse.claims()[blocked, "jobs"] == 1
    assert warehouse.marts()[blocked] == before
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()


def test_batches_that_commit_while_dbt_builds_are_built_next_time(warehouse: Warehouse) -> None:
    warehouse.jobs((2, 3, job(minute=9)))
    with psycopg.connect(warehouse.dsn) as gate:
        gate.execute("lock table marts.jobs_per_minute in share mode")
        second = threading.Thread(target=lambda: warehouse.build(select=ALL_OF_JOBS))
        second.start()
        warehouse.wait_for_sessions(BLOCKED)
        warehouse.jobs((3, 1, job(minute=12)), (4, 4, job(minute=9)))  # after the upstream's claim
        gate.commit()
        second.join(60)
    assert warehouse.claims()["jobs_per_minute", "jobs"] == 2
    warehouse.build(select=ALL_OF_JOBS)
    warehouse.assert_right()


def test_builds_one_after_another_leave_no_session_behind(warehouse: Warehouse) -> None:
    for n in range(3):
        warehouse.jobs((10 + n, n, job(minute=n)))
        warehouse.build(select=["jobs", "jobs_per_minute"])
    assert (
        warehouse.query(
            "select pid from pg_stat_activity "
            "where application_name = 'headrace-build' and datname = current_database()"
        )
        == []
    )
