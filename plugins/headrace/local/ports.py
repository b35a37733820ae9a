"""Which port of 127.0.0.1 a local service gets."""

import socket
from contextlib import ExitStack

import psutil

from headrace.exceptions import LocalServiceError

DEFAULT_PORTS = {"postgres": 5432, "kafka": 9092, "controller": 9093, "airflow": 8080, "redis": 6379, "registry": 8085}
NEARBY = 100  # how far above the default a free port is looked for before any port will do


def choose_port(service: str, *, demanded: int | None, remembered: int | None, reserved: set[int]) -> int:
    """The port that a service starts on: the demanded one, else the one it had, its default, or a free one.

    `reserved` holds the ports that this `headrace up` gives to other services. Raises LocalServiceError when a port
    was demanded (HEADRACE_<SERVICE>_PORT) and another program has it.
    """
    if demanded is not None:
        if demanded in reserved or not is_free(demanded):
            by = "another headrace service" if demanded in reserved else holder(demanded)
            raise LocalServiceError(
                f"HEADRACE_{service.upper()}_PORT: port {demanded} of 127.0.0.1 is taken by {by}; expected it to be "
                "free; stop that program, set another port or unset the variable"
            )
        return demanded
    default = DEFAULT_PORTS[service]
    nearby: list[int] = list(range(default, default + NEARBY))
    if remembered is not None and 0 < remembered < 65536:
        nearby.insert(0, remembered)
    for port in nearby:
        if port not in reserved and is_free(port):
            return port
    while True:
        (port,) = free_ports(1)
        if port not in reserved:
            return port


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now; a listener on 0.0.0.0 or :: counts as taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not matter
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except (OSError, OverflowError):
            return False
    return True


def free_ports(count: int) -> list[int]:
    """That many different free ports."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may know."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        pass
    return "another program"
