"""Where the loaders of a sandbox run: a process that has imported everything and forks one child per run.

A child takes 10 ms to start and can be killed, stopped and woken alone. It talks with its sandbox over a socket: what
it planned, which barrier it reached, how it ended. PYTHONPATH decides which copy of the loader it runs.
"""

import ctypes
import gc
import json
import logging
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

import headrace
import headrace.sources.kafka
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError
from headrace.ingest import batch as batch_module
from headrace.ingest import commit as commit_module
from headrace.ingest.plan import Plan
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.postgres.connection import Connect, connector
from headrace.postgres.ledger import RunContext
from headrace.repair.generations import accept_loss, adopt
from headrace.settings import Settings
from tests.support.adoption import force_adopt

PR_SET_PDEATHSIG = 1
MESSAGE_MAX = 65_536


def main(fd: int) -> None:
    """Fork a child for every request; end when the sandbox does."""
    control = socket.socket(fileno=fd)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no wait for children: their sockets report how they ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the sandbox
    control.send(json.dumps({"loader": headrace.__file__}).encode())
    gc.collect()
    gc.freeze()  # otherwise each child copies all pages at its first collection
    while True:
        request, fds, _, _ = socket.recv_fds(control, MESSAGE_MAX, 1)
        if not request:
            return
        if os.fork() == 0:
            control.close()
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a stopped child must not outlive the sandbox
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _Child(socket.socket(fileno=fds[0]), json.loads(request)).run()
            os._exit(0)
        os.close(fds[0])


class _Child:
    def __init__(self, channel: socket.socket, request: dict[str, Any]) -> None:
        self._channel = channel
        self._request = request
        self._actions: list[dict[str, Any]] = request.get("actions", [])
        self._reached: Counter[str] = Counter()
        self._connects: Counter[str] = Counter()
        self._log: list[str] = []

    def run(self) -> None:
        random.seed()
        handler = logging.Handler()
        handler.emit = lambda record: self._log.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("headrace").addHandler(handler)
        self._tell(pid=os.getpid())
        self._channel.recv(1)
        try:
            result = self._work()
            end = {"end": "done", "result": result}
        except BaseException as error:
            end = {"end": "error", "error": type(error).__name__, "message": " ".join(str(error).split())}
            if not isinstance(error, HeadraceError | KeyboardInterrupt):
                end["trace"] = traceback.format_exc()[-4_000:]
        self._tell(**end, connects=self._connects, log=self._log)

    def _work(self) -> dict[str, Any]:
        request = self._request
        settings = Settings(**{name: _typed(name, value) for name, value in request["settings"].items()})
        deployment = replace(Deployment.from_settings(settings), connect=self._connect)
        dataset = deployment.dataset(request["dataset"])
        if request["what"] == "adopt":
            return {"generation": adopt(deployment, dataset)}
        if request["what"] == "adopt_anyway":
            return {"generation": force_adopt(deployment, dataset)}
        if request["what"] == "accept_loss":
            return {"lost": accept_loss(deployment, dataset, request["partition"], request["to"])}
        run = RunContext(run_id=request["run_id"], try_number=1)
        planned = Plan.from_dict(request["plan"]) if "plan" in request else plan(deployment, dataset, run=run)
        self._tell(planned=planned.to_dict())
        self._barrier("planned")
        self._hook_copies()
        result = drain_plan(deployment, dataset, planned, options=RunOptions(run=run, barrier=self._barrier))
        counts = ("batches", "staged", "dead", "tombstones", "empty", "ignored", "bytes")
        return {name: getattr(result, name) for name in counts}

    def _connect(self, name: str) -> Connect:
        dsn = self._request["settings"]["postgres_dsn"]
        if name.startswith("headrace drain"):
            dsn = self._request.get("drain_dsn", dsn)
        connect = connector(dsn, name)

        def counted() -> psycopg.Connection[Any]:
            self._connects[name] += 1
            return connect()

        return counted

    def _hook_copies(self) -> None:
        """Call a barrier in the middle of each COPY, without a change of the loader."""
        hooked = (
            (batch_module, "copy_lines", "copying"),
            (batch_module, "copy_rows", "copying"),
            (commit_module, "copy_dead_letters", "copying_dead"),
        )
        for module, name, step in hooked:
            setattr(module, name, self._halved(getattr(module, name), step))

    def _halved(self, copy: Any, step: str) -> Any:
        def halves(rows: Sequence[Any]) -> Iterator[Any]:
            yield from rows[: len(rows) // 2]
            self._barrier(step)
            yield from rows[len(rows) // 2 :]

        def copy_with_barrier(*arguments: Any) -> None:
            *others, rows = arguments
            rows = list(rows)
            copy(*others, _Sized(halves(rows), len(rows)))

        return copy_with_barrier

    def _barrier(self, step: str) -> None:
        self._reached[step] += 1
        for action in self._actions:
            if action["step"] in (step, "any") and action["nth"] in (self._reached[step], 0):
                self._act(action, step)

    def _act(self, action: dict[str, Any], step: str) -> None:
        what = action["do"]
        self._tell(at=step, nth=self._reached[step], do=what)
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif what == "wait":
            self._channel.recv(1)
        elif what == "sleep":
            time.sleep(action["seconds"])
        elif what == "interrupt":
            raise KeyboardInterrupt(f"at {step}")
        else:
            raise AssertionError(what)

    def _tell(self, **message: Any) -> None:
        self._channel.send(json.dumps(message, default=str).encode())


class _Sized:
    """A list of rows that calls a barrier while it is iterated."""

    def __init__(self, rows: Iterable[Any], length: int) -> None:
        self._rows = rows
        self._length = length

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def __len__(self) -> int:
        return self._length


def _typed(name: str, value: Any) -> Any:
    return Path(value) if name in {"home", "datasets_dir", "data_dir"} else value


if __name__ == "__main__":
    main(int(sys.argv[1]))
