"""HEADRACE_HOME: its lock, and the files in it.

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

from headrace.callbacks import PrintLine
from headrace.exceptions import LocalServiceError
from headrace.private_files import (
    FILE_MODE,
    FOLDER_MODE,
    UMASK,
    check_home,
    close_to_others,
    make_folder,
    read_bounded,
    replaced_file,
)
from headrace.settings import SECRET_BYTES_MAX, SECRETS, read_services

FOLDERS = ("run", "logs", "kafka", "valkey", "airflow", "dbt", "registry")
POSTGRES = "postgres"  # a folder, which closes itself
FILES = ("services.json", "lock", "pgpass", "pgpass-dbt", *SECRETS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The environment of a command: variables, directory, user and group. Defaults to this process's, and to /."""

    env: Mapping[str, str] | None = None
    cwd: Path | str = "/"
    user: int | None = None
    group: int | None = None


SURROUNDINGS = Surroundings()


@dataclass(frozen=True, slots=True)
class Home:
    """A HEADRACE_HOME whose lock this process holds."""

    path: Path
    lock_fd: int

    def remember(self, service: str, record: Mapping[str, Any]) -> None:
        """Write one service's address and ports to services.json."""
        services = read_services(self.path) | {service: dict(record)}
        write_file(self.path / "services.json", json.dumps(services, indent=2, sort_keys=True) + "\n")

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        doing: str,
        limit_s: float,
        within: Surroundings = SURROUNDINGS,
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
                user=within.user,
                group=within.group,
                extra_groups=None if within.user is None else [],
                env=None if within.env is None else dict(within.env),
                cwd=within.cwd,
                umask=UMASK,
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
def locked(path: Path, print_line: PrintLine) -> Iterator[Home]:
    """Create HEADRACE_HOME if it is missing and hold its lock; a second `headrace up` waits here.

    Refuses a home of another user, and corrects the modes of one of an earlier version.
    """
    check_home(path)
    try:
        for directory in (path, path / "run", path / "logs"):
            make_folder(directory)
        _close(path)
        lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        tempfile.TemporaryFile(dir=path).close()  # an existing lock file can be opened on a full disk
    except OSError as error:
        raise LocalServiceError(
            f"HEADRACE_HOME: {path} cannot be written: {(error.strerror or 'failed').lower()}; expected a directory of "
            "this user; correct its permissions or set HEADRACE_HOME to another one"
        ) from error
    try:
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_line(f"waiting for another `headrace up` or `headrace down` of {path}")
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
        umask = os.umask(UMASK)  # jgo and others do not set modes
        try:
            yield Home(path.resolve(), lock_fd)
        finally:
            os.umask(umask)
    except OSError as error:
        raise LocalServiceError(
            f"HEADRACE_HOME: {error.filename or path}: {(error.strerror or str(error)).lower()}; "
            "expected to read and write it; correct its permissions or free some space"
        ) from error
    finally:
        os.close(lock_fd)


def write_file(path: Path, text: str) -> None:
    """Replace a file whole, through to the disk, with mode 0600."""
    with replaced_file(path) as file:
        file.write(text.encode())


def secret(path: Path, make: Callable[[], str] = lambda: secrets.token_urlsafe(32)) -> str:
    """The secret kept in a file of mode 0600; made when the file is missing or empty."""
    with suppress(FileNotFoundError):
        if kept := read_bounded(path, SECRET_BYTES_MAX).decode().strip():
            return kept
    made = make()
    make_folder(path.parent)
    write_file(path, made + "\n")
    return made


def _close(path: Path) -> None:
    """Close what lies directly in HEADRACE_HOME to other users, and itself, unless it holds other things as well.

    root's Postgres runs as another user, who may pass through by its group.
    """
    for entry in path.iterdir():
        if entry.name in FOLDERS and not entry.is_symlink():
            close_to_others(entry)
        elif entry.name in FILES and entry.is_file() and not entry.is_symlink():
            entry.chmod(FILE_MODE)
    if all(entry.name in (*FOLDERS, *FILES, POSTGRES) for entry in path.iterdir()):
        path.chmod(path.stat().st_mode & (0o710 if os.geteuid() == 0 else FOLDER_MODE))


def set_aside(path: Path, print_line: PrintLine) -> None:
    """Rename a folder that cannot be used; nothing is deleted."""
    number = 1
    while (aside := path.with_name(f"{path.name}.unusable-{number}")).exists():
        number += 1
    path.rename(aside)
    print_line(f"{path} is incomplete: kept as {aside.name}, creating a new one")


def quote_lines(text: str, count: int = 12) -> str:
    """The last lines of an output, each behind a bar, for the end of an error message."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return " ".join(f"| {line[:500]}" for line in lines[-count:]) or "| (nothing)"
