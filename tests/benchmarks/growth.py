"""What it costs to build new records, tests included, as the history grows; and what it cost with older code.

Three databases are built in turns with the same new records: a short and a long history with this tree's code, and the
short one with the code of an earlier commit (`--before`), if git has it. All histories have as many records a minute:
the longer one is longer in time. Each database has a process of its own in which dbt stays warm, as a task that
follows topics keeps it. All share one server, and nothing else runs.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from headrace.settings import ROOT
from tests.benchmarks import history
from tests.benchmarks.growth_site import GrowthSite
from tests.benchmarks.history import WORKLOADS, Workload
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.faults.servers import Servers

SHORT = 100_000
LIMIT = 1.2  # a build of the same new records may cost so many times as much with the long history
BEFORE_LIMIT = 1.05  # ... and with this code as with the older one: no slower, and medians vary by so much
# that grow with the records
MARTS_OF = {
    "jobs": ("jobs", "visitor_revenues"),
    "events": ("events",),
    "rides": ("rides",),
    "telemetry": ("telemetry",),
}


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Measure SHORT records of history against options.history; a ratio above a limit is a miss."""
    servers = Servers(("postgres",))
    with ExitStack() as stack:
        stack.callback(servers.close)
        servers.start()
        trees = {"short": ROOT, "long": ROOT}
        before = _older_tree(stack, options.before)
        if before is None:
            print_line(f"git has no commit {options.before} here: nothing is compared with older code")
        else:
            trees["before"] = before
        lengths = {name: options.history if name == "long" else SHORT for name in trees}
        sites = []
        for name, tree in trees.items():
            site = GrowthSite.start(name, servers.home / name, servers.database(name), tree)
            stack.callback(site.close)
            sites.append(site)
            spent = site.fill(lengths[name], list(WORKLOADS))
            told = ", ".join(f"{step} in {seconds:.0f} s" for step, seconds in spent.items())
            print_line(f"{name}: {lengths[name]} records of each of {', '.join(WORKLOADS)} {told}")
        for workload in WORKLOADS.values():
            _measure(sites, workload, options, print_line)
        return _outcome(sites, lengths, options)


def _older_tree(stack: ExitStack, commit: str) -> Path | None:
    """The files of a commit that a build needs, in a temporary folder."""
    archive = subprocess.run(
        ["git", "archive", commit, "dbt", "plugins", "data-files", "pyproject.toml"], cwd=ROOT, capture_output=True
    )
    if archive.returncode:
        return None
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-before-")))
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def _measure(sites: Sequence[GrowthSite], workload: Workload, options: Options, print_line: PrintLine) -> None:
    """Stage and build in turns, each time another site first; the first round is thrown away."""
    for number in range(options.rounds):
        first = number % len(sites)
        for site in [*sites[first:], *sites[:first]]:
            built = site.build_new(workload.dataset, options.records)
            if number:
                site.built.setdefault(workload.dataset, []).append(built)
            print_line(f"{workload.dataset}, round {number}, {site.name}: {built.seconds:.2f} s")


def _outcome(sites: Sequence[GrowthSite], lengths: dict[str, int], options: Options) -> BenchResult:
    seconds = {
        dataset: {site.name: [built.seconds for built in site.built[dataset]] for site in sites}
        for dataset in WORKLOADS
    }
    medians = {
        dataset: {name: Spread.of(of).median for name, of in found.items()} for dataset, found in seconds.items()
    }
    ratios = {dataset: found["long"] / found["short"] for dataset, found in medians.items()}
    to_before = {dataset: found["short"] / found["before"] for dataset, found in medians.items() if "before" in found}
    long = next(site for site in sites if site.name == "long")
    sizes = {dataset: _sizes(long, workload) for dataset, workload in WORKLOADS.items()}
    histories = [
        f"{length:,}" + (f" at {options.before[:9]}" if name == "before" else "") for name, length in lengths.items()
    ]
    rows = [
        [dataset, *(Spread.of(found[name]) for name in lengths), f"{ratios[dataset]:.2f}"]
        for dataset, found in seconds.items()
    ]
    text = "\n\n".join(
        [
            f"Building and testing {options.records:,} new records, seconds: median (least-most) of "
            f"{options.rounds - 1} warm builds, in turns, by history:",
            table(["dataset", *histories, "long / short"], rows),
            "The models of them, seconds:",
            table(["model", *histories, "long / short"], _model_rows(sites)),
            f"Bytes per staged record, {lengths['long']:,} of history:",
            table(["what", "bytes"], [row for dataset in WORKLOADS for row in _size_rows(dataset, sizes[dataset])]),
        ]
    )
    models = {
        site.name: {dataset: [built.models for built in site.built[dataset]] for dataset in WORKLOADS} for site in sites
    }
    figures = {
        "seconds": seconds,
        "ratios": ratios,
        "to_before": to_before,
        "models": models,
        "bytes_per_record": sizes,
    }
    missed = [
        f"growth: {dataset}: {ratio:.2f} times as much with {lengths['long']:,} of history, expected at most {LIMIT}"
        for dataset, ratio in ratios.items()
        if ratio > LIMIT
    ] + [
        f"growth: {dataset}: {ratio:.2f} times as much as at {options.before}, expected at most {BEFORE_LIMIT}"
        for dataset, ratio in to_before.items()
        if ratio > BEFORE_LIMIT
    ]
    return BenchResult(text, figures, missed)


def _model_rows(sites: Sequence[GrowthSite]) -> list[list[Any]]:
    """The models that a dataset's records reach, each with its seconds and the ratio of them."""
    rows = []
    for dataset in WORKLOADS:
        reached = [model for model, written in sites[0].built[dataset][0].rows.items() if written]
        for model in reached:
            spreads = [Spread.of([built.models.get(model, 0.0) for built in site.built[dataset]]) for site in sites]
            rows.append([model, *spreads, f"{spreads[1].median / spreads[0].median:.2f}"])
    return rows


def _sizes(site: GrowthSite, workload: Workload) -> dict[str, dict[str, float]]:
    """Relation to its parts to bytes per staged record; the payload is what the source sent."""
    staged = site.staged[workload.dataset]
    with site.connection() as connection:
        marts = {
            f"marts.{mart}": history.bytes_per_record(connection, "marts", mart, staged)
            for mart in MARTS_OF[workload.dataset]
        }
        staging = history.bytes_per_record(connection, "staging", workload.dataset, staged)
    return {"payload": {"value": workload.payload_bytes()}, f"staging.{workload.dataset}": staging, **marts}


def _size_rows(dataset: str, sizes: dict[str, dict[str, float]]) -> list[list[str]]:
    rows = []
    for relation, parts in sizes.items():
        whose = f"{dataset}: raw payload" if relation == "payload" else relation
        for part, size in parts.items():
            rows.append([whose if part in ("value", "table") else f"{whose} index {part}", f"{size:.0f}"])
    return rows
