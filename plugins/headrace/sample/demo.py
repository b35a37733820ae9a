"""The main job, end to end: `make demo` runs it, on this machine, through Airflow's own API."""

import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from headrace.catalog import dag_of
from headrace.command import Command
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError, PermanentError
from headrace.ingest.prepare import initialise
from headrace.local import services
from headrace.local.home import write_file
from headrace.logs import guard
from headrace.marts.claims import SCHEMA
from headrace.output import complain, shown
from headrace.postgres.connection import connector, database
from headrace.postgres.foreign_objects import refuse_foreign_objects
from headrace.private_files import replaced_file
from headrace.sample.airflow_api import AirflowApi
from headrace.sample.generate import SampleRecord, generate_records
from headrace.sample.produce import has_records, produce_files
from headrace.settings import ROOT, Settings

RECORDS = {"jobs": 200_000, "events": 20_000, "rides": 10_000, "telemetry": 20_000}
# per dataset the files to produce; lines of the second file are sent without keys
FILES = {
    "jobs": ("jobs.kafka", "jobs-keyless.kafka"),
    "events": ("events.keyed",),
    "rides": ("rides.sample.ndjson",),  # the real ones of rides.ndjson, then generated ones
    "telemetry": ("telemetry.ndjson",),
}
KEYLESS = 10_000  # jobs that are sent without keys; none of them is updated by another record
BAD_PERCENT = 1.0
SEED = 7
LOCATION = "LOC_1294"
DATASETS = ("users", *FILES)
TRANSACTIONAL_ID = "headrace-demo"  # fixed: the next demo aborts the transaction of one that was killed


