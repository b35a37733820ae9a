"""What 300 datasets cost that share one DAG: an idle minute of Airflow, and how fresh twenty busy ones are kept.

Airflow runs once with an empty DAG folder and once with the project's file; the difference is Headrace's share. CPU is
that of every process of the home: Airflow, its tasks, Postgres and Kafka.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, LiteralString

import psutil
import psycopg
from kafka import KafkaAdminClient, KafkaProducer
from psycopg.sql import SQL, Composed, Identifier

from headrace.settings import ROOT, Settings
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table

DATASETS, BUSY = 300, 20
PARTITIONS = 3
ALONE_MINUTES, IDLE_MINUTES = 3, 5  # in five minutes check_freshness runs once, and build_marts every other time
SETTLE_S = 90  # after a start of Airflow: files are parsed, processes have grown
PER_SECOND = 1  # records of each busy dataset
IDLE_LIMIT_S = 2.0
SCHEDULER_LIMIT = 0.20  # of a core
FRESH_LIMIT_S = 90.0
FIRST_RUN_LIMIT_S = 600.0
HEADRACE = str(Path(sys.executable).with_name("headrace"))
AGES = SQL(
    "select extract(epoch from b.committed_at - s._timestamp)::float8 from {} as s "
    "inner join headrace.batches as b on b.batch_id = s._batch_id where s._timestamp > %s"
)
DAG_FILE = """from pathlib import Path

from headrace.airflow import dags

