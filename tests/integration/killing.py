"""Drains that are stopped where it hurts: at a named step, or with their connection cut at COMMIT."""

import multiprocessing
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from headrace.batch import Barrier
from headrace.ingest import drain_plan, plan
from tests.integration.conftest import Stage

STEPS = ["fetched", "advanced", "staged", "dead_lettered", "before_commit", "committed"]


def at(step: str, action: Callable[[], None], *, occurrence: int = 2) -> Barrier:
    """A barrier that does something at the given occurrence of a step."""
    seen = 0

    def barrier(name: str) -> None:
        nonlocal seen
        seen += name == step
        if name == step and seen == occurrence:
            action()

    return barrier


def drain(stage: Stage, barrier: Barrier, name: str = "jobs") -> None:
    """Plan and drain with a barrier, in this process."""
    dataset = stage.deployment.dataset(name)
    drain_plan(stage.deployment, dataset, plan(stage.deployment, dataset), barrier=barrier)


def signal_itself(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def drain_that_gets(
    number: signal.Signals, step: str, stage: Stage, name: str = "jobs", *, occurrence: int | None = None
) -> Iterator[Any]:
    """A drain in a process of its own, which sends itself a signal at an occurrence of a step, mostly the second.

    What was fetched first is committed for certain when the third is fetched: a batch commits while the next is read.
    """
    occurrence = occurrence or (3 if step == "fetched" else 2)
    process = multiprocessing.get_context("fork").Process(
        target=drain, args=(stage, at(step, lambda: signal_itself(number), occurrence=occurrence), name)
    )
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


class CuttingProxy:
    """Stands between a client and Postgres; cuts the first connection on which COMMIT comes by, `cuts` times.

    mode: "before" (COMMIT never arrives), "after" (it does, its answer does not), "late" (it arrives half a second
    after the client was cut off).
    """

    def __init__(self, dsn: str, mode: str, cuts: int = 1) -> None:
        self._port = int(re.search(r":(\d+)/", dsn)[1])  # type: ignore[index]
        self._mode = mode
        self.cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = dsn.replace(f":{self._port}/", f":{self._listener.getsockname()[1]}/")
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> "CuttingProxy":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            cut = threading.Event()
            for target, arguments in ((self._forward, (client, server, cut)), (self._answer, (server, client, cut))):
                self._threads.append(threading.Thread(target=target, args=arguments, daemon=True))
                self._threads[-1].start()

    def _forward(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        while data := _received(client):
            if self.cuts > 0 and b"COMMIT" in data:
                self.cuts -= 1
                cut.set()
                if self._mode == "after":
                    server.sendall(data)
                    threading.Event().wait(0.2)
                _close(client)
                if self._mode == "late":
                    threading.Event().wait(0.5)
                    server.sendall(data)
                    threading.Event().wait(0.2)
                break
            server.sendall(data)
        _close(server)

    def _answer(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
        while data := _received(server):
            if not cut.is_set():
                try:
                    client.sendall(data)
                except OSError:
                    break
        _close(client)


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 20)
    except OSError:
        return b""


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
