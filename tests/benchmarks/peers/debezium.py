"""The Debezium JDBC sink 3.3.1 on Kafka Connect 4.3.1, standalone, tuned as its documentation advises.

https://debezium.io/documentation/reference/3.3/connectors/jdbc.html: larger batches (with as many records a poll),
reWriteBatchedInserts for PostgreSQL, the reduction buffer, upsert because delivery is at least once. JSON without
schemas becomes rows by the JsonConverter's `schema.content` (KIP-1054, Kafka 4.2).
"""

import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict

from headrace.local import jars
from headrace.local.home import locked
from tests.benchmarks.site import PARTITIONS, TOPIC, Site, Speed

CONNECT = "org.apache.kafka:connect-runtime:4.3.1+org.apache.kafka:connect-json:4.3.1+org.slf4j:slf4j-simple:1.7.36"
SINK = "io.debezium:debezium-connector-jdbc:3.3.1.Final"
PINS = Path(__file__).with_name("jars.sha256")
TASKS = 2  # as many as there are cores
BATCH = 10_000
LIMIT_S = 600.0
STANDSTILL_S = 3.0
FIELDS = {
    "JOBCREATEDATE": "string",
    "JOBDATE": "string",
    "JOBIDENTIFIER": "int64",
    "JOBSTATUS": "string",
    "LOCATION": "string",
    "REVENUE": "double",
    "SERVICENAME": "string",
    "USERID": "int64",
}
SQL_TYPES = {"string": "text", "double": "double precision", "int64": "bigint"}
COORDINATES = {"__connect_topic": "text", "__connect_partition": "integer", "__connect_offset": "bigint"}
CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
SCHEMA = {"type": "struct", "fields": [{"field": name, "type": kind} for name, kind in FIELDS.items()]}
# every record a row, found again by its place in the topic: what staging holds
ALL_RECORDS = {"primary.key.mode": "kafka"}
# one row per key: what a current-state table holds
CURRENT_STATE = {"primary.key.mode": "record_value", "primary.key.fields": "JOBIDENTIFIER"}
# what marts.jobs has beside its key; times are text here, as they are in the JSON
MART_INDEXES = (
    "jobcreatedate",
    "userid, location",
    "location, jobdate desc nulls last, jobidentifier",
    "servicename, jobdate desc nulls last, jobidentifier",
)


def upsert(site: Site, mode: Mapping[str, str], indexes: Sequence[str] = ()) -> Speed:
    """From the first row in the table to the last record of the topic; starting the worker is not counted."""
    key = "jobidentifier" if mode is CURRENT_STATE else ", ".join(COORDINATES)
    columns = [f"{name.lower()} {SQL_TYPES[kind]}" for name, kind in FIELDS.items()]
    if mode is not CURRENT_STATE:
        columns += [f"{name} {kind}" for name, kind in COORDINATES.items()]
    with site.connect() as connection:
        connection.execute("drop table if exists public.debezium_jobs")
        connection.execute(f"create table public.debezium_jobs ({', '.join(columns)}, primary key ({key}))".encode())
        for index in indexes:
            connection.execute(f"create index on public.debezium_jobs ({index})".encode())
    room = site.settings.home / "connect"
    room.mkdir(exist_ok=True)
    worker = _start(site, room, mode)
    try:
        return _watch(site, worker, mode is CURRENT_STATE)
    finally:
        worker.terminate()
        try:
            worker.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def _connector(site: Site) -> dict[str, Any]:
    """The sink's configuration without that of its mode."""
    found = conninfo_to_dict(site.dsn)
    return {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "tasks.max": TASKS,
        "topics": TOPIC,
        "connection.url": (
            f"jdbc:postgresql://{found['host']}:{found['port']}/{found['dbname']}?reWriteBatchedInserts=true"
        ),
        "connection.username": found["user"],
        "connection.password": site.password,
        "collection.name.format": "debezium_jobs",
        "insert.mode": "upsert",
        "schema.evolution": "none",
        "batch.size": BATCH,
        "use.reduction.buffer": "true",
        "consumer.override.max.poll.records": BATCH,
        "consumer.override.auto.offset.reset": "earliest",
        "consumer.override.max.partition.fetch.bytes": 8 * 1024 * 1024,
        "consumer.override.isolation.level": "read_committed",
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": CONVERTER,
        "value.converter.schemas.enable": "true",
        "value.converter.schema.content": json.dumps(SCHEMA),
    }


