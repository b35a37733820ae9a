"""A process that fills one database and builds it, with dbt kept warm; growth.py tells it what to do, a line at a time.

PYTHONPATH decides whose code it runs: this tree's, or an older one's, which is to be compared with it. The history is
always this tree's. Lines are JSON: {"do": "fill", ...} and so on; each is answered by one line.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.settings import ROOT, Settings
from tests.benchmarks import history
from tests.benchmarks.history import WORKLOADS


class GrowthWorker:
    """A database's settings, and how many records of each dataset are staged in it."""

    def __init__(self, home: Path, dsn: str) -> None:
        self.settings = Settings(home=home, postgres_dsn=dsn)
        self.dsn = dsn
        self.staged: dict[str, int] = {}

    def fill(self, records: int) -> dict[str, float]:
        """Stage the history, build it once, and leave the tables as autovacuum would after a while; seconds of each."""
        deployment = Deployment.from_settings(self.settings)
        initialise(deployment)
        load_file(deployment, "users", path=ROOT / "data-files" / "users.ndjson")
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            history.prepare(connection)
        began = time.monotonic()
        for dataset in WORKLOADS:
            self.stage(dataset, records)
        staged_at = time.monotonic()
        self.build(False)
        built_at = time.monotonic()
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("vacuum analyze")
            connection.execute("checkpoint")
        return {
            "staged": staged_at - began,
            "built": built_at - staged_at,
            "vacuumed": time.monotonic() - built_at,
        }

    def stage(self, dataset: str, records: int) -> None:
        """Stage so many more records."""
        first = self.staged.get(dataset, 0)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            history.stage(connection, WORKLOADS[dataset], first, first + records)
        self.staged[dataset] = first + records

    def build(self, tests: bool) -> dict[str, Any]:
        """`headrace build`: seconds in all, and of each model its seconds and the rows that it wrote."""
        began = time.monotonic()
        result = build(self.settings, tests=tests)
        seconds = time.monotonic() - began
        nodes = [node for nodes in result.passes for node in nodes if node.kind == "model"]
        assert nodes, "a build found nothing to do: nothing was measured"
        failed = [f"{node.model}: {node.message or node.failed_tests}" for node in nodes if node.status != "success"]
        assert not failed, failed
        models: dict[str, float] = {}
        rows: dict[str, int] = {}
        for node in nodes:
            models[node.model] = models.get(node.model, 0.0) + node.seconds
            rows[node.model] = rows.get(node.model, 0) + (node.rows or 0)
        return {"seconds": seconds, "models": models, "rows": rows}


def main() -> None:
    """Answer what comes in, until the input ends; dbt's own output goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = GrowthWorker(Path(sys.argv[1]), sys.argv[2])
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(worker, asked.pop("do"))(**asked)
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
