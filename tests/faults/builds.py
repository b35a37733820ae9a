"""Trials in which `headrace build` is killed while it writes a model."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.settings import Settings
from tests.faults.evidence import Stream
from tests.faults.loaders import ROOT, TimedOut
from tests.faults.sandbox import Sandbox
from tests.faults.trials import Fault, TrialRun
from tests.support.warehouse import MARTS, Warehouse

# a session of dbt that builds a model: not the one that holds the build lock
WORKING = """
select pid, wait_event_type
from pg_stat_activity
where
    datname = current_database() and application_name = 'headrace-build' and xact_start is not null
    and query !~* '(build_lock|model_locks|^release|^set local)'
"""


class BuildSandbox(Sandbox):
    """A sandbox for builds, with users and a single stream, the dataset jobs."""

    def new_stream(self, partitions: int = 3) -> Stream:
        """The dataset jobs; the same for all trials, because marts are built from all of its records."""
        if self._streams:
            self.stream.users = 0
            return self.stream
        stream = super().new_stream(partitions)
        folder = self._folder / "datasets"
        declared = (folder / f"{stream.name}.py").read_text().replace(f'name="{stream.name}"', 'name="jobs"')
        (folder / f"{stream.name}.py").unlink()
        (folder / "jobs.py").write_text(declared)
        for path in (ROOT / "plugins" / "datasets").glob("*.py"):  # models also read the others, which are empty
            if path.name != "jobs.py":
                shutil.copy(path, folder)
        stream.name = "jobs"
        self.deployment = Deployment.from_settings(
            Settings(
                home=self._folder, postgres_dsn=self.dsn, datasets_dir=folder, data_dir=self._folder, dbt_threads=1
            )
        )
        initialise(self.deployment)
        self.warehouse = Warehouse(self.deployment.settings, self.dsn)
        self._users = self.users_file.read_text().splitlines()
        return stream

    def move_users(self, trial_run: TrialRun) -> None:
        """Load the users file with some users at another location."""
        rng = trial_run.rng
        for _ in range(3):
            number = rng.randrange(len(self._users))
            userid = self._users[number].rpartition(":")[2]
            location = self._users[rng.randrange(len(self._users))].split('"')[3]
            self._users[number] = f'{{"LOCATION":"{location}","USERID":{userid}'
        self.users_file.write_text("\n".join(self._users) + "\n")
        load_file(self.deployment, "users", path=self.users_file)

    def start_build(self) -> "subprocess.Popen[bytes]":
        """Run `headrace build` like a task."""
        settings = self.deployment.settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
        with (self._folder / "build.log").open("ab") as output:
            return subprocess.Popen(
                [str(Path(sys.executable).parent / "headrace"), "build"],
                env=environment
                | {
                    "HEADRACE_HOME": str(settings.home),
                    "HEADRACE_POSTGRES_DSN": self.dsn,
                    "HEADRACE_DATASETS_DIR": str(settings.datasets_dir),
                    "HEADRACE_DBT_THREADS": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )


def build_killed(trial_run: TrialRun) -> None:
    """Kill dbt while it writes a model; then build without a fault and compare the marts with the oracle."""
    sandbox = trial_run.sandbox
    assert isinstance(sandbox, BuildSandbox)
    trial_run.send(least=40)
    sandbox.move_users(trial_run)
    ended = trial_run.run()
    trial_run.expect("8 no lag", ended.how == "done", f"the drain ended with {ended.text}, expected done")
    model = trial_run.trial.step
    exists = sandbox.warehouse.value("select to_regclass(%s) is not null", f"marts.{model}")
    gated = exists and trial_run.trial.nth == 1
    with ExitStack() as stack:
        if gated:  # the model can be read, but its merge waits for the lock
            gate = stack.enter_context(psycopg.connect(sandbox.dsn, application_name="faults gate"))
            gate.execute(f"lock table marts.{model} in share mode".encode())
        process = sandbox.start_build()
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_until_at_work(sandbox, process, blocked=gated)
        if not gated:
            time.sleep(trial_run.rng.uniform(0, 0.5))
        trial_run.verdict.fired = process.poll() is None
    trial_run.verdict.notes = f"killed {'at ' + model if gated else 'somewhere'}"
    _wait_until_no_build_runs(sandbox)
    if trial_run.rng.random() < 0.5:
        trial_run.send(least=10)
        trial_run.run()
    _build_and_compare(trial_run, full_refresh=False)
    if trial_run.trial.nth == 3:
        _build_and_compare(trial_run, full_refresh=True)


def _build_and_compare(trial_run: TrialRun, *, full_refresh: bool) -> None:
    sandbox = trial_run.sandbox
    assert isinstance(sandbox, BuildSandbox)
    build(sandbox.deployment.settings, tests=not full_refresh, full_refresh=full_refresh)
    found, expected = sandbox.warehouse.marts(), sandbox.warehouse.expected()
    for name in MARTS:
        wrong = sorted(found[name] ^ expected[name], key=repr)[:3]
        told: list[Any] = [("extra" if row in found[name] else "missing", row) for row in wrong]
        trial_run.expect(
            "5 6 marts", not wrong, f"marts.{name} (full refresh: {full_refresh}): {told}, expected the oracle's rows"
        )
    last = sandbox.warehouse.value("select last_seq from headrace.datasets where dataset = 'jobs'")
    for (name, dataset), to_seq in sandbox.warehouse.claims().items():
        trial_run.expect(
            "5 6 marts", dataset != "jobs" or to_seq == last, f"marts.{name} has claimed {to_seq}, expected {last}"
        )


def _wait_until_at_work(sandbox: Sandbox, process: "subprocess.Popen[bytes]", *, blocked: bool) -> None:
    deadline = time.monotonic() + 240
    while process.poll() is None:
        sessions = sandbox.sql.execute(WORKING.encode()).fetchall()
        if any(not blocked or waits_for == "Lock" for _, waits_for in sessions):
            return
        if time.monotonic() > deadline:
            raise TimedOut("a build did not begin to work on a model")
        time.sleep(0.01)


def _wait_until_no_build_runs(sandbox: Sandbox) -> None:
    deadline = time.monotonic() + 30
    ours = "datname = current_database() and application_name = 'headrace-build'"
    while sandbox.sql.execute(f"select from pg_stat_activity where {ours} limit 1".encode()).fetchone() is not None:
        if time.monotonic() > deadline:
            raise TimedOut("30 s after a build was killed its sessions are still there")
        time.sleep(0.05)


BUILDS: dict[str, Fault] = {"build_killed": build_killed}
