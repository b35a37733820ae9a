"""The main job, end to end: `make demo` runs it, on this machine, through Airflow's own API."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from headrace.airflow_api import AirflowApi
from headrace.database import connector, database
from headrace.exceptions import HeadraceError
from headrace.generate import generate_jobs
from headrace.ingest import Deployment, initialise
from headrace.local import services
from headrace.produce import has_records, produce
from headrace.settings import ROOT, Settings

RECORDS = 200_000
BAD_PERCENT = 1.0
SEED = 7
LOCATION = "LOC_1294"
TRANSACTIONAL_ID = "headrace-demo"  # fixed: a demo that was killed while it produced is aborted by the next


class Demo:
    """The demo's stages; each leaves its seconds behind."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self.settings = Settings.from_environment()

    def run(self) -> None:
        """Start, load, produce, drain, build, answer; raises HeadraceError when something refuses."""
        with self._stage("services"):
            services.up(self.settings, only=("postgres",), report=self._say)
            initialise(Deployment.from_settings(Settings.from_environment()))
            services.up(self.settings, report=self._say)
        self.settings = Settings.from_environment()
        deployment = Deployment.from_settings(self.settings)
        api = AirflowApi.from_settings(self.settings)
        with self._stage("load users"):
            self._run_dag(api, "load_users")
        with self._stage("generate and produce jobs"):
            self._produce(deployment)
        with self._stage("drain jobs"):
            self._run_dag(api, "ingest_jobs")
        with self._stage("build marts"):
            self._run_dag(api, "build_marts")
        with self._stage("answer"):
            answers = api.result(self._run_dag(api, "answer_case", {"location": LOCATION}), "answer")
        self._show_totals(deployment)
        self._show_answer(answers["top_users"])
        self._show_where()

    def _produce(self, deployment: Deployment) -> None:
        path = self.settings.data_dir / "jobs.kafka"
        if not path.exists():
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                file.writelines(generate_jobs(RECORDS, SEED, BAD_PERCENT, self.settings.data_dir / "users.ndjson"))
            partial.replace(path)
        dataset = deployment.dataset("jobs")
        config = deployment.kafka()
        if has_records("jobs", config):
            self._say("the topic jobs has records already: nothing is produced")
            return
        with self._bar("producing") as update:
            sent = produce(dataset, config, path, transactional_id=TRANSACTIONAL_ID, progress=update)
        self._say(f"{sent} records in one transaction to the topic jobs, from {_short(path)}")

    def _run_dag(self, api: AirflowApi, dag_id: str, conf: dict[str, Any] | None = None) -> tuple[str, str]:
        with self._bar(f"Airflow runs {dag_id}"):
            run = api.trigger(dag_id, conf or {})
            api.wait(run)
        self._say(f"{dag_id}: success")
        return run

    def _show_totals(self, deployment: Deployment) -> None:
        with database(connector(self.settings.require_postgres_dsn(), "headrace demo")) as connection:
            totals = connection.execute(
                """
                select
                    (select count(*) from marts.users),
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
        users, produced, staged, dead, drain_seconds = totals
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
        table.add_column()
        table.add_column(justify="right")
        table.add_row("users", f"{users:,}")
        table.add_row("records produced", f"{produced:,}")
        table.add_row("staged", f"{staged:,}")
        table.add_row("dead letters", f"{dead:,}")
        for reason, count in reasons:
            table.add_row(f"  {reason}", f"{count:,}")
        if drain_seconds:
            table.add_row("drained, rows per second", f"{float(produced) / float(drain_seconds):,.0f}")
        for stage, seconds in self.seconds.items():
            table.add_row(f"{stage}, seconds", f"{seconds:.1f}")
        self.console.print()
        self.console.print(table)

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
        self.console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


def _short(path: Path) -> str:
    """A path as the reader would type it from the checkout."""
    try:
        return str(path.relative_to(ROOT))
    except ValueError:
        return str(path)


def main() -> None:
    """Run the demo; one line and status 1 when something refuses."""
    try:
        Demo(Console()).run()
    except HeadraceError as error:
        click.echo(f"headrace: {' '.join(str(error).split())}", err=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
