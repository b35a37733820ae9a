"""Drains that are stopped where it hurts: at a named step, or with their connection cut at COMMIT."""

import multiprocessing
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any

import psutil
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from headrace.callbacks import Barrier
from headrace.ingest.runner import RunOptions, drain_plan, plan
from tests.support.stage import Stage

STEPS = ["fetched", "advanced", "staged", "dead_lettered", "before_commit", "committed"]


@dataclass
class _At:
    """A class, for a barrier of another process must be picklable."""

    step: str
    action: Callable[[], object]
    occurrence: int

    def __call__(self, name: str) -> None:
        if name == self.step:
            self.occurrence -= 1
            if self.occurrence == 0:
                self.action()


def at(step: str, action: Callable[[], object], *, occurrence: int = 2) -> Barrier:
    """A barrier that does something at the given occurrence of a step."""
    return _At(step, action, occurrence)


def drain(stage: Stage, barrier: Barrier, name: str = "jobs") -> None:
    """Plan and drain with a barrier, in this process."""
    dataset = stage.deployment.dataset(name)
    drain_plan(stage.deployment, dataset, plan(stage.deployment, dataset), options=RunOptions(barrier=barrier))


def signal_itself(number: signal.Signals) -> None:
    """Kill or stop this process here and now.

    What is sent to the process may be taken by another of its threads, and this one goes a few steps further.
    """
    signal.pthread_kill(threading.get_ident(), number)


@contextmanager
def apart(target: Callable[..., object], *args: Any, **kwargs: Any) -> Iterator[BaseProcess]:
    """Run a function in a process of its own, which ends with the block.

    It is forked from a server that has no threads: what is forked from pytest itself may inherit a lock that a
    thread of some client's held, and then waits forever.
    """
    context = multiprocessing.get_context("forkserver")
    # warm: a drain begins at once, and a dbt run takes 1.5 s of CPU in place of 4 s
    context.set_forkserver_preload(["tests.support.warm_dbt", __name__])
    process = context.Process(target=target, args=args, kwargs=kwargs)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@contextmanager
def drain_that_gets(
    number: signal.Signals,
    step: str,
    stage: Stage,
    name: str = "jobs",
    *,
    occurrence: int | None = None,
    drain: Callable[[Stage, Barrier, str], None] = drain,
) -> Iterator[Any]:
    """A drain in a process of its own, which sends itself a signal at an occurrence of a step, mostly the second.

    What was fetched first is committed for certain when the third is fetched: a batch commits while the next is read.
    """
    occurrence = occurrence or (3 if step == "fetched" else 2)
    with apart(drain, stage, at(step, partial(signal_itself, number), occurrence=occurrence), name) as process:
        yield process


def killed_at(step: str, target: Callable[..., object], *args: Any, **kwargs: Any) -> None:
    """Run a function that takes a barrier in a process of its own, which is killed when it first gets to a step."""
    barrier = at(step, partial(signal_itself, signal.SIGKILL), occurrence=1)
    with apart(target, *args, **kwargs, barrier=barrier) as process:
        process.join(30)
        assert process.exitcode == -signal.SIGKILL


def wait_until_stopped(process: BaseProcess) -> None:
    """Wait for a process that sends itself SIGSTOP."""
    deadline = time.monotonic() + 30
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert process.is_alive(), f"it ended with {process.exitcode} before it was stopped"
        assert time.monotonic() < deadline, "it was not stopped in time"
        time.sleep(0.02)


class CuttingProxy:
    """Stands between a client and Postgres; cuts the first connection on which COMMIT comes by, `cuts` times.

    mode: "before" (COMMIT never arrives), "after" (it does, its answer does not), "late" (it arrives half a second
    after the client was cut off).
    """

    def __init__(self, dsn: str, mode: str, cuts: int = 1) -> None:
        self._port = int(str(conninfo_to_dict(dsn)["port"]))
        self._mode = mode
        self.cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.dsn = make_conninfo(dsn, port=self._listener.getsockname()[1])
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
            for target, arguments in (
                (self._forward, (client, server, cut)),
                (self._forward_responses, (server, client, cut)),
            ):
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

    def _forward_responses(self, server: socket.socket, client: socket.socket, cut: threading.Event) -> None:
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