def _start(site: Site, room: Path, mode: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    name = f"bench-{time.time_ns()}"  # a consumer group of its own: from the topic's beginning
    worker = {
        "bootstrap.servers": site.bootstrap_servers,
        "listeners": f"http://127.0.0.1:{_free_port()}",
        "offset.storage.file.filename": room / f"{name}.offsets",
        "offset.flush.interval.ms": 5_000,
        "key.converter": CONVERTER,
        "value.converter": CONVERTER,
        "connector.client.config.override.policy": "All",
    }
    (room / "worker.properties").write_text("".join(f"{key}={value}\n" for key, value in worker.items()))
    config = {"name": name, **_connector(site), **mode}
    (room / "connector.json").write_text(json.dumps({"name": name, "config": config}))
    with locked(site.settings.home, _quiet) as home:
        connect = jars.classpath(home, _quiet, CONNECT, PINS)
        sink = jars.classpath(home, _quiet, SINK, PINS)
    # of what both bring (kafka-clients, jackson) Connect's own versions, so that one class path does for both
    known = {_artifact(jar) for jar in connect}
    classpath = os.pathsep.join(map(str, [*connect, *(jar for jar in sink if _artifact(jar) not in known)]))
    environ = {key: value for key, value in os.environ.items() if key != "JAVA_TOOL_OPTIONS"}
    with (room / "worker.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(jars.java(), "-Xms1g", "-Xmx2g", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", classpath),
                "org.apache.kafka.connect.cli.ConnectStandalone",
                *(room / "worker.properties", room / "connector.json"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
        )


def _watch(site: Site, worker: "subprocess.Popen[bytes]", is_current_state: bool) -> Speed:
    log = site.settings.home / "connect" / "worker.log"
    count = _changes if is_current_state else _offsets
    deadline = time.monotonic() + LIMIT_S
    began = changed = 0.0
    first = written = 0
    with site.connect() as connection:
        while time.monotonic() < deadline:
            if worker.poll() is not None or "Task is being killed" in log.read_text():
                raise RuntimeError(f"debezium: the worker failed: {log.read_text()[-2_000:]}")
            before, written = written, count(connection)
            now = time.monotonic()
            if written and not began:
                began, first = now, written
            if written != before:
                changed = now
            # changes of one key in one batch are reduced to one, so that current state is told by a standstill
            if written >= site.records or (began and is_current_state and now - changed > STANDSTILL_S):
                if changed == began:
                    raise RuntimeError(f"debezium: all {written} changes became visible at once")
                return Speed(site.records - first, changed - began)
            time.sleep(0.05)
    raise RuntimeError(f"debezium: {written} changes in {LIMIT_S:.0f} s: {log.read_text()[-2_000:]}")


def _offsets(connection: Connection[Any]) -> int:
    """Offsets of the topic that are in the table; its primary key gives them at once."""
    found = connection.execute(
        "select sum(1 + (select max(__connect_offset) from debezium_jobs where __connect_topic = %s "
        "and __connect_partition = p)) from generate_series(0, %s) as p",
        (TOPIC, PARTITIONS - 1),
    ).fetchone()
    return int(found[0] or 0) if found else 0


def _changes(connection: Connection[Any]) -> int:
    """Rows inserted and updated, as the server counts them: up to a second late."""
    found = connection.execute(
        "select n_tup_ins + n_tup_upd from pg_stat_user_tables where relname = 'debezium_jobs'"
    ).fetchone()
    return int(found[0]) if found else 0


def _artifact(jar: Path) -> str:
    return re.split(r"-[0-9]", jar.name)[0]


def _quiet(_line: str) -> None:
    pass


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
