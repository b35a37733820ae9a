"""Airflow: api-server, scheduler, dag-processor and triggerer, each in its own supervised process.

`airflow standalone` is not used: on SIGTERM it does not end its children.
"""

import hashlib
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.callbacks import PrintLine
from headrace.exceptions import LocalServiceError
from headrace.local.addresses import dsn_parameters, environment
from headrace.local.airflow_options import DATABASE, full_environment, options, write_passwords
from headrace.local.home import Home, Surroundings, write_file
from headrace.local.process import Service
from headrace.private_files import make_folder
from headrace.settings import Settings

if TYPE_CHECKING:
    from psycopg import Connection

COMPONENTS = {
    "api-server": ("api-server",),
    "scheduler": ("scheduler", "--skip-serve-logs"),  # the api-server reads task logs from the same disk
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
HEALTH = ("metadatabase", "scheduler", "dag_processor", "triggerer")  # the parts of /api/v2/monitor/health
READY_LIMIT_S = 180.0  # 14-19 s on two idle cores
RECOVER_LIMIT_S = 45.0  # a component that lost its database for a moment is called unhealthy for 30 s
MIGRATE_LIMIT_S = 600.0
UNDER_WAY = "headrace: airflow is being set up"  # the database's comment until the first migration is through
CONFIG = "# Headrace sets Airflow's options as environment variables: see plugins/headrace/local/airflow_options.py\n"


def component(home: Path, name: str) -> Service:
    """The process of one of Airflow's components."""
    return Service(home, f"airflow-{name}")


def prepare(home: Home, settings: Settings, print_line: PrintLine) -> None:
    """Create the metadata database, its tables and Airflow's files; an incomplete database is created again."""
    from importlib.metadata import version as version_of

    room = home.path / "airflow"
    make_folder(room)
    write_passwords(settings)
    if not (room / "airflow.cfg").exists():  # otherwise Airflow writes one with its own keys
        write_file(room / "airflow.cfg", CONFIG)
    version = version_of("apache-airflow")
    if not _create_database(settings, version):
        return
    print_line(f"airflow: migrating its database to {version}")
    home.run(
        _airflow("db", "migrate"),
        doing="airflow: db migrate",
        limit_s=MIGRATE_LIMIT_S,
        within=Surroundings(env=full_environment(settings), cwd=settings.project),
    )
    _comment(settings, _made_by(version))


def start(home: Home, settings: Settings, port: int, print_line: PrintLine) -> dict[str, Any]:
    """Start stopped components and wait until Airflow reports all of them as healthy.

    Components that were started with other options (Postgres moved, a setting changed) are started again.
    """
    address = f"http://127.0.0.1:{port}"
    env = full_environment(settings)
    fingerprint = home.path / "airflow" / "options.sha256"
    wanted = hashlib.sha256(json.dumps(options(settings), sort_keys=True).encode()).hexdigest()
    if not fingerprint.exists() or fingerprint.read_text().strip() != wanted:
        if any(component(home.path, name).pid() for name in COMPONENTS):
            print_line("airflow: starting again, its options changed")
            stop(home.path)
        write_file(fingerprint, wanted + "\n")
    components = {name: component(home.path, name) for name in COMPONENTS}
    if all(process.pid() for process in components.values()) and not _recovers(home.path, port):
        print_line("airflow: starting again, it is not healthy")
        stop(home.path)
    for name, process in components.items():
        if process.pid() is None:
            process.start(_airflow(*COMPONENTS[name]), ports=[port], env=env, cwd=settings.project)
    try:
        for process in components.values():
            process.wait(lambda: why_not_ready(home.path, port), READY_LIMIT_S)
    except BaseException:
        stop(home.path)
        raise
    return {"address": address, "port": port}


def stop(home: Path) -> bool:
    """Stop all components at once, and their remaining workers and tasks. Returns whether any ran."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(COMPONENTS)) as pool:
        stopped = list(pool.map(lambda name: component(home, name).stop(), COMPONENTS))
    return any(stopped)


def why_not_ready(home: Path, port: int) -> str | None:
    """Why Airflow is not healthy, in its own words; None if all four components are."""
    import urllib.request  # 40 ms, saved for `headrace env`

    for name in COMPONENTS:
        if component(home, name).pid() is None:
            return f"airflow-{name} does not run (see {component(home, name).log})"
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy leads to 127.0.0.1
        with opener.open(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5) as response:
            health = json.load(response)
        states = {part: _state(home, part, health[part]) for part in HEALTH}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"127.0.0.1:{port} does not answer ({error})"
    if not component(home, "api-server").listens_on(port):
        return f"127.0.0.1:{port} is answered by another program"
    unhealthy = [f"{part} is {state}" for part, state in states.items() if state != "healthy"]
    return ", ".join(unhealthy) or None


def _state(home: Path, part: str, health: dict[str, str]) -> str:
    """A part's state; a heartbeat from before its process started does not count."""
    heartbeat = health.get(f"latest_{part}_heartbeat")
    if heartbeat is not None and datetime.fromisoformat(heartbeat).timestamp() < _started_at(home, part):
        return "starting"
    return str(health["status"])


def _started_at(home: Path, part: str) -> float:
    try:
        return component(home, part.replace("_", "-")).pid_file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _recovers(home: Path, port: int) -> bool:
    deadline = time.monotonic() + RECOVER_LIMIT_S
    while why_not_ready(home, port) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def _airflow(*words: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *words]


def _create_database(settings: Settings, version: str) -> bool:
    """Create the metadata database if it is missing or incomplete; returns whether it needs a migration."""
    import psycopg

    dsn = environment(settings).get("HEADRACE_POSTGRES_DSN") or settings.require_postgres_dsn()
    where = dsn_parameters(dsn).get("host", "localhost")
    comment_of = "select shobj_description(oid, 'pg_database') from pg_database where datname = 'airflow'"
    try:
        with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
            found = connection.execute(comment_of).fetchone()
            if found is not None and found[0] == _made_by(version):
                return False
            if found is not None and found[0] == UNDER_WAY:
                connection.execute("drop database airflow with (force)")
                found = None
            if found is None:
                connection.execute("create database airflow")
            elif found[0] is None and not _is_empty(dsn):
                raise LocalServiceError(
                    f"airflow: {where} has a database {DATABASE} that is not Headrace's; expected none; rename it, or "
                    "set HEADRACE_AIRFLOW_URL to the Airflow that uses it"
                )
            if found is None or found[0] is None:
                _comment_on(connection, UNDER_WAY)
    except psycopg.Error as error:
        raise LocalServiceError(
            f"airflow: its database {DATABASE} on {where} cannot be made ({' '.join(str(error).split())}); expected a "
            "role that may create databases; grant createdb, or set HEADRACE_AIRFLOW_URL to a running Airflow"
        ) from error
    return True


def _is_empty(dsn: str) -> bool:
    import psycopg

    with psycopg.connect(dsn, dbname=DATABASE, connect_timeout=10) as connection:
        tables = connection.execute("select from pg_class where relnamespace = 'public'::regnamespace limit 1")
        return tables.fetchone() is None


def _comment(settings: Settings, text: str) -> None:
    import psycopg

    dsn = environment(settings).get("HEADRACE_POSTGRES_DSN") or settings.require_postgres_dsn()
    with psycopg.connect(dsn, autocommit=True, connect_timeout=10) as connection:
        _comment_on(connection, text)


def _comment_on(connection: "Connection[Any]", text: str) -> None:
    from psycopg import sql

    connection.execute(sql.SQL("comment on database airflow is {}").format(sql.Literal(text)))


def _made_by(version: str) -> str:
    return f"headrace: airflow {version}"
