"""Topic to a table of current state, one row per key: ours by way of staging and dbt, a sink's by upsert.

Both from an empty database: ours is `headrace drain jobs` with three processes, then `headrace build` of the mart, both
whole commands; Debezium's is from its first row to its last, its start not counted.
"""

import subprocess
import time
from contextlib import ExitStack

from headrace.ingest import Deployment, reset
from headrace.settings import ROOT
from tests.benchmarks.outcome import Options, Outcome, Report, Spread, table
from tests.benchmarks.peers import debezium
from tests.benchmarks.site import HEADRACE, TOPIC, Site, Speed, filled
from tests.benchmarks.throughput import CLIENTS
from tests.faults.servers import Servers

DEBEZIUM = "Debezium JDBC sink, upsert by key"
RATIO = 2.0  # of Debezium's speed
PROCESSES = 3


def run(options: Options, report: Report) -> Outcome:
    """In turns; a client whose ratio is below RATIO is a miss."""
    speeds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.close)
        servers.start()
        site = filled(servers, options.topic_records, report)
        _headrace(site, CLIENTS[0], "load", "users", str(ROOT / "data-files" / "users.ndjson"))
        for number in range(options.rounds):
            for client in CLIENTS:
                _keep(speeds, number, options, f"headrace, {client}", _ours(site, client), report)
            site.settle()
            _keep(speeds, number, options, DEBEZIUM, debezium.upsert(site, debezium.CURRENT_STATE), report)
    medians = {row: Spread.of(values).median for row, values in speeds.items()}
    rows = [
        [row, f"{median:,.0f}", *(f"{value:,.0f}" for value in (min(speeds[row]), max(speeds[row]))),
         f"{median / medians[DEBEZIUM]:.2f}"]
        for row, median in medians.items()
    ]  # fmt: skip
    text = f"{site.records:,} jobs, records per second:\n\n" + table(
        ["topic to current state", "median", "least", "most", "of Debezium"], rows
    )
    missed = [
        f"current-state: {row}: {median / medians[DEBEZIUM]:.2f} of Debezium, expected at least {RATIO:g}"
        for row, median in medians.items()
        if row != DEBEZIUM and median < RATIO * medians[DEBEZIUM]
    ]
    return Outcome(text, {"records": site.records, "records_per_s": speeds}, missed)


def _keep(
    speeds: dict[str, list[float]], number: int, options: Options, row: str, speed: Speed, report: Report
) -> None:
    report(f"round {number}, {row}: {speed.per_second:,.0f}/s")
    if number or options.rounds == 1:  # the first round warms up
        speeds.setdefault(row, []).append(speed.per_second)


def _ours(site: Site, client: str) -> Speed:
    deployment = Deployment.from_settings(site.settings)
    reset(deployment, deployment.dataset(TOPIC))
    with site.connect() as connection:
        connection.execute("drop schema if exists marts cascade")
        connection.execute("delete from headrace.claims")
    site.settle()
    began = time.monotonic()
    _headrace(site, client, "drain", TOPIC, "--parallel", str(PROCESSES))
    _headrace(site, client, "build", "--select", "stg_kafka__jobs", "jobs")
    seconds = time.monotonic() - began
    with site.connect() as connection:
        found = connection.execute(
            "select (select count(*) from marts.jobs), (select count(distinct jobidentifier) from staging.jobs)"
        ).fetchone()
    assert found is not None
    assert found[0] == found[1] > 0, f"{found[0]} rows in the mart, {found[1]} keys were staged"
    return Speed(site.records, seconds)


def _headrace(site: Site, client: str, *words: str) -> None:
    done = subprocess.run([HEADRACE, *words], env=site.environ(client), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"headrace {' '.join(words)}: {done.stdout[-1_000:]}{done.stderr[-1_000:]}")
