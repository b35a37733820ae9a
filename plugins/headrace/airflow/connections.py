"""The services by Airflow's connections: headrace_postgres, headrace_kafka and headrace_redis.

headrace_dbt is for deployments whose loader has no rights on the marts.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog
from airflow.sdk import BaseHook, get_current_context
from airflow.sdk import Connection as AirflowConnection
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException
from airflow.sdk.log import mask_secret
from psycopg import Connection
from psycopg.conninfo import make_conninfo

from headrace import logs, masking
from headrace.airflow import extras
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError, PermanentError, SettingError
from headrace.output import quoted
from headrace.postgres.connection import opened
from headrace.postgres.ledger import RunContext
from headrace.postgres.liveness import with_limits
from headrace.settings import Settings
from headrace.sources.kafka_security import CONNECTION as KAFKA
from headrace.sources.kafka_security import from_connection

POSTGRES = "headrace_postgres"
DBT = "headrace_dbt"  # a role that may build and read marts, if the loader's may not
REDIS = "headrace_redis"


def deployment() -> Deployment:
    """The deployment of a task: settings from the environment, services from connections."""
    settings = Settings.from_environment()
    for secret in masking.known():  # Airflow masks those of connections itself
        mask_secret(secret)
    logs.use(_TaskLog())
    return Deployment(settings, lambda _name: _connect, _kafka_config, _redis_url)


class _TaskLog(logging.Handler):
    """Writes records to the task's log, of JSON lines, by structlog: the standard library's way loses their fields."""

    def emit(self, record: logging.LogRecord) -> None:
        event, fields = logs.event_of(record)
        structlog.get_logger(record.name).log(record.levelno, event, **fields)


def build_settings() -> Settings:
    """Settings with dbt's DSN from the connection headrace_dbt, or headrace_postgres if that is not defined.

    dbt opens its own connections, so it needs a DSN.
    """
    try:
        connection = BaseHook.get_connection(DBT)
    except AirflowNotFoundException:
        connection = BaseHook.get_connection(POSTGRES)
    masking.remember(connection.password)
    parameters = extras.libpq_parameters(connection.conn_id, connection)
    return replace(Settings.from_environment(), dbt_dsn=make_conninfo("", **parameters))


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
    """Fail the task at once, in one line, for an error that a retry cannot remedy.

    Airflow logs an exception with its causes, whose texts may come from elsewhere: they are masked and escaped.
    """
    try:
        yield
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


def _connect() -> Connection[Any]:
    from airflow.providers.postgres.hooks.postgres import PostgresHook

    given = BaseHook.get_connection(POSTGRES)
    parameters = with_limits(extras.libpq_parameters(POSTGRES, given))
    fields: dict[str, Any] = {field: parameters.pop(parameter, None) for parameter, field in extras.FIELDS.items()}
    # the hook would pass all extras on, and return dictionaries if a cursor is chosen
    stripped = AirflowConnection(conn_id=POSTGRES, conn_type="postgres", extra=json.dumps(parameters), **fields)
    connection = PostgresHook(postgres_conn_id=POSTGRES, connection=stripped).get_conn()
    if not isinstance(connection, Connection):
        raise SettingError(
            f"{POSTGRES}: the hook gave a {type(connection).__module__} connection, expected psycopg 3; install "
            "psycopg and SQLAlchemy 2"
        )
    return opened(connection)


def _redis_url() -> str:
    connection = BaseHook.get_connection(REDIS)
    masking.remember(connection.password)
    return extras.redis_url(REDIS, connection)


def _kafka_config() -> Mapping[str, Any]:
    connection = BaseHook.get_connection(KAFKA)
    return from_connection(connection.extra_dejson, connection.login, connection.password)
