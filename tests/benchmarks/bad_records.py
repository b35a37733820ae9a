"""What bad records cost: the same jobs drained in turns, clean ones and with one in a hundred broken."""

from contextlib import ExitStack
from pathlib import Path

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.ingest.runner import drain_plan, plan
from headrace.repair.generations import reset
from headrace.sample.generate import generate
from headrace.sample.produce import produce
from headrace.settings import ROOT, Settings
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.faults.servers import Servers

RECORDS = 200_000
BAD_PERCENT = {"clean": 0.0, "1 % bad": 1.0}
LIMIT = 0.8  # of the clean records' speed


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Drain each topic in turns into an empty table; a ratio below LIMIT is a miss."""
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.close)
        servers.start()
        sites = {name: _site(servers, name, percent) for name, percent in BAD_PERCENT.items()}
        speeds: dict[str, list[float]] = {name: [] for name in sites}
        dead: dict[str, int] = {}
        for number in range(options.rounds):
            for name in sites if number % 2 else reversed(sites):
                deployment, dataset = sites[name], sites[name].dataset("jobs")
                reset(deployment, dataset)
                result = drain_plan(deployment, dataset, plan(deployment, dataset))
                assert result.records == RECORDS
                dead[name] = result.dead
                print_line(
                    f"round {number}, {name}: {result.records / result.seconds:,.0f} records/s, {result.dead} dead"
                )
                if number:  # the first round warms up
                    speeds[name].append(result.records / result.seconds)
    ratio = Spread.of(speeds["1 % bad"]).median / Spread.of(speeds["clean"]).median
    rows = [[name, f"{dead[name]:,}", *(f"{v:,.0f}" for v in _figures(speeds[name]))] for name in sites]
    text = (
        f"{RECORDS:,} jobs drained by one process, records per second over {options.rounds - 1} rounds:\n\n"
        + table(["jobs", "dead letters", "median", "least", "most"], rows)
        + f"\n\nratio {ratio:.2f}"
    )
    missed = [f"bad-records: {ratio:.2f} of the clean speed, expected at least {LIMIT}"] if ratio < LIMIT else []
    return BenchResult(text, {"records_per_s": speeds, "ratio": ratio}, missed)


def _figures(values: list[float]) -> tuple[float, float, float]:
    spread = Spread.of(values)
    return spread.median, spread.least, spread.most


def _site(servers: Servers, name: str, percent: float) -> Deployment:
    """A deployment of its own database's tables, whose jobs come from a topic of its own."""
    folder = servers.home / ("clean" if not percent else "bad")
    (folder / "datasets").mkdir(parents=True)
    topic = f"jobs_{folder.name}"
    declared = (ROOT / "plugins" / "datasets" / "jobs.py").read_text()
    (folder / "datasets" / "jobs.py").write_text(declared.replace('topic="jobs"', f'topic="{topic}"'))
    settings = Settings(
        home=folder,
        postgres_dsn=servers.database(folder.name),
        kafka_bootstrap_servers=servers.address("kafka"),
        datasets_dir=folder / "datasets",
    )
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    path: Path = folder / "jobs.kafka"
    with path.open("wb") as file:
        file.writelines(generate("jobs", RECORDS, 1, percent, ROOT / "data-files"))
    produce(deployment, deployment.dataset("jobs"), path)
    return deployment
