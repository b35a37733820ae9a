"""The hooks of Headrace's connection types: their forms for Airflow 3.1, and the button Test.

Tasks do not use hooks: `connections` opens what they need. The button asks the service that the form describes.
"""

from typing import Any, ClassVar

from airflow.sdk import BaseHook

from headrace.airflow import extras
from headrace.airflow.provider import KAFKA, POSTGRES, REDIS, REGISTRY, TYPES
from headrace.exceptions import HeadraceError
from headrace.masking import mask
from headrace.optional import needs
from headrace.settings import Settings

TIMEOUT_S = 8


def _behaviour(hook: Any) -> dict[str, Any]:
    """The labels of a form's fields."""
    described = TYPES[hook.conn_type]["ui-field-behaviour"]
    return {
        "hidden_fields": described.get("hidden-fields", []),
        "relabeling": described.get("relabeling", {}),
        "placeholders": described.get("placeholders", {}),
    }


def _widgets(hook: Any) -> dict[str, Any]:
    """A form's own fields."""
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import Optional, any_of

    widgets: dict[str, Any] = {}
    for name, field in TYPES[hook.conn_type]["conn-fields"].items():
        kind, schema = StringField, field["schema"]
        if schema.get("format") == "password":
            kind = PasswordField
        elif "boolean" in schema["type"]:
            kind = BooleanField
        elif "integer" in schema["type"]:
            kind = IntegerField
        validators = [Optional()] + ([any_of(schema["enum"])] if "enum" in schema else [])
        widgets[name] = kind(field["label"], validators=validators, description=field.get("description", ""))
    return widgets


_FORM: dict[str, Any] = {"get_ui_field_behaviour": _behaviour, "get_connection_form_widgets": _widgets}


class _ServiceHook(BaseHook):
    """A hook whose connection can be tested."""

    conn_name_attr = "conn_id"
    conn_type: ClassVar[str]
    hook_name: ClassVar[str]

    def __init__(self, conn_id: str | None = None, **_options: Any) -> None:
        super().__init__()
        self.conn_id = conn_id or self.conn_type

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, method in _FORM.items():  # Airflow 3.1 asks only a class's own methods, not those of its bases
            setattr(cls, name, classmethod(method))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the service answers, and what it says; no secret is in it."""
        try:
            return True, mask(self._answer(self.get_connection(self.conn_id)))
        except HeadraceError as error:
            return False, mask(str(error))
        except Exception as error:  # of a driver: the button shows its text
            return False, mask(" ".join(f"{type(error).__name__}: {error}".split()))

    def _answer(self, connection: Any) -> str:
        raise NotImplementedError


class HeadracePostgresHook(_ServiceHook):
    """The database with the schemas headrace, staging and marts."""

    conn_type = POSTGRES
    default_conn_name = POSTGRES
    hook_name = TYPES[POSTGRES]["hook-name"]

    def _answer(self, connection: Any) -> str:
        from headrace.postgres.connection import connector, database
        from headrace.postgres.liveness import answered_within

        connect = connector(extras.dsn(POSTGRES, connection), "headrace test")
        with answered_within(TIMEOUT_S), database(connect) as opened:
            found = opened.execute(
                "select current_setting('server_version'), current_user, current_database(),"
                " to_regclass('headrace.datasets') is not null"
            ).fetchone()
            assert found is not None
            version, user, name, is_initialised = found
        tables = "its tables are there" if is_initialised else "it has no tables yet: run `headrace init`"
        return f"PostgreSQL {version}: user {user}, database {name}; {tables}"


class HeadraceKafkaHook(_ServiceHook):
    """The brokers of topics."""

    conn_type = KAFKA
    default_conn_name = KAFKA
    hook_name = TYPES[KAFKA]["hook-name"]

    def _answer(self, connection: Any) -> str:
        from headrace.sources.kafka_security import from_connection
        from headrace.sources.kafka_topics import cluster

        brokers, cluster_id = cluster(
            from_connection(extras.decoded(KAFKA, connection), connection.login, connection.password), TIMEOUT_S
        )
        return f"Kafka: {brokers} brokers, cluster {cluster_id}"


class HeadraceRedisHook(_ServiceHook):
    """The server of streams."""

    conn_type = REDIS
    default_conn_name = REDIS
    hook_name = TYPES[REDIS]["hook-name"]

    def _answer(self, connection: Any) -> str:
        with needs("redis"):
            import redis

        url = extras.redis_url(REDIS, connection)
        options = {"socket_connect_timeout": TIMEOUT_S, "socket_timeout": TIMEOUT_S}
        with redis.Redis.from_url(url, retry=None, **options) as client:
            version: Any = client.info("server")
            return f"Redis {version.get('redis_version', 'of unknown version')}: it answers"


class HeadraceRegistryHook(_ServiceHook):
    """The schema registry of Avro, Protobuf and JSON Schema."""

    conn_type = REGISTRY
    default_conn_name = REGISTRY
    hook_name = TYPES[REGISTRY]["hook-name"]

    def _answer(self, connection: Any) -> str:
        from headrace.formats.registry import Registry

        subjects = Registry(extras.registry_settings(REGISTRY, connection, Settings())).subjects()
        return f"Schema registry: {len(subjects)} subjects"