class Demo:
    """The demo's stages and their durations."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self.settings = Settings.from_environment()

    def run(self) -> None:
        """Start, load, produce, drain, build, answer; raises HeadraceError if a stage fails."""
        with self._stage("services"):
            services.up(self.settings, only=("postgres",), print_line=self._say)
            initialise(Deployment.from_settings(Settings.from_environment()))
            services.up(self.settings, print_line=self._say)
        self.settings = Settings.from_environment()
        deployment = Deployment.from_settings(self.settings)
        api = AirflowApi.from_settings(self.settings)
        with self._stage("load users"):
            self._run_dag(api, "load_users")
        with self._stage("generate and produce"):
            for name in FILES:
                self._produce(deployment, name)
        with self._stage("drain"):
            shared = {name: deployment.dataset(name).dag for name in FILES}
            self._run_dags(api, sorted({dag_of(name, is_file=False, dag=dag) for name, dag in shared.items()}))
        with self._stage("build marts"):
            self._run_dag(api, "build_marts")
        with self._stage("answer"):
            answers = api.result(self._run_dag(api, "answer_case", {"location": LOCATION}), "answer")
        self._show_totals()
        self._show_datasets()
        self._show_answer(answers["top_users"])
        self._show_where()

    def _produce(self, deployment: Deployment, name: str) -> None:
        paths = [self.settings.data_dir / file for file in FILES[name]]
        self._write(name, paths)
        dataset = deployment.dataset(name)
        if has_records(deployment, dataset):
            self._say(f"{name}: has records already, nothing is produced")
            return
        with self._bar(f"producing {name}") as update:
            files = [(path, number > 0) for number, path in enumerate(paths)]
            transactional_id = f"{TRANSACTIONAL_ID}-{name}"
            sent = produce_files(deployment, dataset, files, transactional_id=transactional_id, on_progress=update)
        self._say(f"{name}: {sent} records in one transaction, from {' and '.join(map(_short, paths))}")

    def _records(self, name: str) -> Iterator[SampleRecord]:
        """The demo's records, the same every time; each knows whether and why it must be rejected."""
        real = (self.settings.data_dir / "rides.ndjson").read_bytes().splitlines() if name == "rides" else []
        yield from (SampleRecord(None, line) for line in real)
        yield from generate_records(name, RECORDS[name] - len(real), SEED, BAD_PERCENT, self.settings.data_dir)

    def _write(self, name: str, paths: list[Path]) -> None:
        """Write the files of a dataset, and the expected number of rejections per reason.

        Files without these numbers are from an earlier version, with other records.
        """
        account = _account_file(paths[0])
        if account.exists() and all(path.exists() for path in paths):
            return
        account.unlink(missing_ok=True)
        times = Counter(record.key for record in self._records(name)) if len(paths) > 1 else Counter()
        reasons: Counter[str] = Counter()
        entities = set()
        with ExitStack() as stack:
            files = [stack.enter_context(replaced_file(path)) for path in paths]
            for number, record in enumerate(self._records(name)):
                is_keyless = number >= RECORDS[name] - KEYLESS and times[record.key] == 1
                files[1 if is_keyless else 0].write(record.line)
                if record.reason is not None:
                    reasons[record.reason] += 1
                else:
                    entities.add(_entity(name, record) or number)
        sent = {"records": RECORDS[name], "reasons": reasons, "entities": len(entities)}
        write_file(account, json.dumps(sent))

    def _run_dags(self, api: AirflowApi, dag_ids: list[str]) -> None:
        """Run several DAGs at once."""
        with self._bar(f"Airflow runs {', '.join(dag_ids)}"):
            for run in [api.trigger(dag_id, {}) for dag_id in dag_ids]:
                api.wait(run)
        self._say(f"{', '.join(dag_ids)}: success")

    def _run_dag(self, api: AirflowApi, dag_id: str, conf: dict[str, Any] | None = None) -> tuple[str, str]:
        with self._bar(f"Airflow runs {dag_id}"):
            run = api.trigger(dag_id, conf or {})
            api.wait(run)
        self._say(f"{dag_id}: success")
        return run

    def _show_totals(self) -> None:
        users = self._rows_in_mart("users")
        with self._database() as connection:
            totals = connection.execute(
                """
                select
                    coalesce(sum(b.end_offset - b.start_offset - b.empty), 0),
                    coalesce(sum(b.staged), 0),
                    coalesce(sum(b.dead), 0),
                    coalesce(extract(epoch from max(b.committed_at) - min(b.started_at)), 0)
                from headrace.batches as b
                where b.dataset = 'jobs' and b.kind = 'drain'
                """
            ).fetchone()
            reasons = connection.execute(
                "select reason, count(*) from headrace.dead_letters where dataset = 'jobs' "
                "group by reason order by count(*) desc, reason"
            ).fetchall()
        assert totals is not None
        produced, staged, dead, drain_seconds = totals
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_row("users", f"{users:,}")
        table.add_row("records produced", f"{produced:,}")
        table.add_row("staged", f"{staged:,}")
        table.add_row("dead letters", f"{dead:,}")
        for reason, count in reasons:
            table.add_row(Text(f"  {shown(reason)}"), f"{count:,}")
        if drain_seconds:
            table.add_row("drained, rows per second", f"{float(produced) / float(drain_seconds):,.0f}")
        for stage, seconds in self.seconds.items():
            table.add_row(f"{stage}, seconds", f"{seconds:.1f}")
        self.console.print()
        self.console.print(table)

    def _show_datasets(self) -> None:
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        for heading in ("dataset", "records", "staged", "dead letters", "rows in its mart"):
            table.add_column(heading, justify="left" if heading == "dataset" else "right")
        with self._database() as connection:
            for name in DATASETS:
                row = connection.execute(
                    "select coalesce(sum(end_offset - start_offset - empty), 0), coalesce(sum(staged), 0), "
                    "coalesce(sum(dead), 0) from headrace.batches where dataset = %s and kind in ('drain', 'load')",
                    (name,),
                ).fetchone()
                assert row is not None
                table.add_row(name, *(f"{figure:,}" for figure in (*row, self._rows_in_mart(name))))
            for name in FILES:
                self._compare(connection, name)
        with self._marts() as connection:
            hours = dict(connection.execute("select hour, revenue from marts.rides_per_hour").fetchall())
        self.console.print()
        self.console.print(table)
        self.console.print(
            "\nas the producers say: every good record is staged, every bad one a dead letter with its reason",
            soft_wrap=True,
        )
        if self._rows_in_mart("rides") == self._sent("rides")["entities"]:
            self._compare_rides(hours)

    def _sent(self, name: str) -> dict[str, Any]:
        account: dict[str, Any] = json.loads(_account_file(self.settings.data_dir / FILES[name][0]).read_text())
        return account

    def _compare(self, connection: Connection[Any], name: str) -> None:
        """Raise PermanentError if a dataset differs from the sent records.

        A dataset with records from elsewhere is not compared.
        """
        sent = self._sent(name)
        found = connection.execute(
            "select coalesce(sum(end_offset - start_offset - empty), 0)::bigint, coalesce(sum(staged), 0)::bigint, "
            "(select coalesce(jsonb_object_agg(reason, records), '{}') from (select reason, count(*) as records "
            "from headrace.dead_letters where dataset = %(name)s group by reason) as dead) "
            "from headrace.batches where dataset = %(name)s and kind = 'drain'",
            {"name": name},
        ).fetchone()
        assert found is not None
        records, staged, reasons = found
        if records != sent["records"]:
            self._say(f"{name}: holds {records} records, the demo sent {sent['records']}: not compared")
            return
        expected = (sent["records"] - sum(sent["reasons"].values()), sent["reasons"], sent["entities"])
        entities = self._rows_in_mart(name)
        if (staged, reasons, entities) != expected:
            verify = Command("verify", name, "--deep")
            raise PermanentError(
                f"{name}: found {staged} staged, dead letters {reasons} and {entities} in marts.{name}, expected "
                f"{expected[0]}, {expected[1]} and {expected[2]}, as sent; run `{verify}`",
                command=verify,
            )

    def _compare_rides(self, found: dict[datetime, Decimal]) -> None:
        path = self.settings.data_dir / FILES["rides"][0]
        expected: defaultdict[datetime, Decimal] = defaultdict(Decimal)
        for record in self._records("rides"):
            if record.reason is None:
                ride = json.loads(record.value, parse_float=Decimal)
                hour = ride["tpep_pickup_datetime"] // 3_600_000 * 3_600
                expected[datetime.fromtimestamp(hour, UTC)] += Decimal(ride["total_amount"])
        differing = sorted(hour for hour in {*found, *expected} if found.get(hour) != expected.get(hour))
        if differing:
            raise PermanentError(
                f"rides: marts.rides_per_hour has {found.get(differing[0])} in hour {differing[0]}, {_short(path)} has "
                f"{expected.get(differing[0])}; run `headrace verify rides --deep`",
                command=Command("verify", "rides", "--deep"),
            )
        total = sum(found.values())
        line = f"\nrides: {total:,.2f} of revenue in {len(found)} hours, each as in {_short(path)}"
        self.console.print(line, soft_wrap=True)

    def _show_answer(self, rows: list[dict[str, str]]) -> None:
        self.console.print(f"\nselect * from marts.top_users('{LOCATION}');\n", highlight=False, markup=False)
        table = Table(box=None, pad_edge=False, padding=(0, 2))
        table.add_column("userid", justify="right")
        table.add_column("revenue", justify="right")
        for row in rows:
            table.add_row(row["userid"], row["revenue"])
        self.console.print(table)

    def _show_where(self) -> None:
        known = services.environment(self.settings)
        lines = (
            "",
            f"psql        {_short(Path(sys.executable).with_name('headrace'))} psql",
            f"Airflow     {known['HEADRACE_AIRFLOW_URL']}",
            f"user        {known['HEADRACE_AIRFLOW_USER']}",
            f"password    in {_short(Path(known['HEADRACE_AIRFLOW_PASSWORD_FILE']))}",
            "stop        make down",
        )
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _rows_in_mart(self, name: str) -> int:
        with self._marts() as connection:
            row = connection.execute(SQL("select count(*) from marts.{}").format(Identifier(name))).fetchone()
        return int(row[0]) if row else 0

    @contextmanager
    def _marts(self) -> Iterator[Connection[Any]]:
        """A connection with dbt's rights, to read the marts."""
        with database(connector(self.settings.require_dbt_dsn(), "headrace demo")) as connection:
            refuse_foreign_objects(connection, SCHEMA, "demo")
            yield connection

    def _database(self) -> AbstractContextManager[Connection[Any]]:
        return database(connector(self.settings.require_postgres_dsn(), "headrace demo"))

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        self.console.print(f"[bold]{name}[/bold]")
        yield
        self.seconds[name] = time.monotonic() - began

    @contextmanager
    def _bar(self, label: str) -> Iterator[Any]:
        if not self.console.is_terminal:
            yield lambda _done, _total: None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description} {task.percentage:>3.0f}%"), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as bar:
            task = bar.add_task(label, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def _say(self, line: str) -> None:
        self.console.print(f"  {shown(line)}", highlight=False, markup=False, soft_wrap=True)


def _account_file(path: Path) -> Path:
    return path.with_suffix(".sent.json")


def _entity(name: str, record: SampleRecord) -> object:
    """The key of a valid record's row in its mart; None if each record is a row."""
    field = {"jobs": "JOBIDENTIFIER", "rides": None}.get(name, "event_id")
    return str(json.loads(record.value)[field]) if field else None


def _short(path: Path) -> str:
    """A path relative to the checkout, as a user would type it."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)


def main() -> None:
    """Run the demo; an error is one line and status 1."""
    guard()
    try:
        Demo(Console()).run()
    except HeadraceError as error:
        complain(f"headrace: {error}")
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
