"""A process that outlives the command that started it, and is still known to be ours.

A pid alone proves nothing: pids are used again. So each service carries a mark that names its pid file, as a word of
its command line or in its environment, and only a process with that mark is ever signalled. Processes that hide
both (Airflow's task supervisors, which are not dumpable) are known by their session, which the service leads.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from headrace.exceptions import LocalServiceError
from headrace.local.home import quote_lines, write_file
from headrace.private_files import FILE_MODE, UMASK

MARK_VARIABLE = "_HEADRACE_SERVICE"  # not HEADRACE_...: that would be an unknown setting
LOG_BYTES_MAX = 10 * 1024 * 1024  # a log larger than this is put aside at the next start
POLL_S = 0.1
TERM_THEN_KILL = ((signal.SIGTERM, 15.0), (signal.SIGKILL, 5.0))

_started: list[subprocess.Popen[bytes]] = []  # kept: a Popen that is forgotten while it runs warns


class Service:
    """One supervised process of one HEADRACE_HOME: its pid file, its log, its signals."""

    def __init__(self, home: Path, name: str) -> None:
        self.name = name
        self.pid_file = home / "run" / f"{name}.pid"
        self.log = home / "logs" / f"{name}.log"
        self.mark = f"headrace.pid_file={self.pid_file}"
        self._log_start = 0

    def pid(self) -> int | None:
        """The pid of the running service; None when it does not run, even if there is a pid file."""
        noted = self._noted()
        if noted and self._is_ours(noted[0]):
            return noted[0]
        # killed between starting it and noting its pid, or the pid file was deleted
        return next((process.pid for process in psutil.process_iter() if self._leads(process)), None)

    def ports(self) -> list[int]:
        """The ports noted in the pid file below the pid; empty when the file is missing or cut off."""
        return self._noted()[1:]

    def start(
        self,
        argv: Sequence[str | Path],
        *,
        ports: Sequence[int],
        env: Mapping[str, str],
        cwd: Path | str = "/",
        user: int | None = None,
        group: int | None = None,
    ) -> None:
        """Start the process in a session of its own, with no hold on this one's terminal, output or lock."""
        self.sweep()
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))
        log_fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, FILE_MODE)
        try:
            self._log_start = os.fstat(log_fd).st_size
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                start_new_session=True,
                env={**env, MARK_VARIABLE: self.mark},
                cwd=cwd,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                umask=UMASK,
            )
        except OSError as error:
            raise LocalServiceError(f"{self.name}: {argv[0]} cannot be run: {error.strerror}") from error
        finally:
            os.close(log_fd)
        _started.append(process)
        write_file(self.pid_file, "".join(f"{number}\n" for number in (process.pid, *ports)))

    def wait(self, why_not_ready: Callable[[], str | None], limit_s: float, *others: "Service") -> None:
        """Wait until `why_not_ready` finds nothing lacking; LocalServiceError when a process ends or time is up.

        others: processes without which this one is of no use.
        """
        deadline = time.monotonic() + limit_s
        while (lacking := why_not_ready()) is not None:
            for process in (self, *others):
                if process.pid() is None:
                    raise process._ended()
            if time.monotonic() > deadline:
                raise LocalServiceError(
                    f"{self.name}: {lacking} after {limit_s:.0f} s, expected it to be healthy; {self.log_tail()}"
                )
            time.sleep(POLL_S)
        if self.pid() is None:  # another process answered
            raise self._ended()

    def _ended(self) -> LocalServiceError:
        return LocalServiceError(f"{self.name}: ended while it started, expected it to stay; {self.log_tail()}")

    def log_tail(self) -> str:
        """Where the log is, and its last lines since the last start."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self._log_start, self.log.stat().st_size - 65_536))
                text = file.read().decode(errors="replace")
        except OSError:
            text = ""
        return f"see {self.log}, which ends: {quote_lines(text)}"

    def stop(
        self, signals: Sequence[tuple[signal.Signals, float]] = TERM_THEN_KILL, *, whole_group: bool = True
    ) -> bool:
        """Send each signal and wait its seconds until the process has ended; then end its remaining children.

        Returns whether there was anything to stop.
        """
        pid = self.pid()
        if pid is not None:
            for number, limit_s in signals:
                with suppress(ProcessLookupError):
                    (os.killpg if whole_group and os.getpgid(pid) == pid else os.kill)(pid, number)
                if _gone_within(pid, limit_s):
                    break
            else:
                raise LocalServiceError(f"{self.name}: pid {pid} is still there after SIGKILL; expected it to end")
        swept = self.sweep()
        self.pid_file.unlink(missing_ok=True)
        return pid is not None or swept

    def sweep(self) -> bool:
        """End the remaining children (workers, tasks) of a dead process; returns whether there were any."""
        strays = self._members()
        for number, limit_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
            for stray in strays:
                with suppress(psutil.NoSuchProcess):  # psutil checks that the pid is still the same process
                    stray.send_signal(number)
            deadline = time.monotonic() + limit_s
            for stray in strays:
                _gone_within(stray.pid, deadline - time.monotonic())
        return bool(strays)

    def listens_on(self, port: int) -> bool:
        """Whether this service, not another program, listens on a port; True where the system does not tell."""
        pid = self.pid()
        if pid is None:
            return False
        try:
            family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
            return any(
                connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
                for process in family
                for connection in process.net_connections("tcp")
            )
        except psutil.AccessDenied:
            return True
        except psutil.NoSuchProcess:
            return False

    def _noted(self) -> list[int]:
        try:
            numbers = [int(line) for line in self.pid_file.read_text().split()]
        except (OSError, ValueError):
            return []
        return numbers if all(number > 0 for number in numbers) else []

    def _is_ours(self, pid: int) -> bool:
        try:
            process = psutil.Process(pid)
            return not _is_gone(pid) and self._carries_mark(process)
        except psutil.Error:
            return False

    def _carries_mark(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            if any(word.endswith(self.mark) for word in process.cmdline()):
                return True
        with suppress(psutil.Error):
            return bool(process.environ().get(MARK_VARIABLE) == self.mark)
        return False

    def _leads(self, process: psutil.Process) -> bool:
        try:
            return os.getsid(process.pid) == process.pid and self._is_ours(process.pid)
        except OSError:
            return False

    def _members(self) -> list[psutil.Process]:
        """Every process of this service: those with its mark, and those of the session that its pid leads or led."""
        noted = self._noted()
        led = noted[0] if noted and (self._is_ours(noted[0]) or _is_gone(noted[0])) else None
        members = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                in_session = led is not None and os.getsid(process.pid) == led and process.uids().real == os.geteuid()
                if process.status() != psutil.STATUS_ZOMBIE and (in_session or self._carries_mark(process)):
                    members.append(process)
        return members


def _gone_within(pid: int, limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while True:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # reaps it when this very process is its parent
        if _is_gone(pid):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S / 2)


def _is_gone(pid: int) -> bool:
    try:
        # a container's pid 1 may never reap: a zombie is as dead as it gets
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