globals().update(dags(datasets=Path(__file__).resolve().parents[1] / "datasets"))
"""
MODELS = {  # a mart of one dataset; the others are in staging alone
    "marts/first.sql": "{{ config(unique_key='event_id') }}\nselect event_id, event_time from {{ ref('stg_first') }}\n",
    "staging/stg_first.sql": "select * from {{ current('many_000') }}\n",
    "staging/stg_first.yml": "sources: [{name: staging, schema: staging, tables: "
    "[{name: many_000, config: {meta: {key: event_id}}}]}]\n",
}
# CPU seconds of a process that has imported Airflow, as the one that parses DAG files has
PARSE = """
import sys, time
import airflow.sdk, airflow.serialization.serialized_objects
from headrace.airflow import dags
began = time.process_time()
made = dags(sys.argv[1])
first = time.process_time() - began
began = time.process_time()
dags(sys.argv[1])
print(first, time.process_time() - began)
"""


@dataclass(frozen=True, slots=True)
class Minute:
    """CPU seconds a minute, by component."""

    spent: Mapping[str, float]

    @property
    def total(self) -> float:
        """Of all components."""
        return sum(self.spent.values())


class Site:
    """A home with its services and a project of DATASETS datasets."""

    def __init__(self, home: Path) -> None:
        self.project, self.home = home / "project", home / "home"
        self.names = [f"many_{number:03}" for number in range(DATASETS)]
        self.busy = self.names[:: DATASETS // BUSY][:BUSY]
        self.environment = {**os.environ, "HEADRACE_PROJECT": str(self.project), "HEADRACE_HOME": str(self.home)}
        self._declare()

    def _declare(self) -> None:
        """The events of this project under other names, in a project of `headrace new`."""
        subprocess.run([HEADRACE, "new", str(self.project)], check=True, stdout=subprocess.DEVNULL)
        for path in (*(self.project / "dags").iterdir(), *(self.project / "datasets").glob("*.py")):
            path.unlink()
        for path in (self.project / "dbt" / "models").rglob("*"):
            if path.is_file():
                path.unlink()  # the example's
        for name, text in MODELS.items():
            (self.project / "dbt" / "models" / name).write_text(text)
        events = (ROOT / "plugins" / "datasets" / "events.py").read_text()
        for name in self.names:
            text = re.sub(r', dead_letter_topic="events_dlq"', "", events).replace('"events"', f'"{name}"')
            (self.project / "datasets" / f"{name}.py").write_text(
                text.replace("Dataset(\n", 'Dataset(\n    dag="many",\n')
            )

    def headrace(self, *arguments: str) -> None:
        """Run a command."""
        subprocess.run([HEADRACE, *arguments], env=self.environment, check=True, stdout=subprocess.DEVNULL)

    @property
    def settings(self) -> Settings:
        """Of the services that run."""
        own = {"HEADRACE_PROJECT": str(self.project), "HEADRACE_HOME": str(self.home)}
        return Settings.from_environment(own)

    def query(self, statement: LiteralString | Composed, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows from Headrace's database."""
        with psycopg.connect(self.settings.require_postgres_dsn(), autocommit=True) as connection:
            return connection.execute(statement, parameters).fetchall()

    def use_dags(self) -> None:
        """Give Airflow the DAG file."""
        (self.project / "dags" / "headrace.py").write_text(DAG_FILE)

    def create_topics(self) -> None:
        """A topic for each dataset, with one record."""
        servers = self.settings.require_kafka_bootstrap_servers()
        admin = KafkaAdminClient(bootstrap_servers=servers)
        admin.create_topics({name: {"num_partitions": PARTITIONS} for name in self.names}, wait_for_metadata=True)
        admin.close()
        with self.producer() as send:
            for name in self.names:
                send(name, 0)

    @contextmanager
    def producer(self) -> Iterator[Callable[[str, int], None]]:
        """A function that sends an event to a topic."""
        client = KafkaProducer(bootstrap_servers=self.settings.require_kafka_bootstrap_servers(), acks="all")

        def send(name: str, number: int) -> None:
            event = {"event_id": f"{name}-{number}", "event_type": "click", "user_id": "u"}
            now = datetime.now(UTC).isoformat()
            client.send(name, value=json.dumps(event | {"event_time": now}).encode(), partition=number % PARTITIONS)

        try:
            yield send
        finally:
            client.flush()
            client.close()

    def spent(self) -> dict[str, float]:
        """CPU seconds of each component until now; ended children are counted by their parents."""
        found: dict[str, float] = {}
        for path in (self.home / "run").glob("*.pid"):
            try:
                process = psutil.Process(int(path.read_text().split()[0]))
                family = process.children(recursive=True)
                own = process.cpu_times()
            except (psutil.NoSuchProcess, ValueError):
                continue
            found[path.stem] = own.user + own.system
            below = own.children_user + own.children_system
            for child in family:
                try:
                    below += sum(child.cpu_times()[:4])
                except psutil.NoSuchProcess:
                    continue
            found["tasks" if path.stem == "airflow-scheduler" else f"{path.stem}, children"] = below
        return found

    def measure(self, minutes: int) -> Minute:
        """CPU seconds of a minute, the mean of some."""
        before, began = self.spent(), time.monotonic()
        time.sleep(60 * minutes)
        after, passed = self.spent(), (time.monotonic() - began) / 60
        return Minute({name: max(after[name] - before.get(name, 0.0), 0.0) / passed for name in after})


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Airflow alone, an idle shared DAG, then BUSY busy datasets; IDLE_LIMIT_S, SCHEDULER_LIMIT, FRESH_LIMIT_S hold."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-many-")))
        home.chmod(0o755)  # Postgres runs as another user
        site = Site(home)
        stack.callback(site.headrace, "down")
        print_line(f"{DATASETS} topics of {PARTITIONS} partitions, and their tables")
        site.headrace("up", "--only", "postgres", "--only", "kafka")
        site.create_topics()
        site.headrace("init")
        parse = _parse(site)
        print_line("Airflow with an empty DAG folder")
        site.headrace("up")
        time.sleep(SETTLE_S)
        alone = site.measure(ALONE_MINUTES)
        site.use_dags()
        print_line("the DAG's first runs: every dataset's first contact")
        first_s = _first_runs(site)
        time.sleep(SETTLE_S)
        print_line(f"{IDLE_MINUTES} idle minutes")
        idle = site.measure(IDLE_MINUTES)
        print_line(f"{BUSY} busy datasets for {options.seconds} s")
        fresh = _freshness(site, options.seconds)
    return _outcome(alone, idle, fresh, parse, first_s)


