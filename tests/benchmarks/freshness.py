"""How fresh the marts are: from a job's production to the commit of its row in marts.jobs, while topics are followed.

Postgres keeps the time of every commit (track_commit_timestamp), Kafka the time of every record: their difference is
measured for each job, on one clock. A job that another version replaced meanwhile is not counted.
"""

import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import psycopg

from headrace.generate import generate, now
from headrace.ingest import Deployment, initialise, load_file
from headrace.produce import produce_paced
from headrace.settings import ROOT, Settings
from tests.benchmarks.outcome import Options, Outcome, Report, table
from tests.faults.servers import Servers

PER_SECOND = 1_000
WARM_UP_S = 30
LIMITS = {"p50": 1.0, "p95": 2.0}  # seconds
HEADRACE = str(Path(sys.executable).with_name("headrace"))
LATENCIES = """
select
    count(*),
    percentile_disc(array[0.5, 0.95, 0.99, 1.0]) within group (order by extract(epoch from committed_at - produced_at))
from (
    select s._timestamp as produced_at, pg_xact_commit_timestamp(j.xmin) as committed_at
    from marts.jobs as j
    inner join staging.jobs as s using (jobidentifier)
    where s._timestamp > %s
) as latencies
where committed_at > produced_at
"""


def run(options: Options, report: Report) -> Outcome:
    """Produce at a steady rate beside `headrace follow`; percentiles above LIMITS are misses."""
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
        follower = stack.enter_context(_follower(settings))
        stack.callback(follower.send_signal, signal.SIGTERM)
        lines = generate("jobs", sys.maxsize, 1, 0.0, ROOT / "data-files", now)
        dataset = deployment.dataset("jobs")
        report(f"{PER_SECOND} jobs a second; {WARM_UP_S} s to warm up")
        produce_paced(deployment, dataset, islice(lines, PER_SECOND * WARM_UP_S), PER_SECOND, stop=Event())
        with psycopg.connect(servers.address("postgres"), autocommit=True) as connection:
            began = _one(connection, "select clock_timestamp()")
            report(f"{options.seconds} s that are measured")
            produce_paced(deployment, dataset, islice(lines, PER_SECOND * options.seconds), PER_SECOND, stop=Event())
            time.sleep(10)
            jobs, (p50, p95, p99, most) = connection.execute(LATENCIES, (began,)).fetchone() or (0, [0.0] * 4)
    found = {"p50": float(p50), "p95": float(p95), "p99": float(p99), "most": float(most)}
    assert jobs > 0.8 * PER_SECOND * options.seconds, f"only {jobs} jobs arrived"
    text = f"{jobs:,} jobs, {PER_SECOND:,} a second, from production to commit in marts.jobs, seconds:\n\n" + table(
        ["", *found], [["`headrace follow`", *(f"{value:.2f}" for value in found.values())]]
    )
    missed = [
        f"freshness: {name} is {found[name]:.2f} s, expected at most {limit}"
        for name, limit in LIMITS.items()
        if found[name] > limit
    ]
    return Outcome(text, {"seconds": found, "jobs": jobs}, missed)


def _follower(settings: Settings) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [HEADRACE, "follow", "jobs"],
        env={"PATH": "/usr/bin:/bin", "HEADRACE_HOME": str(settings.home)},
        stdout=(settings.home / "follow.log").open("wb"),
        stderr=subprocess.STDOUT,
    )


def _one(connection: psycopg.Connection[Any], query: str) -> Any:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]
