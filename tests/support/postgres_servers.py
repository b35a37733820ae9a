"""PostgreSQL servers of other versions than the embedded one: Debian's 15 and the 16 of the wheel pgserver."""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg

from headrace.local.postgres import SYSTEM_USERS, binary
from tests.support.debian import PackageNotAvailable, cache_folder, library_path, unpacked

LIMIT_S = 60
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PG")} | {"LC_ALL": "C.UTF-8"}


def binaries(version: int) -> Path:
    """The folder of the programs of a major version; raises NotAvailable where it cannot be had."""
    if version == 18:
        return binary("postgres").parent
    if version == 16:
        spec = importlib.util.find_spec("pgserver")
        if spec is None or spec.origin is None:
            raise PackageNotAvailable("there is no wheel of pgserver for this Python or machine")
        return Path(spec.origin).parent / "pginstall" / "bin"
    installed = Path(f"/usr/lib/postgresql/{version}/bin")
    if installed.exists():
        return installed
    name = f"postgresql-{version}"
    return unpacked(cache_folder() / name, (name,), print) / installed.relative_to("/")


@contextmanager
def server(version: int, *options: str, encoding: str = "UTF8") -> Iterator[str]:
    """The DSN, of a superuser, of a new server; it keeps nothing and is stopped at the end."""
    programs = binaries(version)
    folder = Path(tempfile.mkdtemp(prefix=f"headrace-postgres-{version}-"))
    try:
        if programs.is_relative_to(cache_folder()):  # a home folder, which another user may not pass through
            root = cache_folder() / programs.relative_to(cache_folder()).parts[0]
            copy = folder / "program"
            shutil.copytree(root, copy, symlinks=True)
            programs = copy / programs.relative_to(root)
        account = _account(folder)
        environment = ENVIRONMENT | {"LD_LIBRARY_PATH": library_path(folder / "program")}
        run: Callable[..., None] = lambda *argv: _run(argv, environment, account)  # noqa: E731
        data = folder / "data"
        run(programs / "initdb", "-D", data, "-U", "headrace", "-A", "trust", "-N", "-E", encoding, "--locale", "C")
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [
                *(str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""),
                *("-c", "fsync=off", "-c", "max_connections=60", "-c", "shared_buffers=64MB", *options),
            ],
            env=environment,
            stdout=(folder / "log").open("wb"),
            stderr=subprocess.STDOUT,
            **account,
        )
        try:
            dsn = f"host=127.0.0.1 port={port} user=headrace dbname=postgres"
            _wait(dsn, process, folder / "log")
            yield dsn
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait(LIMIT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account(folder: Path) -> dict[str, Any]:
    """Whom the server runs as: Postgres refuses root."""
    if os.geteuid() != 0:
        return {}
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in (*SYSTEM_USERS, "nobody") if name in known)
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid}


def _run(argv: tuple[object, ...], environment: dict[str, str], account: dict[str, Any]) -> None:
    done = subprocess.run([str(word) for word in argv], env=environment, capture_output=True, text=True, **account)
    assert done.returncode == 0, done.stderr


def _wait(dsn: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=5).close()
            return
        except psycopg.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
