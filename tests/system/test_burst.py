"""Many asset events while build_marts runs: none is left over."""

import json
import time
from pathlib import Path

from headrace.deployment import Deployment
from headrace.ingest.runner import drain_plan, plan
from tests.support.system import System

EVENTS = 25
PER_EVENT = 20  # records
UNCLAIMED = """
select c.identifier, c.dataset, c.to_seq, d.last_seq
from headrace.claims as c
inner join headrace.datasets as d using (dataset)
where c.schema = 'marts' and c.to_seq < d.last_seq
"""


def test_nothing_is_unclaimed_once_the_last_build_has_ended(system: System, tmp_path: Path) -> None:
    api = system.api
    path = tmp_path / "rides.ndjson"
    system.headrace("generate", "rides", "--records", str(EVENTS * PER_EVENT), "--seed", "5", "--out", str(path))
    api._send("PATCH", "/dags/ingest_rides", json={"is_paused": True})  # each batch is to be ours
    try:
        system.headrace("produce", "rides", str(path))
        assets = api._send("GET", "/assets?limit=100")["assets"]
        (asset,) = [asset["id"] for asset in assets if asset["name"] == "staging/rides"]
        deployment = Deployment.from_settings(system.settings)
        rides = deployment.dataset("rides")
        began = len(runs(system))
        drained = 0
        for _ in range(EVENTS):
            planned = plan(deployment, rides).limited(PER_EVENT)
            drained += drain_plan(deployment, rides, planned).records
            api._send("POST", "/assets/events", json={"asset_id": asset})
        assert drained == EVENTS * PER_EVENT
        deadline = time.monotonic() + 180
        while True:
            seen = runs(system)
            assert time.monotonic() < deadline, json.dumps(seen[:3])
            if len(seen) > began and not any(run["state"] in ("queued", "running") for run in seen):
                time.sleep(5)
                if runs(system) == seen:  # it was the last one
                    break
            time.sleep(0.2)
        assert system.query(UNCLAIMED) == []
        assert not any(run["state"] == "failed" for run in runs(system))
    finally:
        api._send("PATCH", "/dags/ingest_rides", json={"is_paused": False})


def runs(system: System) -> list[dict[str, str]]:
    found = system.api._send("GET", "/dags/build_marts/dagRuns?order_by=-run_after&limit=100")["dag_runs"]
    return [{"run": run["dag_run_id"], "state": run["state"]} for run in found]
