"""The profile `scale`: drains on two workers, which are killed and cut off in the middle."""

import time
from collections.abc import Callable
from typing import Any

from tests.compose.stack import Stack

RECORDS = 120_000
FILE = "/tmp/scale.kafka"
STILL_S = 12.0  # how long a worker is cut off: longer than what waits for an answer or a lock
RUN_LIMIT_S = 600.0

Say = Callable[[str], None]


def check_scale(stack: Stack, say: Say) -> None:
    """Mapped drains run on both workers, and end well when one is killed or loses a service."""
    generate = ("generate", "jobs", "--records", str(RECORDS), "--seed", "5", "--bad-percent", "1", "--out", FILE)
    stack.headrace(*generate)
    workers = {container["ID"][:12]: container["Name"] for container in stack.services()["worker"]}
    assert len(workers) == 2
    run_id, expected = start(stack)
    stack.api().wait(("ingest_jobs", run_id))
    found = drains(stack, run_id)
    assert {drain["hostname"] for drain in found} == set(workers), found
    verify(stack, expected)
    say(f"scale: {len(found)} mapped drains, on both workers; {RECORDS:,} records each stored once")
    for name, cut, mend in (
        ("killed", lambda worker: stack.engine.docker("kill", worker), lambda _: stack.compose(*UP)),
        ("cut off from Kafka", *network(stack, "kafka")),
        ("cut off from Postgres", *network(stack, "postgres")),
    ):
        check_interrupted(stack, workers, name, cut, mend, say)
        stack.wait_healthy()
        workers = {container["ID"][:12]: container["Name"] for container in stack.services()["worker"]}


UP = ("up", "--detach", "--no-build", "--scale", "worker=2")


def network(stack: Stack, name: str) -> tuple[Callable[[str], Any], Callable[[str], Any]]:
    """What takes a container out of the network of a service, and what brings it back."""
    full = f"{stack.project}_{name}"
    return (
        lambda worker: stack.engine.docker("network", "disconnect", "--force", full, worker),
        lambda worker: stack.engine.docker("network", "connect", full, worker),
    )


def check_interrupted(
    stack: Stack, workers: dict[str, str], name: str, cut: Callable[[str], Any], mend: Callable[[str], Any], say: Say
) -> None:
    """Start a drain, do something to a worker in the middle of it, mend it, wait for the run's success, verify."""
    run_id, expected = start(stack)
    deadline = time.monotonic() + 120
    while not (running := [d for d in drains(stack, run_id) if d["state"] == "running" and d["committed"]]):
        assert time.monotonic() < deadline, drains(stack, run_id)
        time.sleep(0.05)
    victim = running[0]["hostname"]
    stored = count(stack)
    cut(workers[victim])
    assert stored < expected, f"{name}: the drain had ended"
    time.sleep(STILL_S)
    mend(workers[victim])
    stack.api().wait(("ingest_jobs", run_id))
    again = [drain for drain in drains(stack, run_id) if drain["try_number"] > 1]
    verify(stack, expected)
    say(
        f"scale: a worker {name} with {expected - stored:,} of {RECORDS:,} records to go: {len(again)} drains were "
        "done again, each record is stored once, verify --deep is clean"
    )


def start(stack: Stack) -> tuple[str, int]:
    """Produce more records, visible at once; the run that drains them, triggered or the schedule's, and their sum."""
    expected = count(stack) + RECORDS
    mapped = (
        "select distinct run_id from task_instance where dag_id = 'ingest_jobs' and task_id = 'drain' and map_index > 0"
    )
    before = [row["run_id"] for row in stack.query(mapped, database="airflow")]
    stack.headrace("produce", "jobs", FILE, "--transactional-id", "scale")
    stack.api().trigger("ingest_jobs", {})
    deadline = time.monotonic() + 120
    while not (
        found := [row["run_id"] for row in stack.query(mapped, database="airflow") if row["run_id"] not in before]
    ):
        assert time.monotonic() < deadline, "no run of ingest_jobs has mapped drains"
        time.sleep(0.05)
    return found[0], expected


def verify(stack: Stack, expected: int) -> None:
    """Every record produced is stored once: counted here, compared one by one by verify --deep."""
    assert count(stack) == expected
    stack.headrace("verify", "jobs", "--deep")


def count(stack: Stack) -> int:
    """Rows and dead letters of jobs."""
    statement = (
        "select (select count(*) from staging.jobs) + "
        "(select count(*) from headrace.dead_letters where dataset = 'jobs') as stored"
    )
    return int(stack.query(statement)[0]["stored"])


def drains(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    """The mapped drains of a run, and whether the run has committed a batch."""
    found = stack.query(
        "select map_index, hostname, state, try_number from task_instance "
        "where dag_id = 'ingest_jobs' and task_id = 'drain' and run_id = %s and map_index >= 0",
        run_id,
        database="airflow",
    )
    ledger = stack.query("select count(*) as batches from headrace.batches where run_id = %s", run_id)
    return [drain | {"committed": ledger[0]["batches"] > 0} for drain in found]
