"""One topic of jobs and one database, for whoever is measured."""

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from kafka import KafkaConsumer, TopicPartition
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.sample.generate import generate_jobs
from headrace.sample.produce import produce
from headrace.settings import ROOT, Settings
from tests.benchmarks.outcome import PrintLine
from tests.faults.servers import Servers

HEADRACE = Path(sys.executable).with_name("headrace")
TOPIC = "jobs"
PARTITIONS = 3
PEER_TABLE = "public.peer_jobs"
COLUMNS = (
    ("jobcreatedate", "timestamp"),
    ("jobdate", "timestamp"),
    ("jobidentifier", "bigint"),
    ("jobstatus", "text"),
    ("location", "text"),
    ("revenue", "numeric"),
    ("servicename", "text"),
    ("userid", "bigint"),
)


@dataclass(frozen=True, slots=True)
class Speed:
    """Records that were committed, or read, and the seconds that it took."""

    records: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Records per second."""
        return self.records / self.seconds


@dataclass(frozen=True, slots=True)
class Site:
    """Services that run, with `records` jobs in the topic."""

    settings: Settings
    records: int

    @property
    def bootstrap_servers(self) -> str:
        """The broker's address."""
        return self.settings.require_kafka_bootstrap_servers()

    @property
    def dsn(self) -> str:
        """The database's connection string."""
        return self.settings.require_postgres_dsn()

    @property
    def password(self) -> str:
        """What the passfile of the DSN says, for clients that read none."""
        passfile = Path(str(conninfo_to_dict(self.dsn)["passfile"]))
        return passfile.read_text().strip().rpartition(":")[2]

    def environ(self, client: str) -> dict[str, str]:
        """What the command `headrace` is run with; client: HEADRACE_KAFKA_CLIENT."""
        return os.environ | {
            "HEADRACE_HOME": str(self.settings.home),
            "HEADRACE_POSTGRES_DSN": self.dsn,
            "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "HEADRACE_KAFKA_CLIENT": client,
        }

    def connect(self) -> Connection[Any]:
        """An autocommit connection."""
        return psycopg.connect(self.dsn, autocommit=True)

    def peer_table(self) -> None:
        """Make the peers' table anew: the contract's columns, and nothing to keep but them."""
        with self.connect() as connection:
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS)
            connection.execute(f"drop table if exists {PEER_TABLE}".encode())
            connection.execute(f"create table {PEER_TABLE} ({columns})".encode())

    def settle(self) -> None:
        """Write out what the one before left to write."""
        with self.connect() as connection:
            connection.execute("checkpoint")

    def consumer(self, **options: Any) -> KafkaConsumer:
        """kafka-python's consumer at the beginning of all partitions, with what its documentation calls large."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap_servers,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **{
                "fetch_max_bytes": 50 * 1024 * 1024,
                "max_partition_fetch_bytes": 8 * 1024 * 1024,
                "max_poll_records": 20_000,
                "metrics_enabled": False,
                **options,
            },
        )
        consumer.assign([TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)])
        consumer.seek_to_beginning()
        return consumer


def filled(servers: Servers, records: int, print_line: PrintLine) -> Site:
    """A site whose topic holds so many jobs, of about 190 bytes, none of them bad."""
    settings = Settings(
        home=servers.home, postgres_dsn=servers.database("bench"), kafka_bootstrap_servers=servers.address("kafka")
    )
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    began = time.monotonic()
    path = servers.home / "jobs.kafka"
    with path.open("wb") as file:
        # the case's records, all alike: peers read no others
        file.writelines(generate_jobs(records, 1, 0.0, ROOT / "data-files" / "users.ndjson", is_plain=True))
    produce(deployment, deployment.dataset("jobs"), path)
    path.unlink()
    print_line(f"{records:,} jobs generated and produced in {time.monotonic() - began:.0f} s")
    return Site(settings, records)
