"""What Airflow's own providers offer for it: a consumer loop and PostgresHook.insert_rows."""

import json
import os
import subprocess
import sys
import time
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from tests.benchmarks.site import COLUMNS, PEER_TABLE, Site, Speed

COMMIT_EVERY = 1_000  # insert_rows' default


def insert_rows(site: Site, records: int) -> Speed:
    """In a process of its own: importing Airflow sets up logging, and reads its configuration."""
    records = min(records, site.records)
    site.peer_table()
    found = conninfo_to_dict(site.dsn)
    address = f"{found['user']}:{quote(site.password)}@{found['host']}:{found['port']}/{found['dbname']}"
    environ = os.environ | {
        "AIRFLOW_HOME": str(site.settings.home / "airflow-bench"),
        "AIRFLOW_CONN_BENCH": f"postgresql://{address}",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
    }
    argv = [sys.executable, "-m", __name__, site.bootstrap_servers, str(records)]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"airflow: {done.stderr[-2_000:]}")
    return Speed(records, float(done.stdout.split()[-1]))


def _main(bootstrap_servers: str, records: int) -> float:
    from airflow.providers.postgres.hooks.postgres import PostgresHook
    from kafka import KafkaConsumer

    hook = PostgresHook(postgres_conn_id="bench")
    hook.get_conn().close()  # what the first connection imports is not counted
    consumer = KafkaConsumer("jobs", bootstrap_servers=bootstrap_servers, group_id=None, auto_offset_reset="earliest")
    began, left = time.monotonic(), records
    while left:
        rows = []
        for polled in consumer.poll(timeout_ms=1_000, max_records=left).values():
            rows += [[json.loads(record.value)[name.upper()] for name, _ in COLUMNS] for record in polled]
        left -= len(rows)
        columns = [name for name, _ in COLUMNS]
        hook.insert_rows(PEER_TABLE, rows, columns, commit_every=COMMIT_EVERY)
    return time.monotonic() - began


if __name__ == "__main__":
    print(_main(sys.argv[1], int(sys.argv[2])))
