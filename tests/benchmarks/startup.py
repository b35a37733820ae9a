"""What a command costs that has little or nothing to do, and the memory of one that has a lot to do."""

import subprocess
import sys
import time
from contextlib import ExitStack

from headrace.deployment import Deployment
from headrace.repair.generations import reset
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.benchmarks.site import HEADRACE, TOPIC, Site, filled
from tests.benchmarks.throughput import CLIENTS
from tests.faults.servers import Servers

# a process begins with the peak of the one that forked it: so a small one stands between
WATCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
HELP, IDLE, MEMORY = "headrace --help, s", "headrace drain, nothing new, s", "headrace drain, all, peak MB"
LIMITS = {HELP: 0.3, IDLE: 0.6, MEMORY: 250.0}


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Per client: --help, a drain of the whole topic, and drains with nothing new."""
    found: dict[str, dict[str, list[float]]] = {client: {row: [] for row in LIMITS} for client in CLIENTS}
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.close)
        servers.start()
        site = filled(servers, options.topic_records, print_line)
        deployment = Deployment.from_settings(site.settings)
        for client, rows in found.items():
            reset(deployment, deployment.dataset(TOPIC))
            rows[MEMORY].append(_drain_peak_mb(site, client))
            print_line(f"{client}: {rows[MEMORY][0]:.0f} MB")
            for _ in range(options.rounds):
                rows[HELP].append(_seconds(site, client, "--help"))
                rows[IDLE].append(_seconds(site, client, "drain", TOPIC))
    medians = {client: {row: Spread.of(values) for row, values in rows.items()} for client, rows in found.items()}
    text = f"{site.records:,} jobs in the topic, median (least-most) of {options.rounds}:\n\n" + table(
        ["what", *CLIENTS, "limit"],
        [[row, *(str(medians[client][row]) for client in CLIENTS), f"{limit:g}"] for row, limit in LIMITS.items()],
    )
    missed = [
        f"startup: {row}, {client}: {medians[client][row].median:.2f}, expected at most {limit:g}"
        for client in CLIENTS
        for row, limit in LIMITS.items()
        if medians[client][row].median > limit
    ]
    return BenchResult(text, found, missed)


def _seconds(site: Site, client: str, *words: str) -> float:
    began = time.monotonic()
    subprocess.run([HEADRACE, *words], env=site.environ(client), check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _drain_peak_mb(site: Site, client: str) -> float:
    argv = [sys.executable, "-S", "-c", WATCHER, str(HEADRACE), "drain", TOPIC]
    done = subprocess.run(argv, env=site.environ(client), check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) * 1024 / 1e6
