"""The environment of a process that Airflow's tasks run in, with a stage's services as its connections."""

import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict

from tests.support.stage import Stage


def airflow_environment(stage: Stage, home: Path, *, postgres_extra: dict[str, Any] | None = None) -> dict[str, str]:
    """Airflow's home, its connections to the services that the stage has, and the stage's datasets.

    For a process of its own: Airflow takes over the logging of any that imports it.
    """
    settings, postgres = stage.deployment.settings, conninfo_to_dict(stage.dsn)
    extra = {name: postgres[name] for name in ("passfile",) if name in postgres} | (postgres_extra or {})
    connections: dict[str, Any] = {
        "POSTGRES": {
            "conn_type": "postgres",
            "host": postgres["host"],
            "port": int(postgres["port"] or 0),
            "login": postgres["user"],
            "schema": postgres["dbname"],
            "extra": extra,
        }
    }
    if settings.kafka_bootstrap_servers:
        kafka = {"bootstrap.servers": settings.kafka_bootstrap_servers}
        connections["KAFKA"] = {"conn_type": "kafka", "extra": kafka}
    if settings.redis_url:
        redis = urlsplit(settings.redis_url)
        connections["REDIS"] = {"conn_type": "redis", "host": redis.hostname, "port": redis.port}
    return {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        **{f"AIRFLOW_CONN_HEADRACE_{name}": json.dumps(connection) for name, connection in connections.items()},
        "HEADRACE_DATASETS_DIR": str(settings.datasets_dir),
    }
