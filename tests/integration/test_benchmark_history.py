"""The history that benchmarks stage: independent of the batch size, with a complete ledger."""

from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.prepare import initialise
from headrace.settings import ROOT, Settings
from tests.benchmarks import history
from tests.benchmarks.history import WORKLOADS


@pytest.mark.parametrize("dataset", WORKLOADS)
def test_history_staged_in_two_parts_is_the_one_staged_at_once(database: str, session_home: Path, dataset: str) -> None:
    deployment = Deployment.from_settings(Settings(home=session_home, postgres_dsn=database))
    initialise(deployment)
    load_file(deployment, "users", path=ROOT / "data-files" / "users.ndjson")
    workload = WORKLOADS[dataset]
    with psycopg.connect(database, autocommit=True) as connection:

        def staged() -> list[tuple[Any, ...]]:
            return connection.execute(
                f"select to_jsonb(s) - '_batch_id' from staging.{dataset} as s order by _partition, _offset".encode()
            ).fetchall()

        history.prepare(connection)
        history.stage(connection, workload, 0, 1_001)
        history.stage(connection, workload, 1_001, 3_000)
        rows = staged()
        ledger = connection.execute(
            "select partition, min(start_offset), max(end_offset), sum(staged), count(*), "
            "bool_and(staged = (select count(*) from "
            f"staging.{dataset} as s where s._batch_id = b.batch_id and s._partition = b.partition)) "
            "from headrace.batches as b where dataset = %s group by 1 order by 1",
            (dataset,),
        ).fetchall()
        assert ledger == [(partition, 0, 1_000, 1_000, 2, True) for partition in range(history.PARTITIONS)]
        connection.execute(f"truncate staging.{dataset}, headrace.batches cascade".encode())
        connection.execute("update headrace.datasets set last_seq = 0")
        history.stage(connection, workload, 0, 3_000)
        assert staged() == rows
    updates = len(rows) - len({row[0]["jobidentifier" if dataset == "jobs" else "event_id"] for row in rows})
    assert updates == pytest.approx(len(rows) * workload.percent / 100, rel=0.3)
