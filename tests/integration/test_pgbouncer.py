"""Postgres behind pgbouncer in transaction mode: every transaction may use another backend."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from headrace.deployment import Deployment
from headrace.exceptions import CheckpointMoved, HeadraceError
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.local.postgres_roles import passfile, passwords
from headrace.marts.build import build
from headrace.monitor.status import read_status
from headrace.postgres.connection import connector
from headrace.postgres.session import PooledConnection
from headrace.verify import verify
from tests.support import topics
from tests.support.debian import PackageNotAvailable, cache_folder, library_path, unpacked
from tests.support.hostile_database import ENVIRONMENT, HOSTILE, LOCATION, make_hostile
from tests.support.interrupts import drain_that_gets, wait_until_stopped
from tests.support.jobs import jobs, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger
from tests.support.session_parameters import EXPECTED, found_in_transaction, found_parameters
from tests.support.stage import Stage

POOL = 4  # backends for all clients of a database: fewer than clients
READY_S = 10


@pytest.fixture(scope="module")
def program() -> tuple[str, dict[str, str]]:
    """pgbouncer, this machine's or Debian's, and the environment that it runs in."""
    if found := shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"):
        return found, dict(os.environ)
    try:
        root = unpacked(cache_folder() / "pgbouncer", ("pgbouncer",), print)
    except PackageNotAvailable as error:
        pytest.skip(f"no pgbouncer on this machine, and {error}")
    return str(root / "usr" / "sbin" / "pgbouncer"), os.environ | {"LD_LIBRARY_PATH": library_path(root)}


@pytest.fixture(scope="module")
def pooler(postgres_dsn: str, session_home: Path, program: tuple[str, dict[str, str]]) -> Iterator[int]:
    """The port of a pgbouncer in front of the session's Postgres."""
    folder = session_home / "pgbouncer"
    folder.mkdir(mode=0o755)
    password = passwords(passfile(session_home))["headrace"]
    (folder / "userlist.txt").write_text(f'"headrace" "{password}"\n')
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    options = {
        "listen_addr": "127.0.0.1",
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "userlist.txt",
        "pool_mode": "transaction",
        "default_pool_size": POOL,
        "server_idle_timeout": 1,  # else its backends keep databases from being dropped
        "logfile": folder / "pgbouncer.log",
    }
    executable, environ = program
    command = [executable, str(folder / "pgbouncer.ini")]
    if os.geteuid() == 0:  # it refuses to run as root
        user = pwd.getpwnam("postgres" if "postgres" in {each.pw_name for each in pwd.getpwall()} else "nobody")
        options["user"] = user.pw_name
        for path in (folder, folder / "userlist.txt"):
            os.chown(path, user.pw_uid, user.pw_gid)
    lines = [f"{name} = {value}" for name, value in options.items()]
    server = f"* = host=127.0.0.1 port={conninfo_to_dict(postgres_dsn)['port']}"
    (folder / "pgbouncer.ini").write_text("\n".join(["[databases]", server, "[pgbouncer]", *lines, ""]))
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_S
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, (folder / "pgbouncer.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def pooled(stage: Stage, pooler: int) -> Stage:
    """The stage with its deployment behind pgbouncer; the tests query Postgres directly."""
    dsn = make_conninfo("", **conninfo_to_dict(stage.dsn) | {"port": str(pooler)})
    settings = replace(stage.deployment.settings, postgres_dsn=dsn, batch_rows=20)
    return Stage(Deployment.from_settings(settings), stage.dsn)


def test_whole_way_through_a_pooler_is_as_without(pooled: Stage) -> None:
    sent = send_jobs(pooled, 300)
    with ThreadPoolExecutor(6) as threads:  # more than there are backends, behind one lock
        assert list(threads.map(lambda _: initialise(pooled.deployment), range(6))) == [[]] * 6
        drained = list(threads.map(lambda _: _drain_patiently(pooled), range(2)))
    assert sum(drained) == 300
    assert_ledger(pooled, sent)
    load_file(pooled.deployment, "users")
    assert build(pooled.deployment.settings, select="users", tests=False).rows == 21_467
    assert [each.dataset for each in read_status(pooled.deployment.connect("test")).datasets] == ["jobs", "users"]
    assert verify(pooled.deployment, "jobs", deep=True).is_clean
    left = pooled.query(
        "select state from pg_stat_activity "
        "where datname = current_database() and pid <> pg_backend_pid() and state <> 'idle'"
    )
    assert left == []


def _drain_patiently(stage: Stage) -> int:
    """Drain beside another drain: the second one at a batch continues after it."""
    records = 0
    while True:
        before = stage.value("select coalesce(sum(staged), 0) from headrace.batches where dataset = 'jobs'")
        try:
            records += drain_dataset(stage.deployment, "jobs")[1].records
            return records
        except CheckpointMoved:
            after = stage.value("select sum(staged) from headrace.batches where dataset = 'jobs'")
            assert after > before


@pytest.mark.parametrize("step", ["staged", "before_commit"])
def test_drain_frozen_behind_a_pooler_is_ended_by_its_replacement(step: str, pooled: Stage) -> None:
    settings = replace(pooled.deployment.settings, lock_timeout_ms=100, stuck_after_ms=400)
    pooled = Stage(Deployment.from_settings(settings), pooled.dsn)
    sent = send_jobs(pooled, 100, 1)
    with drain_that_gets(signal.SIGSTOP, step, pooled) as frozen:
        wait_until_stopped(frozen)
        drain_dataset(pooled.deployment, "jobs")
        assert_ledger(pooled, sent)
        os.kill(frozen.pid, signal.SIGCONT)
        frozen.join(20)
        assert frozen.exitcode == 1
    assert_ledger(pooled, sent)


def test_drain_killed_behind_a_pooler_leaves_no_lock(pooled: Stage) -> None:
    sent = send_jobs(pooled, 100, 1)
    with drain_that_gets(signal.SIGKILL, "before_commit", pooled) as killed:
        killed.join(20)
    drain_dataset(pooled.deployment, "jobs")
    assert_ledger(pooled, sent)


def test_session_behind_a_pooler_has_its_own_parameters_and_leaves_none(
    pooled: Stage, postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_hostile(postgres_dsn, pooled.dsn)
    dsn = str(pooled.deployment.settings.postgres_dsn)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with connector(dsn, "test")() as connection:
        assert isinstance(connection, PooledConnection)
        for look in (found_parameters, found_in_transaction) * 2:
            assert look(connection) == EXPECTED
        assert connection.execute("select %s, octet_length(%s)", (LOCATION, "ó")).fetchone() == (LOCATION, 2)
        with psycopg.connect(dsn, options="", autocommit=True) as another:
            found = found_parameters(another)
    assert [name for name in HOSTILE if found[name] == EXPECTED[name]] == []


@pytest.mark.faults  # `make test-postgres`: the way through a pooler once more
def test_hostile_defaults_behind_a_pooler_change_nothing(pooled: Stage, postgres_dsn: str) -> None:
    sent = topics.send(
        servers(pooled),
        topic_of(pooled),
        [(p, key, (value or b"").replace(b"LOC_1", LOCATION.encode())) for p, key, value in jobs(100)],
    )
    # dbt looks for what exists in transactions that no macro of ours begins: they get a moment more
    make_hostile(postgres_dsn, pooled.dsn, moment="10s")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        initialise(pooled.deployment)
        drain_dataset(pooled.deployment, "jobs")
        load_file(pooled.deployment, "users")
        for full_refresh in (False, True):
            build(pooled.deployment.settings, select=("jobs+", "users+"), full_refresh=full_refresh)
        verification = verify(pooled.deployment, "jobs", deep=True)
    with psycopg.connect(postgres_dsn, autocommit=True) as connection:
        database = Identifier(str(conninfo_to_dict(pooled.dsn)["dbname"]))
        connection.execute(SQL("alter database {} reset all").format(database))
    assert verification.is_clean, list(verification.lines())
    assert_ledger(pooled, sent)
    assert pooled.query("select distinct location, jobs from marts.jobs, marts.jobs_per_minute") == [(LOCATION, 100)]


def test_startup_parameter_that_a_pooler_refuses_is_named_in_one_line(pooled: Stage) -> None:
    dsn = make_conninfo(str(pooled.deployment.settings.postgres_dsn), options="-c statement_timeout=0")
    settings = replace(pooled.deployment.settings, postgres_dsn=dsn)
    with pytest.raises(HeadraceError) as caught:
        read_status(Deployment.from_settings(settings).connect("test"))
    assert re.match(r"postgres: .*unsupported startup parameter: options", str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