def _outcome(
    alone: Minute, idle: Minute, fresh: tuple[float, float, int], parse: list[float], first_s: float
) -> BenchResult:
    share, scheduler = idle.total - alone.total, idle.spent["airflow-scheduler"] / 60
    rows = [[name, f"{alone.spent.get(name, 0):.2f}", f"{idle.spent[name]:.2f}"] for name in sorted(idle.spent)]
    rows.append(["all", f"{alone.total:.2f}", f"{idle.total:.2f}"])
    found: list[list[Any]] = [
        ["Headrace's share of an idle minute, CPU s", f"{share:.2f}", IDLE_LIMIT_S],
        ["the scheduler, of a core", f"{scheduler:.3f}", SCHEDULER_LIMIT],
        [f"{BUSY} busy datasets, broker to staging, p95 s", f"{fresh[1]:.1f}", FRESH_LIMIT_S],
        ["the same, median s", f"{fresh[0]:.1f}", ""],
        ["making all DAGs, first and again in a process, CPU s", " and ".join(f"{s:.2f}" for s in parse), ""],
        ["first contact with all topics, s", f"{first_s:.0f}", ""],
    ]
    text = "\n\n".join(
        [
            f"{DATASETS} idle datasets in one DAG that runs every minute, CPU seconds a minute:",
            table(["component", "Airflow alone", "with the DAG"], rows),
            table(["", "found", "limit"], found),
        ]
    )
    figures = {
        "share_s": share,
        "alone_s": dict(alone.spent),
        "idle_s": dict(idle.spent),
        "scheduler_cores": scheduler,
        "fresh_s": {"median": fresh[0], "p95": fresh[1], "records": fresh[2]},
        "parse_s": parse,
        "first_contact_s": first_s,
    }
    return BenchResult(text, figures, _missed(share, scheduler, fresh[1]))


def _parse(site: Site) -> list[float]:
    """CPU seconds that making the DAGs takes: in a new process, and again; medians of three."""
    command = [sys.executable, "-c", PARSE, str(site.project / "datasets")]
    environment = site.environment | {"AIRFLOW_HOME": str(site.home / "parse"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    found = []
    for _ in range(3):
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        found.append([float(word) for word in done.stdout.split()[-2:]])
    return [Spread.of(column).median for column in zip(*found, strict=True)]


def _first_runs(site: Site) -> float:
    """Wait until every dataset is read; seconds from the first commit to the last."""
    deadline = time.monotonic() + FIRST_RUN_LIMIT_S
    while time.monotonic() < deadline:
        ((read, seconds),) = site.query(
            "select count(distinct dataset), extract(epoch from max(committed_at) - min(started_at))::float8 "
            "from headrace.batches where staged > 0"
        )
        if read == DATASETS:
            return float(seconds)
        time.sleep(1)
    raise AssertionError(f"{read} of {DATASETS} datasets were read within {FIRST_RUN_LIMIT_S:.0f} s")


def _freshness(site: Site, seconds: int) -> tuple[float, float, int]:
    """Median, 95th percentile and number of the records that were produced after the first minute, in seconds."""
    stop = Event()

    def produce() -> None:
        number = 1
        with site.producer() as send:
            while not stop.wait(1 / PER_SECOND):
                for name in site.busy:
                    send(name, number)
                number += 1

    began, producing = datetime.now(UTC) + timedelta(minutes=1), Thread(target=produce)
    producing.start()
    time.sleep(seconds + 60)
    stop.set()
    producing.join()
    ended = datetime.now(UTC)
    deadline = time.monotonic() + 300
    while site.query("select 1 from headrace.status where next_offset < end_offset limit 1") or _unseen(site, ended):
        assert time.monotonic() < deadline, "the last records were not read within 300 s"
        time.sleep(5)
    ages: list[float] = []
    for name in site.busy:
        ages += [age for (age,) in site.query(AGES.format(Identifier("staging", name)), began)]
    ages.sort()
    assert len(ages) > BUSY * seconds * PER_SECOND * 0.8, f"{len(ages)} records were measured"
    return ages[len(ages) // 2], ages[int(len(ages) * 0.95)], len(ages)


def _unseen(site: Site, ended: datetime) -> bool:
    """Whether a source was not looked at since then."""
    ((oldest,),) = site.query("select min(observed_at) from headrace.observations")
    return bool(oldest < ended)


def _missed(share: float, scheduler: float, fresh_s: float) -> list[str]:
    missed = []
    if share > IDLE_LIMIT_S:
        missed.append(f"many: an idle minute costs {share:.2f} s, expected at most {IDLE_LIMIT_S}")
    if scheduler > SCHEDULER_LIMIT:
        missed.append(f"many: the scheduler takes {scheduler:.2f} of a core, expected {SCHEDULER_LIMIT}")
    if fresh_s > FRESH_LIMIT_S:
        missed.append(f"many: p95 from broker to staging is {fresh_s:.0f} s, expected at most {FRESH_LIMIT_S:.0f}")
    return missed
