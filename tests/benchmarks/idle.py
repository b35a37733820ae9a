"""What twenty datasets cost while nothing happens: one pass over all of them, following them, Airflow's scheduler."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from headrace.settings import ROOT
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table

DATASETS = 20
SAMPLED = ("events", "jobs", "rides", "telemetry")
PASSES = 7
AIRFLOW_S = 180
PASS_LIMIT_S = 1.0
SCHEDULER_LIMIT = 0.20  # of a core
HEADRACE = str(Path(sys.executable).with_name("headrace"))

# as `headrace follow` and the tasks do it: every dataset planned, then the build asked for what there is to do
PASS = """
import json, sys, time
from headrace.marts.build import build
from headrace.dataset import dataset_names, load_dataset
from headrace.ingest.runner import plan
from headrace.deployment import Deployment
from headrace.settings import Settings
settings = Settings.from_environment()
deployment = Deployment.from_settings(settings)
datasets = [load_dataset(settings.datasets_dir, name) for name in dataset_names(settings.datasets_dir)]
topics = [dataset for dataset in datasets if not dataset.source.is_file]
for _ in range(int(sys.argv[1])):
    wall, cpu = time.monotonic(), time.process_time()
    assert not any(plan(deployment, dataset).ranges for dataset in topics), "a dataset is not idle"
    assert not build(settings).passes, "a build had something to do"
    print(json.dumps([len(topics), time.monotonic() - wall, time.process_time() - cpu, "dbt" in sys.modules]))
"""


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Passes, then a follower and Airflow side by side with nothing to do; PASS_LIMIT_S and SCHEDULER_LIMIT hold."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headrace-idle-")))
        home.chmod(0o755)  # Postgres runs as another user
        declarations = _declarations(home / "datasets")
        ours = {"HEADRACE_HOME": str(home / "home"), "HEADRACE_DATASETS_DIR": str(home / "datasets")}
        environment = {**os.environ, **ours}

        def headrace(*arguments: str) -> None:
            subprocess.run([HEADRACE, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)

        stack.callback(headrace, "down")
        print_line(f"{len(declarations)} topics and streams, one record each")
        headrace("up", "--only", "postgres", "--only", "kafka", "--only", "redis")
        headrace("init")
        for name in declarations:
            if name in SAMPLED:
                headrace("produce", name, "--sample", "--records", "1", "--per-second", "1000", "--bad-percent", "0")
            else:
                _produce_event(name, home, headrace)
            headrace("drain", name)
        headrace("build")
        print_line("passes")
        passes = _passes(environment)
        assert passes[0][0] == len(declarations)
        wall, work = Spread.of([p[1] for p in passes]), Spread.of([p[2] for p in passes])
        started_dbt = any(p[3] for p in passes)
        print_line(f"following for {AIRFLOW_S // 3} s")
        following = _follow(environment)
        print_line("Airflow, a run of every dataset each minute")
        headrace("up")
        time.sleep(75)  # files parsed, first runs done
        airflow = _airflow(home / "home")
    text = f"{len(passes)} passes over {len(declarations)} idle topics and streams, then {AIRFLOW_S} s of Airflow:\n\n"
    text += table(
        ["", "median (least-most)"],
        [
            ["a pass over all, s", wall],
            ["of it work in our process, s", work],
            ["dbt started", "yes" if started_dbt else "no"],
            ["`headrace follow`, of a core", f"{following:.3f}"],
            ["Airflow's scheduler, of a core", f"{airflow['scheduler']:.3f}"],
            ["all of Airflow with its tasks, of a core", f"{sum(airflow.values()):.3f}"],
        ],
    )
    figures = {"pass_s": wall.median, "work_s": work.median, "follow_cores": following, "airflow_cores": airflow}
    return BenchResult(text, figures, _missed(work.median, started_dbt, airflow["scheduler"]))


def _passes(environment: dict[str, str]) -> list[list[Any]]:
    """Per pass: datasets, seconds, seconds of it in our process, whether dbt was started."""
    command = [sys.executable, "-c", PASS, str(PASSES)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def _missed(work_s: float, started_dbt: bool, scheduler: float) -> list[str]:
    missed = []
    if work_s > PASS_LIMIT_S:
        missed.append(f"idle: a pass costs {work_s:.2f} s, expected at most {PASS_LIMIT_S}")
    if started_dbt:
        missed.append("idle: a pass started dbt, expected that it does not")
    if scheduler > SCHEDULER_LIMIT:
        missed.append(f"idle: the scheduler takes {scheduler:.2f} of a core, expected {SCHEDULER_LIMIT}")
    return missed


def _declarations(folder: Path) -> list[str]:
    """The datasets of this project, and the events under other names until there are DATASETS topics and streams."""
    ours = ROOT / "plugins" / "datasets"
    folder.mkdir()
    for path in ours.glob("*.py"):
        (folder / path.name).write_text(path.read_text())
    names = [path.stem for path in ours.glob("*.py") if path.stem not in ("__init__", "users")]
    events = (ours / "events.py").read_text()
    for number in range(1, DATASETS - len(names) + 1):
        name = f"idle_{number:02}"
        text = re.sub(r', dead_letter_topic="events_dlq"', "", events).replace('"events"', f'"{name}"')
        (folder / f"{name}.py").write_text(text)
        names.append(name)
    return names


def _produce_event(name: str, home: Path, headrace: Callable[..., None]) -> None:
    path = home / "event.ndjson"
    path.write_text(
        json.dumps({"event_id": name, "event_type": "idle", "event_time": "2026-01-01T00:00:00Z", "user_id": "idle"})
        + "\n"
    )
    headrace("produce", name, str(path))


def _follow(environment: dict[str, str]) -> float:
    """Cores that `headrace follow` takes for all datasets while nothing arrives."""
    follower = subprocess.Popen([HEADRACE, "follow"], env=environment, stdout=subprocess.DEVNULL)
    try:
        time.sleep(20)
        process = psutil.Process(follower.pid)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(AIRFLOW_S // 3)
        return float(sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
    finally:
        follower.send_signal(signal.SIGTERM)
        follower.wait(30)


def _airflow(home: Path) -> dict[str, float]:
    """Cores that each of Airflow's processes takes; `tasks` are the children of the scheduler, ended ones included."""
    parts = ("scheduler", "api-server", "dag-processor", "triggerer")
    pids = {part: int((home / "run" / f"airflow-{part}.pid").read_text().split()[0]) for part in parts}

    def spent() -> dict[str, float]:
        found: dict[str, float] = {"tasks": 0.0}
        for part, pid in pids.items():
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            times = [process.cpu_times() for process in family]
            found[part] = sum(times[0][:2])
            # children that have ended are counted by their parents, those that live here
            children = sum(times[0][2:4]) + sum(sum(each[:4]) for each in times[1:])
            found["tasks" if part == "scheduler" else part] += children
        return found

    before, began = spent(), time.monotonic()
    time.sleep(AIRFLOW_S)
    after, seconds = spent(), time.monotonic() - began
    return {part: (after[part] - before[part]) / seconds for part in after}
