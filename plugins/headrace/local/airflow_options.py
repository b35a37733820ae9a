"""The environment with which an `airflow` command uses one HEADRACE_HOME."""

import base64
import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from headrace.exceptions import SettingError
from headrace.local.addresses import address, airflow_password_file, dsn_parameters, environment
from headrace.local.home import secret
from headrace.service_urls import redis_options
from headrace.settings import COMPOSED, PREFIX, SECRETS, Settings, builder_dsn, read_services
from headrace.sources.kafka_security import OPTIONS, from_settings

DATABASE = "airflow"


def options(settings: Settings) -> dict[str, str]:
    """The variables that Headrace sets for Airflow, nothing of this process's own environment.

    Needs Postgres's address; Kafka's and Airflow's are used where known. Holds the keys that sign and encrypt, which
    are made once and kept in HEADRACE_HOME/airflow (mode 0600): never print it.
    """
    known = environment(settings)
    parameters = _known_parameters(known, "HEADRACE_POSTGRES_DSN") or dsn_parameters(settings.require_postgres_dsn())
    url = address(settings, "airflow") or "http://127.0.0.1:8080"
    values = _configuration(settings, url, parameters) | _connections(settings, known, parameters)
    return values | _own_settings(settings) | known


def _configuration(settings: Settings, url: str, parameters: Mapping[str, str]) -> dict[str, str]:
    """Airflow's own settings. url: of its API server. parameters: of its database's server."""
    room = settings.home.resolve() / "airflow"
    return {
        "AIRFLOW_HOME": str(room),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.project / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(settings.project / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks DNS, which may be slow or absent
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{settings.airflow_user}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(room / "passwords.json"),
        "AIRFLOW__CORE__FERNET_KEY": secret(room / "fernet_key", _fernet_key),
        "AIRFLOW__API_AUTH__JWT_SECRET": secret(room / "jwt_secret"),
        "AIRFLOW__API__SECRET_KEY": secret(room / "api_secret_key"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": url.rsplit(":", 1)[1],
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_url(parameters, "postgresql+psycopg2"),
        # asyncpg, the default, knows neither sslmode nor most of libpq's other parameters
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database_url(parameters, "postgresql+psycopg"),
        # with Airflow's 1 s four chained tasks take 4.7 s; with 0.1 s an idle scheduler takes 15 % of a core
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
        # detects a task whose worker was killed after half a minute instead of five, so that a follower is replaced
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "25",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",  # as often as datasets are drained
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(room / "logs"),
        "AIRFLOW__LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(room / "logs" / "dag_processor"),
        "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        # Airflow sets these modes regardless of its umask: by default other users of its group may write
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FOLDER_PERMISSIONS": "0o700",
        "AIRFLOW__LOGGING__FILE_TASK_HANDLER_NEW_FILE_PERMISSIONS": "0o600",
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "False",
        "SPT_NOENV": "1",  # setproctitle must not overwrite the environment, by which `headrace down` finds workers
    }


def _connections(settings: Settings, known: Mapping[str, str], parameters: Mapping[str, str]) -> dict[str, str]:
    """The connections of Headrace's tasks. known: as `headrace env` has it. parameters: of the loader's server."""
    values = {"AIRFLOW_CONN_HEADRACE_POSTGRES": json.dumps(_postgres_connection(parameters))}
    if builders := _known_parameters(known, "HEADRACE_DBT_DSN"):
        values["AIRFLOW_CONN_HEADRACE_DBT"] = json.dumps(_postgres_connection(builders))
    elif local := builder_dsn(known.get("HEADRACE_POSTGRES_DSN", ""), read_services(settings.home)):
        values["AIRFLOW_CONN_HEADRACE_DBT"] = json.dumps(_postgres_connection(dsn_parameters(local)))
    if servers := known.get("HEADRACE_KAFKA_BOOTSTRAP_SERVERS"):
        config = from_settings(dataclasses.replace(settings, kafka_bootstrap_servers=servers))
        extra = {OPTIONS[name]: value for name, value in config.items()} | {"bootstrap.servers": servers}
        values["AIRFLOW_CONN_HEADRACE_KAFKA"] = json.dumps({"conn_type": "kafka", "extra": extra})
    if redis_url := address(settings, "redis"):
        values["AIRFLOW_CONN_HEADRACE_REDIS"] = json.dumps(_redis_connection(redis_url))
    return values


def full_environment(settings: Settings) -> dict[str, str]:
    """The options on top of this process's environment, with this interpreter's programs first in PATH."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    programs = str(Path(sys.executable).parent)
    return inherited | options(settings) | {"PATH": os.pathsep.join([programs, inherited.get("PATH", os.defpath)])}


def write_passwords(settings: Settings) -> None:
    """Make the user's password where it is missing and hand it to Airflow's SimpleAuthManager."""
    kept = airflow_password_file(settings)
    try:
        password = secret(kept)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise SettingError(f"HEADRACE_AIRFLOW_PASSWORD_FILE: {kept} cannot be read: {reason}; correct it") from error
    wanted = json.dumps({settings.airflow_user: password})
    path = settings.home.resolve() / "airflow" / "passwords.json"
    if not path.exists() or path.read_text().strip() != wanted:
        path.unlink(missing_ok=True)
        secret(path, lambda: wanted)


def database_url(parameters: Mapping[str, str], driver: str) -> str:
    """The metadata database's SQLAlchemy URL: the given server, the database `airflow`, no password."""
    named = ("user", "host", "port", "dbname", "password")
    rest = {name: value for name, value in parameters.items() if name not in named}
    user = f"{quote(parameters['user'], safe='')}@" if "user" in parameters else ""
    host = parameters.get("host", "localhost").split(",")[0]
    port = parameters.get("port", "5432").split(",")[0]
    if host.startswith("/"):  # a directory of sockets
        rest["host"], host = host, ""
    return f"{driver}://{user}{host}:{port}/{DATABASE}" + (f"?{urlencode(rest, quote_via=quote)}" if rest else "")


def _postgres_connection(parameters: Mapping[str, str]) -> dict[str, Any]:
    named = {"host": "host", "login": "user", "schema": "dbname"}
    connection: dict[str, Any] = {"conn_type": "postgres"}
    connection |= {ours: parameters[libpq] for ours, libpq in named.items() if libpq in parameters}
    if "port" in parameters:
        connection["port"] = int(parameters["port"].split(",")[0])
    extra = {name: value for name, value in parameters.items() if name not in ("host", "port", "user", "dbname")}
    return connection | {"extra": extra}


def _known_parameters(known: Mapping[str, str], variable: str) -> dict[str, str]:
    """The parameters of a DSN as `headrace env` has it: whole, where secrets of it are in a file; none if not given."""
    if f"{variable}_FILE" in known:
        return dsn_parameters(Path(known[f"{variable}_FILE"]).read_text())
    return dsn_parameters(known[variable]) if variable in known else {}


def _redis_connection(url: str) -> dict[str, Any]:
    options = redis_options(url)
    if "path" in options:
        raise SettingError(
            "HEADRACE_REDIS_URL: found a socket, expected redis://host:port for Airflow, whose connections name hosts"
        )
    connection: dict[str, Any] = {"conn_type": "redis", "host": options.get("host"), "port": options.get("port", 6379)}
    if options.get("password"):
        connection |= {"login": options.get("username", ""), "password": options["password"]}
    return connection | {"extra": {"db": options.get("db", 0), "ssl": urlsplit(url).scheme == "rediss"}}


def _own_settings(settings: Settings) -> dict[str, str]:
    """The settings that differ from their defaults, as variables: a task sees what `headrace up` saw."""
    values = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if field.name not in (*COMPOSED, *SECRETS) and value is not None and value != field.default:
            values[PREFIX + field.name.upper()] = ",".join(value) if isinstance(value, tuple) else str(value)
    return {name: value for name, value in values.items() if not name.endswith("_PORT")}


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()
