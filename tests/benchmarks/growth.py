"""What it costs to build new records as the history grows: two databases, built in turns, the same records new.

Both histories have as many records a minute: the longer one is longer in time. Each database has a process of its own
in which dbt stays warm, as a task that follows topics keeps it. Both share one server, and nothing else runs.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any

import psycopg

from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.settings import ROOT, Settings
from tests.benchmarks import history
from tests.benchmarks.history import WORKLOADS, Workload
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.faults.servers import Servers

SHORT = 100_000
LIMIT = 1.3  # a build of the same new records may cost so many times as much with the long history
MARTS_OF = {"jobs": ("jobs", "visitor_revenues"), "events": ("events",)}  # that grow with the records


@dataclass(frozen=True, slots=True)
class Built:
    """A build: seconds in all, and of each model its seconds and the rows that it wrote."""

    seconds: float
    models: dict[str, float]
    rows: dict[str, int]


def timed_build(settings: Settings, tests: bool = False) -> Built:
    """`headrace build` in this process."""
    began = time.monotonic()
    result = build(settings, tests=tests)
    seconds = time.monotonic() - began
    nodes = [node for nodes in result.passes for node in nodes if node.kind == "model"]
    assert nodes, "a build found nothing to do: nothing was measured"
    return Built(seconds, {node.model: node.seconds for node in nodes}, {node.model: node.rows or 0 for node in nodes})


@dataclass
class GrowthSite:
    """A database with a history, and the process that builds it."""

    name: str
    settings: Settings
    pool: ProcessPoolExecutor
    staged: dict[str, int] = field(default_factory=dict)
    built: dict[str, list[Built]] = field(default_factory=dict)
    tested: Built | None = None

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """Autocommit."""
        with psycopg.connect(self.settings.require_postgres_dsn(), autocommit=True) as connection:
            yield connection

    def stage(self, workload: Workload, records: int) -> None:
        """Stage so many more records."""
        first = self.staged.get(workload.dataset, 0)
        with self.connection() as connection:
            history.stage(connection, workload, first, first + records)
        self.staged[workload.dataset] = first + records

    def build(self, tests: bool = False) -> Built:
        """A build in the site's own process."""
        return self.pool.submit(timed_build, self.settings, tests).result()


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Measure SHORT records of history against options.history; a ratio above LIMIT is a miss."""
    servers = Servers(("postgres",))
    with ExitStack() as stack:
        stack.callback(servers.close)
        servers.start()
        lengths = {"short": SHORT, "long": options.history}
        sites = [_site(stack, servers, name) for name in lengths]
        for site in sites:
            _fill(site, lengths[site.name], print_line)
        for workload in WORKLOADS.values():
            _measure(sites, workload, options, print_line)
        for site in sites:
            site.tested = _build_new(site, WORKLOADS["jobs"], options.records, tests=True)
            print_line(f"jobs, with the data tests, {site.name}: {site.tested.seconds:.2f} s")
        return _outcome(sites, lengths, options)


def _site(stack: ExitStack, servers: Servers, name: str) -> GrowthSite:
    home = servers.home / name
    home.mkdir()
    pool = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
    return GrowthSite(name, Settings(home=home, postgres_dsn=servers.database(name)), pool)


def _fill(site: GrowthSite, records: int, print_line: PrintLine) -> None:
    """Stage the history, build it once, and leave the tables as autovacuum would after a while."""
    deployment = Deployment.from_settings(site.settings)
    initialise(deployment)
    load_file(deployment, "users", path=ROOT / "data-files" / "users.ndjson")
    with site.connection() as connection:
        history.prepare(connection)
    began = time.monotonic()
    for workload in WORKLOADS.values():
        site.stage(workload, records)
    staged_at = time.monotonic()
    site.build()
    built_at = time.monotonic()
    with site.connection() as connection:
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
    print_line(
        f"{site.name}: {records} records of {', '.join(WORKLOADS)} each staged in {staged_at - began:.0f} s, built in "
        f"{built_at - staged_at:.0f} s, vacuumed in {time.monotonic() - built_at:.0f} s"
    )


def _measure(sites: Sequence[GrowthSite], workload: Workload, options: Options, print_line: PrintLine) -> None:
    """Stage and build in turns, the other site first every second round; the first round is thrown away."""
    for number in range(options.rounds):
        for site in sites if number % 2 else reversed(sites):
            built = _build_new(site, workload, options.records)
            if number:
                site.built.setdefault(workload.dataset, []).append(built)
            print_line(f"{workload.dataset}, round {number}, {site.name}: {built.seconds:.2f} s")


def _build_new(site: GrowthSite, workload: Workload, records: int, tests: bool = False) -> Built:
    site.stage(workload, records)
    built = site.build(tests)
    written = built.rows[workload.dataset]
    assert 0.8 * records < written <= records, f"{site.name}: {written} rows of {workload.dataset} built, not {records}"
    return built


def _outcome(sites: Sequence[GrowthSite], lengths: dict[str, int], options: Options) -> BenchResult:
    seconds = {
        dataset: {site.name: [built.seconds for built in site.built[dataset]] for site in sites}
        for dataset in WORKLOADS
    }
    ratios = {
        dataset: Spread.of(found["long"]).median / Spread.of(found["short"]).median
        for dataset, found in seconds.items()
    }
    sizes = {dataset: _sizes(sites[-1], workload) for dataset, workload in WORKLOADS.items()}
    rows = [
        [dataset, *(Spread.of(found[name]) for name in lengths), f"{ratios[dataset]:.2f}"]
        for dataset, found in seconds.items()
    ]
    tested = {site.name: site.tested.seconds for site in sites if site.tested}
    rows.append(["jobs, with the data tests, once", *(f"{tested[name]:.0f}" for name in lengths), ""])
    histories = [f"{length:,} of history" for length in lengths.values()]
    text = "\n\n".join(
        [
            f"Building {options.records:,} new records, seconds: median (least-most) of {options.rounds - 1} warm "
            "builds, in turns:",
            table(["dataset", *histories, "ratio"], rows),
            "The models of them, seconds:",
            table(["model", *histories, "ratio"], _model_rows(sites)),
            f"Bytes per staged record, {lengths['long']:,} of history:",
            table(["what", "bytes"], [row for dataset in WORKLOADS for row in _size_rows(dataset, sizes[dataset])]),
        ]
    )
    figures = {
        "seconds": seconds,
        "ratios": ratios,
        "models": {
            site.name: {dataset: [built.models for built in site.built[dataset]] for dataset in WORKLOADS}
            for site in sites
        },
        "seconds_with_data_tests": tested,
        "bytes_per_record": sizes,
    }
    missed = [
        f"growth: {dataset}: {ratio:.2f} times as much with {lengths['long']:,} of history, expected at most {LIMIT}"
        for dataset, ratio in ratios.items()
        if ratio > LIMIT
    ]
    return BenchResult(text, figures, missed)


def _model_rows(sites: Sequence[GrowthSite]) -> list[list[Any]]:
    """The models that a dataset's records reach, each with its seconds and the ratio of them."""
    rows = []
    for dataset in WORKLOADS:
        reached = [model for model, written in sites[0].built[dataset][0].rows.items() if written]
        for model in reached:
            short, long = (Spread.of([built.models[model] for built in site.built[dataset]]) for site in sites)
            rows.append([model, short, long, f"{long.median / short.median:.2f}"])
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
