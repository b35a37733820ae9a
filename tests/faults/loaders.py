"""Loaders, each a process of its own that the fork server makes, and how they ended."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUN_LIMIT_S = 60.0  # a run that is not over by then hangs


class TimedOut(Exception):
    """A run did not reach the expected state in time."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """The end of a run: `how` is done, error or killed."""

    how: str
    run_id: str
    error: str = ""
    message: str = ""
    trace: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    connects: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    barriers: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The end, for messages."""
        return {"done": "done", "killed": "killed"}.get(self.how, f"{self.error}: {self.message}")


class LoaderRun:
    """A loader in its own process, as the sandbox controls it."""

    def __init__(self, channel: socket.socket, run_id: str) -> None:
        self._channel = channel
        self.run_id = run_id
        self.planned: dict[str, Any] | None = None
        self.barriers: dict[str, int] = defaultdict(int)
        self._end: RunEnd | None = None
        self.pid = int((self._receive(10) or {})["pid"])
        self._handle = os.pidfd_open(self.pid)
        self.go()

    def go(self) -> None:
        """Let it continue from the barrier where it waits."""
        with suppress(OSError):
            self._channel.send(b"g")

    def wait_for(self, *steps: str, limit_s: float = RUN_LIMIT_S) -> str | None:
        """Wait until it reports one of these barriers and return its name; None if it ended before."""
        deadline = time.monotonic() + limit_s
        while self._end is None:
            message = self._receive(deadline - time.monotonic())
            if message is not None and message.get("at") in steps:
                return str(message["at"])
        return None

    def wait_until_planned(self) -> dict[str, Any] | None:
        """Wait for its plan; None if it ended without one."""
        deadline = time.monotonic() + RUN_LIMIT_S
        while self._end is None and self.planned is None:
            self._receive(deadline - time.monotonic())
        return self.planned

    def end(self, limit_s: float = RUN_LIMIT_S) -> RunEnd:
        """Wait until it has ended."""
        deadline = time.monotonic() + limit_s
        while self._end is None:
            self._receive(deadline - time.monotonic())
        return self._end

    def has_ended(self) -> bool:
        """Whether it has ended; reads its reports."""
        while self._end is None and select.select([self._channel], [], [], 0)[0]:
            self._receive(1)
        return self._end is not None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def wait_until_stopped(self) -> None:
        """After SIGSTOP: wait until the process no longer runs."""
        deadline = time.monotonic() + 10
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] not in "Tt":
            if time.monotonic() > deadline:
                raise TimedOut(f"pid {self.pid} did not stop")
            time.sleep(0.002)

    def close(self) -> None:
        """Kill it if it still runs."""
        self.signal(signal.SIGKILL)
        self._channel.close()
        os.close(self._handle)

    def _receive(self, limit_s: float) -> dict[str, Any] | None:
        if not select.select([self._channel], [], [], max(limit_s, 0))[0]:
            raise TimedOut(f"run {self.run_id} said nothing in time; barriers so far: {dict(self.barriers)}")
        try:
            data = self._channel.recv(1_000_000)
        except ConnectionError:
            data = b""
        if not data:
            self._end = RunEnd("killed", self.run_id, barriers=dict(self.barriers))
            return None
        message: dict[str, Any] = json.loads(data)
        if "planned" in message:
            self.planned = message["planned"]
        elif "at" in message:
            self.barriers[message["at"]] = message["nth"]
        elif "end" in message:
            known = {name: message[name] for name in RunEnd.__slots__ if name in message}
            self._end = RunEnd(how=message["end"], run_id=self.run_id, **known)
        return message


class ForkServer:
    """The process that forks a sandbox's loaders, from the copy of the loader below `plugins`."""

    def __init__(self, plugins: Path, log: Path) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(plugins)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # the kernel wakes what is stopped in a process group whose shell ends
                start_new_session=True,
            )
        theirs.close()
        hello = self._control.recv(65_536)
        if not hello:
            raise RuntimeError(f"the loader below {plugins} cannot be imported:\n{log.read_text()[-2_000:]}")
        loader = Path(json.loads(hello)["loader"])
        assert loader.is_relative_to(plugins), f"found the loader {loader}, expected one below {plugins}"

    def fork(self, request: dict[str, Any]) -> LoaderRun:
        """Start a run."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self._control, [json.dumps(request).encode()], [theirs.fileno()])
        theirs.close()
        return LoaderRun(ours, request.get("run_id", request["what"]))

    def close(self) -> None:
        """End the fork server and its children."""
        self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
