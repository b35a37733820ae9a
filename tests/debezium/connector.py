"""Debezium's PostgreSQL connector on Kafka Connect 4.3.1, standalone: started, killed and started again.

https://debezium.io/documentation/reference/3.3/connectors/postgresql.html
"""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psycopg.conninfo import conninfo_to_dict

from headrace.local import jars
from headrace.local.home import locked
from headrace.settings import Settings

CONNECT = "org.apache.kafka:connect-runtime:4.3.1+org.apache.kafka:connect-json:4.3.1+org.slf4j:slf4j-simple:1.7.36"
# with Connect in it: alone it has fewer jars than headrace.local.jars takes for a whole list
SOURCE = f"{CONNECT}+io.debezium:debezium-connector-postgres:3.3.1.Final"
PINS = Path(__file__).with_name("jars.sha256")
CONVERTER = "org.apache.kafka.connect.json.JsonConverter"
PREFIX = "shop"
LIMIT_S = 120.0


class Connector:
    """One connector; what it has sent is in a file of offsets, so that a new process goes on there."""

    def __init__(self, settings: Settings, bootstrap_servers: str, dsn: str, config: Mapping[str, Any]) -> None:
        self._room = settings.home / "connect"
        self._room.mkdir(exist_ok=True)
        self._log = self._room / "worker.log"
        self._process: subprocess.Popen[bytes] | None = None
        worker = {
            "bootstrap.servers": bootstrap_servers,
            "listeners": f"http://127.0.0.1:{_free_port()}",
            "offset.storage.file.filename": self._room / f"offsets-{time.time_ns()}",
            "offset.flush.interval.ms": 1_000,
            "key.converter": CONVERTER,
            "value.converter": CONVERTER,
            "topic.creation.enable": "false",
            "plugin.discovery": "service_load",  # a scan of all classes takes half a minute
        }
        (self._room / "worker.properties").write_text("".join(f"{key}={value}\n" for key, value in worker.items()))
        found = conninfo_to_dict(dsn)
        connector = {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "tasks.max": 1,
            "database.hostname": found["host"],
            "database.port": found["port"],
            "database.user": found["user"],
            "database.password": found.get("password", "none"),
            "database.dbname": found["dbname"],
            "topic.prefix": PREFIX,
            "plugin.name": "pgoutput",
            "publication.autocreate.mode": "filtered",
            "slot.drop.on.stop": "false",
            "retriable.restart.connector.wait.ms": 500,
            "poll.interval.ms": 50,
            **config,
        }
        text = json.dumps({"name": PREFIX, "config": {name: str(value) for name, value in connector.items()}})
        (self._room / "connector.json").write_text(text)
        with locked(settings.home, _quiet) as home:
            connect = jars.classpath(home, _quiet, CONNECT, PINS)
            source = jars.classpath(home, _quiet, SOURCE, PINS)
        # of what both bring Connect's own versions, so that one class path does for both
        known = {_artifact(jar) for jar in connect}
        every = [*connect, *(jar for jar in source if _artifact(jar) not in known)]
        self._classpath = os.pathsep.join(map(str, every))

    def start(self) -> None:
        """Start the worker; it connects by itself."""
        environ = {key: value for key, value in os.environ.items() if key != "JAVA_TOOL_OPTIONS"}
        options = (
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Dorg.slf4j.simpleLogger.logFile=System.out",
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(jars.java(), *options, "-cp", self._classpath),
                    "org.apache.kafka.connect.cli.ConnectStandalone",
                    *(self._room / "worker.properties", self._room / "connector.json"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environ,
            )

    def kill(self) -> None:
        """SIGKILL: what was sent since the offsets were last written is sent again."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(LIMIT_S)
            self._process = None

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def require_running(self) -> None:
        """Raise AssertionError, with the end of its log, if the worker or its task has failed."""
        text = self._log.read_text(errors="replace")
        is_over = self._process is None or self._process.poll() is not None
        assert not is_over, text[-4_000:]
        assert not re.search(r"Task is being killed", text), text[-4_000:]


def _artifact(jar: Path) -> str:
    return re.split(r"-[0-9]", jar.name)[0]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _quiet(_line: str) -> None:
    pass
