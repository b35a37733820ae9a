"""Parts of a following Airflow killed under load: nothing is lost or doubled, and the marts catch up by themselves.

A run of minutes: `make kills`.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
import pytest

from tests.support.system import HEADRACE, System

pytestmark = pytest.mark.faults

PER_SECOND = 200
FRESH_S = 5.0  # while all is well it is about one
RECOVERY_LIMIT_S = 60.0
# of the newest record that marts.jobs has, by the broker's clock, which is this machine's
AGE = """
select extract(epoch from clock_timestamp() - max(b.last_record_at))::float8
from headrace.batches as b
where
    b.dataset = 'jobs'
    and b.seq <= (
        select c.to_seq
        from headrace.claims as c
        where c.schema = 'marts' and c.identifier = 'jobs' and c.dataset = 'jobs'
    )
"""


@dataclass(frozen=True, slots=True)
class FollowedLoad:
    """A producer, and follow_topics unpaused."""

    system: System

    def age_s(self) -> float:
        """How old the newest record of marts.jobs is."""
        ((age,),) = self.system.query(AGE)
        return float("inf") if age is None else float(age)

    def seconds_until_fresh(self, limit_s: float) -> float:
        """Wait until the mart is as fresh as usual."""
        began = time.monotonic()
        while (age := self.age_s()) > FRESH_S:
            waited = time.monotonic() - began
            assert waited < limit_s, f"marts.jobs is {age:.0f} s old {waited:.0f} s after the restart"
            time.sleep(0.2)
        return time.monotonic() - began

    def following_task(self) -> psutil.Process:
        """The process whose lease on jobs is fresh."""
        deadline = time.monotonic() + 90
        while not (held := self.system.query(
            "select holder_name from headrace.leases where dataset = 'jobs' and lapses_at > clock_timestamp()"
        )):  # fmt: skip
            assert time.monotonic() < deadline, "nobody follows jobs"
            time.sleep(0.2)
        return psutil.Process(int(held[0][0].rpartition(":")[2]))

    def service(self, part: str) -> psutil.Process:
        """One of Airflow's own processes."""
        return psutil.Process(int((self.system.home / "run" / f"airflow-{part}.pid").read_text().split()[0]))


@pytest.fixture(scope="module")
def load(system: System) -> Iterator[FollowedLoad]:
    system.headrace("load", "users")
    producer = subprocess.Popen(
        [HEADRACE, "produce", "jobs", "--sample", "--per-second", str(PER_SECOND), "--bad-percent", "1"],
        env=system.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pause(system, "follow_topics", False)
    try:
        ours = FollowedLoad(system)
        ours.following_task()
        ours.seconds_until_fresh(180)
        yield ours
        assert producer.poll() is None, "the producer ended early"
    finally:
        producer.send_signal(signal.SIGTERM)
        producer.wait(30)
        pause(system, "follow_topics", True)


def pause(system: System, dag_id: str, is_paused: bool) -> None:
    system.api._send("PATCH", f"/dags/{dag_id}", json={"is_paused": is_paused})


@pytest.mark.parametrize(
    "victim", ["following task", "worker", "scheduler", "api-server", "dag-processor", "triggerer"]
)
def test_marts_are_fresh_again_and_nothing_is_lost(load: FollowedLoad, victim: str) -> None:
    load.seconds_until_fresh(RECOVERY_LIMIT_S)
    if victim in ("following task", "worker"):
        task = load.following_task()
        process = task if victim == "following task" else task.parent()
        assert process is not None and process.pid != 1
        os.kill(process.pid, signal.SIGKILL)
    else:
        service = load.service(victim)
        os.kill(service.pid, signal.SIGKILL)
        time.sleep(3)
        load.system.headrace("up")
    time.sleep(FRESH_S + 1)  # what was fresh when it was killed no longer looks so
    seconds = load.seconds_until_fresh(RECOVERY_LIMIT_S)
    print(f"\n{victim} killed: fresh again {seconds + FRESH_S + 1:.0f} s after the restart")
    verify_deep(load.system)


def test_nothing_is_lost_or_doubled_at_the_end(load: FollowedLoad) -> None:
    verify_deep(load.system)
    ((staged, offsets),) = load.system.query(
        "select (select count(*) from staging.jobs), (select count(distinct (_partition, _offset)) from staging.jobs)"
    )
    assert staged == offsets > PER_SECOND * 60


def verify_deep(system: System) -> None:
    done = system.headrace("verify", "jobs", "--deep", "--json", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)
