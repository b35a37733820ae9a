"""HEADRACE_HOME: who may change it at a time, and what is remembered in it.

Every file here is replaced whole (written aside, then renamed), so that a kill at any moment leaves the old one
or the new one, never half of one.
"""

import fcntl
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.exceptions import LocalServiceError
from headrace.settings import read_services

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Home:
    """A HEADRACE_HOME whose lock this process holds."""

    path: Path
    lock_fd: int

    def remember(self, service: str, record: Mapping[str, Any]) -> None:
        """Write one service's address and ports to services.json."""
        services = read_services(self.path) | {service: dict(record)}
        write_file(self.path / "services.json", json.dumps(services, indent=2, sort_keys=True) + "\n", mode=0o644)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        doing: str,
        limit_s: float,
        user: int | None = None,
        group: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | str = "/",
        stdin: str = "",
    ) -> str:
        """Run a command to its end and return its output; LocalServiceError when it fails or takes too long.

        The command inherits the lock: when this process is killed, the next `headrace up` waits for the command
        instead of working on the same files at the same time.
        """
        try:
            done = subprocess.run(
                [str(word) for word in argv],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=limit_s,
                check=False,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                env=None if env is None else dict(env),
                cwd=cwd,
                pass_fds=(self.lock_fd,),
            )
        except subprocess.TimeoutExpired as error:
            raise LocalServiceError(f"{doing}: not done after {limit_s:.0f} s; expected less; try again") from error
        except OSError as error:
            raise LocalServiceError(f"{doing}: {argv[0]} cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            raise LocalServiceError(
                f"{doing}: found exit status {done.returncode}, expected 0; it said: {quote_lines(done.stdout)}"
            )
        return done.stdout


@contextmanager
def locked(path: Path, report: Report) -> Iterator[Home]:
    """Create HEADRACE_HOME where it is missing and hold its lock; a second `headrace up` waits here."""
    try:
        for directory in (path, path / "run", path / "logs"):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        tempfile.TemporaryFile(dir=path).close()  # the lock of another day opens on a full disk, too
    except OSError as error:
        raise LocalServiceError(
            f"HEADRACE_HOME: {path} cannot be written: {(error.strerror or 'failed').lower()}; expected a directory of "
            "this user; correct its permissions or set HEADRACE_HOME to another one"
        ) from error
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"waiting for another `headrace up` or `headrace down` of {path}")
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
        yield Home(path.resolve(), lock_fd)
    except OSError as error:
        raise LocalServiceError(
            f"HEADRACE_HOME: {error.filename or path}: {(error.strerror or str(error)).lower()}; "
            "expected to read and write it; correct its permissions or free some space"
        ) from error
    finally:
        os.close(lock_fd)


def write_file(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replace a file whole, through to the disk."""
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "w") as file:
            os.fchmod(fd, mode)
            file.write(text)
            file.flush()
            os.fsync(fd)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> str:
    """The secret kept in a file of mode 0600; made when the file is missing or empty."""
    with suppress(FileNotFoundError):
        if kept := path.read_text().strip():
            return kept
    made = make()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_file(path, made + "\n")
    return made


def set_aside(path: Path, report: Report) -> None:
    """Rename what cannot be used, so that nothing of anybody's is ever deleted."""
    number = 1
    while (aside := path.with_name(f"{path.name}.unusable-{number}")).exists():
        number += 1
    path.rename(aside)
    report(f"{path} is half made: kept as {aside.name}, making a new one")


def quote_lines(text: str, count: int = 12) -> str:
    """The last lines of an output, each behind a bar, for the end of an error message."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return " ".join(f"| {line[:500]}" for line in lines[-count:]) or "| (nothing)"
