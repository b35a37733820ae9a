"""Drains on two Celery workers, one of them killed: nothing is lost or doubled. `make celery`.

CELERY_ROUNDS kills (20), by CELERY_SEED (a new one each time, printed).
"""

import json
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.celery_workers import Cluster, cluster, waited

pytestmark = pytest.mark.faults

RECORDS = 80_000  # of a round, in four partitions
PARTITIONS = 4
WORKERS = ("worker-1", "worker-2")
ROUNDS = int(os.environ.get("CELERY_ROUNDS") or 20)
SEED = int(os.environ.get("CELERY_SEED") or random.SystemRandom().randrange(10**6))
ATTEMPTS_MAX = 5  # of a round: a kill that came too late is no round
RUN_LIMIT_S = 240.0
DECLARATION = Path(__file__).resolve().parents[2] / "plugins" / "datasets" / "jobs.py"
SPEED = """
select
    sum(staged + dead)::float8 / extract(epoch from max(committed_at) - min(started_at))::float8 as per_second,
    sum(staged + dead) as records
from headrace.batches
where run_id = '{run_id}'
"""


@dataclass(frozen=True, slots=True)
class CeleryLoad:
    """A cluster, and a file of jobs that is produced again and again."""

    cluster: Cluster
    file: Path

    def produce(self) -> None:
        """Another RECORDS records, visible all at once."""
        self.cluster.headrace("produce", "jobs", str(self.file), "--transactional-id", "celery")

    def run(self) -> str:
        """Trigger ingest_jobs; the run's id."""
        return self.cluster.api.trigger("ingest_jobs", {})[1]

    def stored(self) -> int:
        """Rows and dead letters."""
        ((count,),) = self.cluster.query(
            "select (select count(*) from staging.jobs) + "
            "(select count(*) from headrace.dead_letters where dataset = 'jobs')"
        )
        return int(count)

    def verify(self, expected: int) -> None:
        """Every record that was produced is stored once: counted here, and compared one by one by verify --deep."""
        assert self.stored() == expected
        done = self.cluster.headrace("verify", "jobs", "--deep", "--json", check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)


@pytest.fixture(scope="module")
def load(session_home: Path) -> Iterator[CeleryLoad]:
    home = session_home / "celery"
    datasets = home / "datasets"
    datasets.mkdir(parents=True)
    home.chmod(0o755)
    # a share for each slot of two workers, and no run of the schedule's between ours
    text = DECLARATION.read_text().replace("partitions=3", f"partitions={PARTITIONS}")
    (datasets / "jobs.py").write_text(text.replace("DATASET = Dataset(", "DATASET = Dataset(\n    schedule_s=86_400,"))
    with cluster(home, datasets) as ours:
        file = home / "jobs.kafka"
        ours.headrace("generate", "jobs", "--records", str(RECORDS), "--bad-percent", "1", "--out", str(file))
        loaded = CeleryLoad(ours, file)
        loaded.produce()
        ours.start_workers(WORKERS)
        run_id = loaded.run()  # waits until the DAG is there
        ours.api._send("PATCH", "/dags/ingest_jobs", json={"is_paused": False})
        ours.api.wait(("ingest_jobs", run_id))
        yield loaded


def test_mapped_drains_are_spread_over_both_workers(load: CeleryLoad) -> None:
    before = load.stored()
    load.produce()
    run_id = load.run()
    load.cluster.api.wait(("ingest_jobs", run_id))
    drains = load.cluster.drains(run_id)
    assert len(drains) == PARTITIONS
    assert {drain["hostname"] for drain in drains} == set(WORKERS), drains
    load.verify(before + RECORDS)


def test_worker_killed_mid_drain_loses_and_doubles_nothing(load: CeleryLoad) -> None:
    print(f"\nCELERY_SEED={SEED}")
    chance = random.Random(SEED)
    for number in range(1, ROUNDS + 1):
        for _ in range(ATTEMPTS_MAX):
            if kill_round(load, number, chance):
                break
        else:
            raise AssertionError(f"round {number}: no kill hit a drain in {ATTEMPTS_MAX} attempts")


def kill_round(load: CeleryLoad, number: int, chance: random.Random) -> bool:
    """Produce, drain, kill a worker at a random moment, start it again, verify; whether a drain was hit."""
    ours = load.cluster
    before = load.stored()
    load.produce()
    victim, whole = chance.choice(WORKERS), chance.random() < 0.7
    run_id = load.run()

    def running() -> list[dict[str, Any]]:
        return [d for d in ours.drains(run_id) if d["hostname"] == victim and d["state"] == "running"]

    waited(running, RUN_LIMIT_S, f"no drain of {run_id} runs on {victim}: {ours.drains(run_id)}")
    time.sleep(chance.uniform(0, 2.5))
    hit = running()
    stored = load.stored() - before
    ours.kill_worker(victim, whole=whole)
    killed_at = time.monotonic()
    time.sleep(chance.uniform(0, 5))
    ours.start_workers([victim])
    ours.api.wait(("ingest_jobs", run_id))
    seconds = time.monotonic() - killed_at
    again = [
        drain["map_index"]
        for drain in ours.drains(run_id)
        if any(drain["map_index"] == d["map_index"] and drain["try_number"] > d["try_number"] for d in hit)
    ]
    load.verify(before + RECORDS)
    # the main process alone takes its pool's idle processes with it, a drain may live on to its end
    counts = bool(again) or (bool(hit) and not whole)
    print(
        f"round {number}: {victim}{' and all its processes' if whole else ', its main process,'} killed, {len(hit)} "
        f"drains running, {stored:,} of {RECORDS:,} stored; {len(again)} done again; all stored {seconds:.0f} s later, "
        f"verified{'' if counts else '; came too late, not counted'}",
        flush=True,
    )
    return counts


def test_throughput_of_two_workers_against_one(load: CeleryLoad) -> None:
    ours = load.cluster
    speeds: dict[int, list[float]] = {1: [], 2: []}
    try:
        for workers in (1, 2, 1, 2):
            ours.stop_workers(WORKERS[workers:])
            for _ in range(3):
                load.produce()
            run_id = load.run()
            ours.api.wait(("ingest_jobs", run_id))
            assert {drain["hostname"] for drain in ours.drains(run_id)} == set(WORKERS[:workers])
            ((per_second, records),) = ours.query(SPEED.format(run_id=run_id))
            assert records == 3 * RECORDS
            speeds[workers].append(per_second)
            if workers == 1:
                ours.start_workers(WORKERS[1:])
    finally:
        ours.stop_workers(WORKERS[1:])
        ours.start_workers(WORKERS[1:])
    print(
        f"\n{os.cpu_count()} processors, {PARTITIONS} partitions, 2 tasks a worker: one worker "
        f"{max(speeds[1]):,.0f} records/s, two workers {max(speeds[2]):,.0f}"
    )
