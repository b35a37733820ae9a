"""Apache Kafka: one KRaft node, broker and controller in one Java process, on 127.0.0.1 alone.

All of its listeners want a password. Clients have none: they come through the gateway, which listens on the broker's
advertised port and admits this user alone.
"""

import base64
import os
import shutil
import socket
import struct
import uuid
from pathlib import Path
from typing import Any

from headrace.callbacks import PrintLine
from headrace.exceptions import LocalServiceError
from headrace.local import gateway, jars
from headrace.local.home import Home, Surroundings, secret, set_aside, write_file
from headrace.local.ports import free_ports
from headrace.local.process import Service
from headrace.private_files import close_to_others, make_folder

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
listeners=GATEWAY://127.0.0.1:{gateway_port},BROKER://127.0.0.1:{broker_port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=GATEWAY://127.0.0.1:{port},BROKER://127.0.0.1:{broker_port}
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
listener.security.protocol.map=GATEWAY:SASL_PLAINTEXT,BROKER:SASL_PLAINTEXT,CONTROLLER:SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.mechanism.controller.protocol=PLAIN
listener.name.gateway.plain.sasl.jaas.config={login}
listener.name.broker.plain.sasl.jaas.config={login}
listener.name.controller.plain.sasl.jaas.config={login}
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
metadata.max.idle.interval.ms=5000
"""

# PLAIN, not SCRAM: it needs nothing in the log directory, so one of an earlier version will do, and no other user can
# read what goes through the loopback interface.
LOGIN = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    'username="{user}" password="{password}" user_{user}="{password}";'
)

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


def gateway_service(home: Path) -> Service:
    """The process that clients connect to."""
    return Service(home, "kafka-gateway")


def is_running(home: Path) -> bool:
    """Whether the broker and its gateway run."""
    return service(home).pid() is not None and gateway_service(home).pid() is not None


def start(home: Home, port: int, controller_port: int, print_line: PrintLine) -> dict[str, Any]:
    """Start the broker and its gateway, which has the port; return their address and ports.

    A half-formatted log directory is formatted again.
    """
    stop(home.path)  # neither is useful without the other
    room = home.path / "kafka"
    make_folder(room)
    close_to_others(room)
    try:
        _start_from(jars.classpath(home, print_line), home, port, controller_port, print_line)
    except LocalServiceError as error:
        if not any(sign in str(error) for sign in BROKEN_JARS):
            raise
        print_line("kafka: could not run from these jars, downloading them again")
        jars.forget(home)
        _start_from(jars.classpath(home, print_line), home, port, controller_port, print_line)
    return {"address": f"127.0.0.1:{port}", "port": port, "controller_port": controller_port}


def stop(home: Path) -> bool:
    """Stop the broker, at first by a controlled shutdown, and its gateway. Returns whether the broker ran."""
    stopped = service(home).stop()
    gateway_service(home).stop()
    return stopped


def why_not_ready(home: Path, port: int) -> str | None:
    """Why the broker is not healthy; None if it answers with the expected cluster id."""
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
        with connection.makefile("rb") as response:
            (size,) = struct.unpack(">i", response.read(4))
            body = response.read(min(max(size, 0), 65_536))
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


def _start_from(classpath: list[Path], home: Home, port: int, controller_port: int, print_line: PrintLine) -> None:
    room = home.path / "kafka"
    broker, gate = service(home.path), gateway_service(home.path)
    gateway_port, broker_port = free_ports(2)  # known to these two alone, so others each time
    java: list[str | Path] = [jars.java(), "-cp", os.pathsep.join(map(str, classpath)), *LOGGING]
    _format(home, java, print_line)
    properties = _write_properties(
        room / "server.properties",
        port=port,
        controller_port=controller_port,
        gateway_port=gateway_port,
        broker_port=broker_port,
        log_dir="data",
    )
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
        gate.start(gateway.to_kafka(port, gateway_port, _password_file(room)), ports=[port], env=os.environ)
        broker.wait(lambda: why_not_ready(home.path, port), READY_LIMIT_S, gate)
    except BaseException:
        stop(home.path)
        raise


def _write_properties(path: Path, **values: Any) -> Path:
    login = LOGIN.format(user=gateway.KAFKA_USER, password=secret(_password_file(path.parent)))
    write_file(path, PROPERTIES.format(login=login, **values))
    return path


def _password_file(room: Path) -> Path:
    return room / "password"


def _format(home: Home, java: list[str | Path], print_line: PrintLine) -> None:
    """Format beside the log directory and rename the result: a log directory exists whole or not at all."""
    room = home.path / "kafka"
    data, fresh = room / "data", room / "data.new"
    if data.exists() and _cluster_id(data) is None:
        if any(data.iterdir()):
            set_aside(data, print_line)
        else:
            data.rmdir()
    if data.exists():
        return
    print_line("kafka: formatting the log directory")
    shutil.rmtree(fresh, ignore_errors=True)
    properties = _write_properties(
        room / "format.properties",
        port=9092,
        controller_port=9093,
        gateway_port=9094,
        broker_port=9095,
        log_dir="data.new",
    )
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    home.run(
        [*java, "kafka.tools.StorageTool", "format", "-t", cluster_id.replace("-", "_"), "-c", properties],
        doing="kafka: formatting the log directory",
        limit_s=120,
        within=Surroundings(cwd=room),
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
