"""Topic to a table of current state, one row per key: ours by way of staging and dbt, a sink's by upsert.

All from an empty database. Ours is a drain with three processes, then the mart without its tests, as a sink has none.
Cold is both commands whole; warm is from the drain's first record to its last commit and the build in a process whose
dbt is warm, as a task that follows topics keeps it. Debezium's is from its first row to its last, its start not
counted: once into a table with a primary key, and once with the mart's other indexes too.
"""

import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path

from headrace.deployment import Deployment
from headrace.marts.build import build
from headrace.repair.generations import reset
from headrace.settings import Settings
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.benchmarks.peers import debezium
from tests.benchmarks.site import HEADRACE, TOPIC, Site, Speed, filled
from tests.benchmarks.throughput import CLIENTS
from tests.faults.servers import Servers

DEBEZIUM, INDEXED = "Debezium JDBC sink, upsert by key", "Debezium JDBC sink, with the mart's indexes"
RATIO = 2.0  # of Debezium's speed
PROCESSES = 3
SELECTED = "stg_kafka__jobs jobs"
BUILD = f"""
from headrace.marts.build import build
from headrace.settings import Settings
build(Settings.from_environment(), select={SELECTED!r}, tests=False)
"""


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """In turns; a client whose ratio is below RATIO is a miss."""
    speeds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.close)
        servers.start()
        site = filled(servers, options.topic_records, print_line)
        pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        for number in range(options.rounds):
            found: dict[str, Speed] = {}
            for client in CLIENTS:
                found[f"headrace, {client}, cold"] = _cold(site, client)
                found[f"headrace, {client}, warm"] = _warm(site, client, pool)
            for row, indexes in ((DEBEZIUM, ()), (INDEXED, debezium.MART_INDEXES)):
                site.settle()
                found[row] = debezium.upsert(site, debezium.CURRENT_STATE, indexes)
            for row, speed in found.items():
                print_line(f"round {number}, {row}: {speed.per_second:,.0f}/s")
                if number or options.rounds == 1:  # the first round warms up
                    speeds.setdefault(row, []).append(speed.per_second)
    medians = {row: Spread.of(values).median for row, values in speeds.items()}
    rows = [
        [row, f"{median:,.0f}", f"{min(speeds[row]):,.0f}", f"{max(speeds[row]):,.0f}"]
        + [f"{median / medians[peer]:.2f}" for peer in (DEBEZIUM, INDEXED)]
        for row, median in medians.items()
    ]
    text = f"{site.records:,} jobs, records per second:\n\n" + table(
        ["topic to current state", "median", "least", "most", "of Debezium", "of it with the indexes"], rows
    )
    missed = [
        f"current-state: {row}: {medians[row] / medians[DEBEZIUM]:.2f} of Debezium, expected at least {RATIO:g}"
        for row in (f"headrace, {client}, warm" for client in CLIENTS)
        if medians[row] < RATIO * medians[DEBEZIUM]
    ]
    return BenchResult(text, {"records": site.records, "records_per_s": speeds}, missed)


def _cold(site: Site, client: str) -> Speed:
    _clear(site)
    began = time.monotonic()
    _drain(site, client)
    _run(site, client, sys.executable, "-c", BUILD)
    seconds = time.monotonic() - began
    _check(site)
    return Speed(site.records, seconds)


def _warm(site: Site, client: str, pool: ProcessPoolExecutor) -> Speed:
    pool.submit(_seconds_of_build, site.settings).result()  # nothing new, but dbt is warm then
    _clear(site)
    _drain(site, client)
    seconds = pool.submit(_seconds_of_build, site.settings).result()
    _check(site)
    with site.connect() as connection:
        row = connection.execute(
            "select extract(epoch from max(committed_at) - min(started_at)) from headrace.batches "
            "where dataset = %s and kind = 'drain'",
            (TOPIC,),
        ).fetchone()
    assert row is not None
    return Speed(site.records, seconds + float(row[0]))


def _seconds_of_build(settings: Settings) -> float:
    began = time.monotonic()
    build(settings, select=SELECTED, tests=False)
    return time.monotonic() - began


def _clear(site: Site) -> None:
    deployment = Deployment.from_settings(site.settings)
    reset(deployment, deployment.dataset(TOPIC))
    with site.connect() as connection:
        connection.execute("drop schema if exists marts cascade")
        connection.execute("delete from headrace.claims")
    site.settle()


def _check(site: Site) -> None:
    with site.connect() as connection:
        found = connection.execute(
            "select (select count(*) from marts.jobs), (select count(distinct jobidentifier) from staging.jobs)"
        ).fetchone()
    assert found is not None
    assert found[0] == found[1] > 0, f"{found[0]} rows in the mart, {found[1]} keys were staged"


def _drain(site: Site, client: str) -> None:
    _run(site, client, HEADRACE, "drain", TOPIC, "--parallel", str(PROCESSES))


def _run(site: Site, client: str, *argv: str | Path) -> None:
    done = subprocess.run(argv, env=site.environ(client), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stdout[-1_000:]}{done.stderr[-1_000:]}")
