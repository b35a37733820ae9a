"""The services by Airflow's connections: headrace_postgres, headrace_kafka, headrace_redis and headrace_registry.

headrace_dbt is for deployments whose loader has no rights on the marts. A HEADRACE_* variable overrides a service's
connection, so that a worker can have an address of its own. psycopg connects, not the hook of Airflow's Postgres
provider: beside Airflow 3.1 that gives connections of psycopg2.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog
from airflow.sdk import BaseHook, get_current_context
from airflow.sdk import Connection as AirflowConnection
from airflow.sdk.log import mask_secret
from psycopg import Connection

from headrace import logs, masking
from headrace.airflow import extras
from headrace.airflow.compat import (
    AirflowException,
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)
from headrace.airflow.provider import KAFKA, POSTGRES, REDIS, REGISTRY
from headrace.deployment import Deployment
from headrace.exceptions import DatasetPaused, HeadraceError, PermanentError, SettingError
from headrace.output import quoted
from headrace.postgres.connection import Connect, connector
from headrace.postgres.ledger import RunContext
from headrace.service_urls import libpq_parameters
from headrace.settings import Settings
from headrace.sources.kafka_security import from_connection, from_settings

DBT = "headrace_dbt"  # a role that may build and read marts, if the loader's may not


def deployment(settings: Settings | None = None, *, registry: bool = False) -> Deployment:
    """The deployment of a task: settings from the environment, services from variables or connections.

    settings: of a project. Defaults to the environment's. registry: whether the run decodes by a schema registry.
    """
    settings = settings or Settings.from_environment()
    if registry:
        settings = _with_registry(settings)
    for secret in masking.known():  # Airflow masks those of connections itself
        mask_secret(secret)
    logs.use(_TaskLog())
    ours = settings
    return Deployment(ours, lambda name: _connect(ours, name), lambda: _kafka_config(ours), lambda: _redis_url(ours))


class _TaskLog(logging.Handler):
    """Writes records to the task's log, of JSON lines, by structlog: the standard library's way loses their fields."""

    def emit(self, record: logging.LogRecord) -> None:
        event, fields = logs.event_of(record)
        structlog.get_logger(record.name).log(record.levelno, event, **fields)


def build_settings(settings: Settings | None = None) -> Settings:
    """Settings with dbt's DSN: HEADRACE_DBT_DSN, else the connection headrace_dbt, else what `deployment` connects to.

    dbt opens its own connections, so it needs a DSN.
    """
    settings = settings or Settings.from_environment()
    if settings.dbt_dsn:
        return settings
    builder = _find(DBT)
    return replace(settings, dbt_dsn=extras.dsn(DBT, builder) if builder is not None else _postgres_dsn(settings))


def postgres_parameters(settings: Settings) -> dict[str, str]:
    """The parameters, in libpq's names, of the database that `deployment` connects to."""
    return libpq_parameters(_postgres_dsn(settings), "HEADRACE_POSTGRES_DSN")


def run_context() -> RunContext:
    """The running task, for the ledger."""
    task_instance = get_current_context()["ti"]
    return RunContext(
        dag_id=task_instance.dag_id,
        run_id=task_instance.run_id,
        task_id=task_instance.task_id,
        try_number=task_instance.try_number,
        map_index=-1 if task_instance.map_index is None else task_instance.map_index,
    )


@contextmanager
def task_errors() -> Iterator[None]:
    """Fail the task at once, in one line, for an error that a retry cannot remedy; skip it for a paused dataset.

    Airflow logs an exception with its causes, whose texts may come from elsewhere: they are masked and escaped.
    """
    try:
        yield
    except DatasetPaused as error:
        raise AirflowSkipException(str(error)) from None
    except PermanentError as error:
        raise AirflowFailException(str(error)) from quoted(error.__cause__)
    except HeadraceError as error:
        raise error from quoted(error.__cause__)
    except AirflowException:
        raise
    except Exception as error:
        stand_in = quoted(error)
        if stand_in is error:
            raise
        raise stand_in from stand_in.__cause__


def _find(name: str) -> AirflowConnection | None:
    """A connection, whose password is masked from now on; None if it is not defined."""
    try:
        connection = BaseHook.get_connection(name)
    except AirflowNotFoundException:
        return None
    masking.remember(connection.password)
    return connection


def _require(name: str, variable: str) -> AirflowConnection:
    connection = _find(name)
    if connection is None:
        raise SettingError(
            f"{name}: found no connection of this name and no {variable}, expected one of them; add the connection "
            "(Admin > Connections), or set the variable where tasks run"
        )
    return connection


def _connect(settings: Settings, application_name: str) -> Connect:
    def connect() -> Connection[Any]:  # the connection is read when it is used: a task may connect again hours later
        return connector(_postgres_dsn(settings), application_name)()

    return connect


def _postgres_dsn(settings: Settings) -> str:
    if settings.postgres_dsn:
        return settings.require_postgres_dsn()
    return extras.dsn(POSTGRES, _require(POSTGRES, "HEADRACE_POSTGRES_DSN"))


def _redis_url(settings: Settings) -> str:
    return settings.redis_url or extras.redis_url(REDIS, _require(REDIS, "HEADRACE_REDIS_URL"))


def _kafka_config(settings: Settings) -> Mapping[str, Any]:
    if settings.kafka_bootstrap_servers:
        return from_settings(settings)
    connection = _require(KAFKA, "HEADRACE_KAFKA_BOOTSTRAP_SERVERS")
    return from_connection(extras.decoded(KAFKA, connection), connection.login, connection.password)


def _with_registry(settings: Settings) -> Settings:
    connection = None if settings.registry_url else _find(REGISTRY)
    return settings if connection is None else extras.registry_settings(REGISTRY, connection, settings)
