"""How fresh the marts are: from a job's production to the commit of its row in marts.jobs, followed and by schedule.

Postgres keeps the time of every commit (track_commit_timestamp), Kafka the time of every record: their difference is
measured for the newest version of each job, on one clock.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import psycopg

from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.sample.generate import generate, now
from headrace.sample.produce import produce_paced
from headrace.settings import ROOT, Settings
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, table
from tests.faults.servers import Servers

PER_SECOND = 1_000
WARM_UP_S = 30
SETTLE_S = {"`headrace follow`": 10, "Airflow, every minute": 150}  # until the last job is in its mart
LIMITS = {"`headrace follow`": {"p50": 1.0, "p95": 1.0}, "Airflow, every minute": {"p95": 90.0}}  # seconds
HEADRACE = str(Path(sys.executable).with_name("headrace"))
LATENCIES = """
select
    count(*),
    percentile_disc(array[0.5, 0.95, 0.99, 1.0]) within group (order by extract(epoch from committed_at - produced_at))
from (
    select newest.produced_at, pg_xact_commit_timestamp(jobs.xmin) as committed_at
    from (
        select distinct on (jobidentifier) jobidentifier, _timestamp as produced_at
        from staging.jobs
        where _timestamp > %s
        order by jobidentifier, _generation desc, _offset desc
    ) as newest
    inner join marts.jobs as jobs using (jobidentifier)
) as latencies
where committed_at > produced_at
"""


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Produce at a steady rate beside `headrace follow`, then beside Airflow; percentiles above LIMITS are misses."""
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.close)
        servers.start()
        with psycopg.connect(servers.address("postgres"), autocommit=True) as connection:
            connection.execute("alter system set track_commit_timestamp = on")
        servers.shut_postgres_down()
        servers.start()
        settings = Settings.from_environment({"HEADRACE_HOME": str(servers.home)})
        deployment = Deployment.from_settings(settings)
        initialise(deployment)
        load_file(deployment, "users", path=ROOT / "data-files" / "users.ndjson")
        lines = generate("jobs", sys.maxsize, 1, 0.0, ROOT / "data-files", now)
        followed: dict[str, AbstractContextManager[None]] = {
            "`headrace follow`": _follower(settings),
            "Airflow, every minute": _airflow(settings),
        }
        found: dict[str, dict[str, float]] = {}
        jobs: dict[str, int] = {}
        for name, running in followed.items():
            print_line(f"{name}: starts")
            with running:
                jobs[name], found[name] = _measure(deployment, lines, options.seconds, SETTLE_S[name], print_line)
    figures = [[name, f"{jobs[name]:,}", *(f"{value:.2f}" for value in found[name].values())] for name in found]
    text = f"{PER_SECOND:,} jobs a second, from production to commit in marts.jobs, seconds:\n\n" + table(
        ["", "jobs", *next(iter(found.values()))], figures
    )
    missed = [
        f"freshness: {name}: {percentile} is {found[name][percentile]:.2f} s, expected at most {limit}"
        for name, limits in LIMITS.items()
        for percentile, limit in limits.items()
        if found[name][percentile] > limit
    ]
    return BenchResult(text, {"seconds": found, "jobs": jobs}, missed)


def _measure(
    deployment: Deployment, lines: Iterator[Any], seconds: int, settle_s: int, print_line: PrintLine
) -> tuple[int, dict[str, float]]:
    """Jobs that arrived, and percentiles of their latencies."""
    dataset = deployment.dataset("jobs")
    print_line(f"{PER_SECOND} jobs a second; {WARM_UP_S} s to warm up")
    produce_paced(deployment, dataset, islice(lines, PER_SECOND * WARM_UP_S), PER_SECOND, stop=Event())
    with psycopg.connect(deployment.settings.require_postgres_dsn(), autocommit=True) as connection:
        began = _one(connection, "select clock_timestamp()")
        print_line(f"{seconds} s that are measured")
        produce_paced(deployment, dataset, islice(lines, PER_SECOND * seconds), PER_SECOND, stop=Event())
        time.sleep(settle_s)
        jobs, (p50, p95, p99, most) = connection.execute(LATENCIES, (began,)).fetchone() or (0, [0.0] * 4)
    assert jobs > 0.8 * PER_SECOND * seconds, f"only {jobs} jobs arrived"
    return jobs, {"p50": float(p50), "p95": float(p95), "p99": float(p99), "most": float(most)}


@contextmanager
def _follower(settings: Settings) -> Iterator[None]:
    process = subprocess.Popen(
        [HEADRACE, "follow", "jobs"],
        env={"PATH": "/usr/bin:/bin", "HEADRACE_HOME": str(settings.home)},
        stdout=(settings.home / "follow.log").open("wb"),
        stderr=subprocess.STDOUT,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@contextmanager
def _airflow(settings: Settings) -> Iterator[None]:
    """Airflow as `headrace up` starts it: ingest_jobs runs every minute, build_marts when it staged something."""
    environment = {**os.environ, "HEADRACE_HOME": str(settings.home)}
    subprocess.run([HEADRACE, "up"], env=environment, check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([HEADRACE, "down"], env=environment, check=True, stdout=subprocess.DEVNULL)


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]
