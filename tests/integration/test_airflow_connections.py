"""Airflow's connections of Headrace's own types: their forms, the button Test, and that tasks use them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

PEOPLE = """
from typing import Annotated
from pydantic import BaseModel
from headrace.contract import Masked, Text
from headrace.dataset import Dataset, KafkaTopic
from headrace.formats import Avro

class Person(BaseModel):
    email: Annotated[Text, Masked("hmac")]

DATASET = Dataset(name="people", contract=Person, source=KafkaTopic(topic="people"), format=Avro())
"""

# as Airflow's API server tests a connection: from its environment, under an id of its own
SCRIPT = """
import json, os, sys
from airflow.models.connection import Connection
from airflow.providers_manager import ProvidersManager

given = json.loads(sys.stdin.read())
manager = ProvidersManager()
told = {"hooks": sorted(name for name in manager.hooks if name.startswith("headrace"))}
told["fields"] = sorted(name for name in manager.connection_form_widgets if "headrace" in name)
told["hidden"] = manager.field_behaviours["headrace_kafka"]["hidden_fields"]
# as Airflow 3.1 asks: only a class's own methods
from headrace.airflow import hooks
told["own"] = [
    name for name, hook in vars(hooks).items()
    if name.startswith("Headrace") and {"get_ui_field_behaviour", "get_connection_form_widgets"} <= set(vars(hook))
]
told["labels"] = hooks.HeadraceKafkaHook.get_ui_field_behaviour()["relabeling"]
told["links"] = [name for name in manager.extra_links_class_names if "headrace" in name]
for name, fields in given["tested"].items():
    connection = Connection(conn_id=name, **fields)
    os.environ[f"AIRFLOW_CONN_{name.upper()}"] = connection.get_uri()
    told[name] = connection.test_connection()

from headrace.airflow.connections import build_settings, deployment
ours = deployment(registry=True)
with ours.connect("a name")() as connection:
    told["connected"] = connection.execute("show application_name").fetchone()[0]
used = {"kafka": ours.kafka()["bootstrap_servers"], "redis": ours.redis()}
used["registry"] = [ours.settings.registry_url, ours.settings.registry_user, ours.settings.registry_password]
told["used"] = used
os.environ["HEADRACE_MASKING_KEY"] = given["masking_key"]
from headrace.airflow.operators import opened
ours, people = opened(given["datasets"], "people")
told["opened"] = [type(people.format.schemas).__name__, ours.settings.registry_url, people.masking_key is not None]
del os.environ["HEADRACE_MASKING_KEY"]
os.environ |= given["variables"]
ours = deployment(registry=True)
told["overridden"] = [*ours.kafka()["bootstrap_servers"], ours.redis(), ours.settings.registry_url]
told["built"] = build_settings().dbt_dsn
print(json.dumps(told))
"""


def _ask(home: Path, given: dict[str, Any], connections: dict[str, Any]) -> dict[str, Any]:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "HEADRACE_HOME": str(home / "headrace"),
        **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(each) for name, each in connections.items()},
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment, input=json.dumps(given), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "canary" not in done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def _connections(postgres_dsn: str, bootstrap_servers: str, redis_url: str) -> dict[str, dict[str, Any]]:
    """One of each type, with the empty fields that the form sends; no registry listens at port 1."""
    dsn, redis = conninfo_to_dict(postgres_dsn), urlsplit(redis_url)
    extra = {"sslmode": "", "sslrootcert": None} | ({"passfile": dsn["passfile"]} if "passfile" in dsn else {})
    return {
        "headrace_postgres": {
            "conn_type": "headrace_postgres", "host": dsn["host"], "port": int(dsn["port"] or 0), "login": dsn["user"],
            "schema": dsn["dbname"], "extra": json.dumps(extra),
        },
        "headrace_kafka": {
            "conn_type": "headrace_kafka", "extra": json.dumps({"bootstrap_servers": bootstrap_servers}),
        },
        "headrace_redis": {
            "conn_type": "headrace_redis", "host": redis.hostname, "port": redis.port, "password": redis.password,
        },
        "headrace_registry": {
            "conn_type": "headrace_registry", "login": "me", "password": "canary-one",
            "extra": json.dumps({"url": "http://127.0.0.1:1", "ssl_password": "", "token": None}),
        },
    }  # fmt: skip


VARIABLES = {
    "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "other:9", "HEADRACE_REDIS_URL": "redis://other:7/0",
    "HEADRACE_REGISTRY_URL": "http://other:8", "HEADRACE_DBT_DSN": "dbname=other",
}  # fmt: skip


@pytest.fixture(scope="module")
def told(postgres_dsn: str, bootstrap_servers: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    connections = _connections(postgres_dsn, bootstrap_servers, redis_url)
    tested = {name.removeprefix("headrace_"): each for name, each in connections.items()}
    tested["closed"] = connections["headrace_postgres"] | {"port": 1, "password": "canary-two"}
    tested["misspelt"] = {"conn_type": "headrace_kafka", "extra": json.dumps({"bootstrap_server": "x:1"})}
    datasets = tmp_path_factory.mktemp("project") / "datasets"
    datasets.mkdir()
    (datasets / "people.py").write_text(PEOPLE)
    given = {"tested": tested, "variables": VARIABLES, "datasets": str(datasets), "masking_key": "canary of all masks"}
    found = _ask(tmp_path_factory.mktemp("airflow"), given, connections)
    return found | {"bootstrap_servers": bootstrap_servers, "redis_port": urlsplit(redis_url).port}


def test_connection_types_have_forms(told: dict[str, Any]) -> None:
    assert told["hooks"] == ["headrace_kafka", "headrace_postgres", "headrace_redis", "headrace_registry"]
    assert {"extra__headrace_kafka__bootstrap_servers", "extra__headrace_registry__token"} <= set(told["fields"])
    assert len(told["own"]) == len(told["hooks"])
    assert told["labels"] == {"login": "SASL user", "password": "SASL password"}
    assert told["hidden"] == ["host", "port", "schema"]
    assert told["links"] == ["headrace.airflow.links.HeadraceLink"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("postgres", "PostgreSQL "), ("kafka", "Kafka: 1 brokers, cluster "), ("redis", "Redis ")],
)
def test_connection_to_a_service_that_answers_passes_its_test(name: str, expected: str, told: dict[str, Any]) -> None:
    passed, message = told[name]
    assert passed, message
    assert message.startswith(expected)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("registry", "registry: http://127.0.0.1:1 does not answer"),
        ("closed", "postgres: "),
        ("misspelt", "headrace_kafka: found 'bootstrap_server' in its extra, expected some of"),
    ],
)
def test_connection_that_cannot_work_fails_its_test_in_one_line(name: str, expected: str, told: dict[str, Any]) -> None:
    passed, message = told[name]
    assert not passed
    assert message.startswith(expected)
    assert "\n" not in message
    assert "canary" not in message


def test_tasks_use_the_connections_and_variables_override_them(told: dict[str, Any]) -> None:
    assert told["connected"] == "a name"
    assert told["used"]["kafka"] == told["bootstrap_servers"].split(",")
    assert urlsplit(told["used"]["redis"]).port == told["redis_port"]
    assert told["used"]["registry"] == ["http://127.0.0.1:1", "me", "canary-one"]
    assert told["overridden"] == ["other:9", "redis://other:7/0", "http://other:8"]
    assert told["built"] == "dbname=other"


def test_dataset_of_a_task_has_its_registry_and_the_key_of_its_masks(told: dict[str, Any]) -> None:
    assert told["opened"] == ["Registry", "http://127.0.0.1:1", True]
