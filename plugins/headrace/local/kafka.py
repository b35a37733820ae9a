"""Apache Kafka: one KRaft node, broker and controller in one Java process, on 127.0.0.1 alone."""

import base64
import os
import shutil
import socket
import struct
import uuid
from pathlib import Path
from typing import Any

from headrace.exceptions import LocalServiceError
from headrace.local import jars
from headrace.local.home import Home, Report, set_aside, write_file
from headrace.local.process import Service

READY_LIMIT_S = 60.0  # answers after 2.5 s here; recovery after a crash and a busy machine take longer
HEAP = "-Xmx512m"  # 330 MB resident
BROKEN_JARS = ("NoClassDefFound", "ClassNotFound", "ZipException", "Could not find or load main class")
METADATA = 3  # the API key of the Metadata request; its version 2 is the first that tells the cluster's id

# The quorum is static (controller.quorum.voters) because a dynamic one keeps the controller's port in its log, and
# this port may have to change. After a kill the controller lets the broker in again only when its old session has run
# out: in 3 s, not the default 9. log.dirs is relative, so that no character of HEADRACE_HOME can break it.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_dir}
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""

LOGGER = "-Dorg.slf4j.simpleLogger."
LOGGING = (  # to standard error, and so to logs/kafka.log
    f"{LOGGER}defaultLogLevel=warn",
    f"{LOGGER}log.kafka.server.KafkaRaftServer=info",
    f"{LOGGER}showDateTime=true",
    f"{LOGGER}dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    f"{LOGGER}showThreadName=false",
)


def service(home: Path) -> Service:
    """The broker's process."""
    return Service(home, "kafka")


def start(home: Home, port: int, controller_port: int, report: Report) -> dict[str, Any]:
    """Start the broker and return its address and ports; a half-formatted log directory is formatted again."""
    room = home.path / "kafka"
    room.mkdir(mode=0o755, exist_ok=True)
    try:
        _start_from(jars.classpath(home, report), home, port, controller_port, report)
    except LocalServiceError as error:
        if not any(sign in str(error) for sign in BROKEN_JARS):
            raise
        report("kafka: could not run from these jars, downloading them anew")
        jars.forget(home)
        _start_from(jars.classpath(home, report), home, port, controller_port, report)
    return {"address": f"127.0.0.1:{port}", "port": port, "controller_port": controller_port}


def stop(home: Path) -> bool:
    """Stop the broker, at first by a controlled shutdown. Returns whether it ran."""
    return service(home).stop()


def lacks(home: Path, port: int) -> str | None:
    """What keeps the broker from being healthy; None when it answers as our cluster."""
    expected = _cluster_id(home / "kafka" / "data")
    try:
        found = ask_cluster_id(port)
    except (OSError, struct.error, ValueError) as error:
        return f"127.0.0.1:{port} does not answer ({str(error) or type(error).__name__})"
    return None if found == expected else f"127.0.0.1:{port} is answered by another cluster"


def ask_cluster_id(port: int, timeout_s: float = 2.0) -> str:
    """Ask a broker for its cluster's id (Kafka protocol: Metadata v2 for no topics); ValueError without a broker."""
    request = struct.pack(">hhih8si", METADATA, 2, 1, 8, b"headrace", 0)
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.settimeout(timeout_s)
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:
            (size,) = struct.unpack(">i", answer.read(4))
            body = answer.read(min(max(size, 0), 65_536))
    _, brokers = struct.unpack_from(">ii", body)
    if brokers < 1:
        raise ValueError("no broker is registered yet")
    at = 8
    for _ in range(brokers):
        at += 4  # node id
        at += 2 + struct.unpack_from(">h", body, at)[0]  # host
        at += 4  # port
        at += 2 + max(struct.unpack_from(">h", body, at)[0], 0)  # rack
    (length,) = struct.unpack_from(">h", body, at)
    return body[at + 2 : at + 2 + length].decode()


def _start_from(classpath: list[Path], home: Home, port: int, controller_port: int, report: Report) -> None:
    room = home.path / "kafka"
    broker = service(home.path)
    java: list[str | Path] = [jars.java(), "-cp", os.pathsep.join(map(str, classpath)), *LOGGING]
    _format(home, java, report)
    properties = room / "server.properties"
    write_file(properties, PROPERTIES.format(port=port, controller_port=controller_port, log_dir="data"), mode=0o644)
    argv = [
        *java,
        HEAP,
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        "-Djava.net.preferIPv4Stack=true",  # else it listens on a socket of both families
        f"-D{broker.mark}",
        "kafka.Kafka",
        properties,
    ]
    try:
        broker.start(argv, ports=[port, controller_port], env=os.environ, cwd=room)
        broker.wait(lambda: lacks(home.path, port), READY_LIMIT_S)
    except BaseException:
        broker.stop()
        raise


def _format(home: Home, java: list[str | Path], report: Report) -> None:
    """Format beside the log directory and rename the result: a log directory exists whole or not at all."""
    room = home.path / "kafka"
    data, fresh = room / "data", room / "data.new"
    if data.exists() and _cluster_id(data) is None:
        if any(data.iterdir()):
            set_aside(data, report)
        else:
            data.rmdir()
    if data.exists():
        return
    report("kafka: formatting the log directory")
    shutil.rmtree(fresh, ignore_errors=True)
    properties = room / "format.properties"
    write_file(properties, PROPERTIES.format(port=9092, controller_port=9093, log_dir="data.new"), mode=0o644)
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    home.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id.replace("-", "_"), "-c", properties],
        doing="kafka: formatting the log directory",
        limit_s=120,
        cwd=room,
    )
    fresh.rename(data)


def _cluster_id(data: Path) -> str | None:
    """The id that the log directory was formatted with; None when it is not, or only half."""
    try:
        lines = (data / "meta.properties").read_text().splitlines()
    except OSError:
        return None
    found = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return found.get("cluster.id", "").replace("\\", "") or None
