"""What Airflow reads of the package by its entry point `apache_airflow_provider`: the connection types and their forms.

Imported by every process of Airflow, so it imports nothing. Airflow 3.2 and later read the forms from here; 3.1 asks
the hooks, which read them from here too.
"""

from typing import Any

from headrace import __version__

POSTGRES, KAFKA, REDIS, REGISTRY = "headrace_postgres", "headrace_kafka", "headrace_redis", "headrace_registry"
LINKS = ["headrace.airflow.links.HeadraceLink"]


def _text(label: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"label": label, "description": description, "schema": {"type": ["string", "null"], **schema}}


def _file(label: str) -> dict[str, Any]:
    return _text(label, "The path of a PEM file that the workers may read.")


def _choice(label: str, description: str, *values: str) -> dict[str, Any]:
    return _text(label, description, enum=[*values, None])


TYPES: dict[str, dict[str, Any]] = {
    POSTGRES: {
        "hook-class-name": "headrace.airflow.hooks.HeadracePostgresHook",
        "hook-name": "Headrace Postgres",
        "ui-field-behaviour": {
            "relabeling": {"schema": "Database", "login": "User"},
            "placeholders": {"port": "5432", "schema": "the database with the schemas headrace, staging and marts"},
        },
        "conn-fields": {
            "sslmode": _choice("SSL mode", "libpq's sslmode.", "disable", "require", "verify-ca", "verify-full"),
            "sslrootcert": _file("CA certificate"),
            "sslcert": _file("Client certificate"),
            "sslkey": _file("Client key"),
        },
    },
    KAFKA: {
        "hook-class-name": "headrace.airflow.hooks.HeadraceKafkaHook",
        "hook-name": "Headrace Kafka",
        "ui-field-behaviour": {
            "hidden-fields": ["host", "port", "schema"],
            "relabeling": {"login": "SASL user", "password": "SASL password"},
        },
        "conn-fields": {
            "bootstrap_servers": _text("Bootstrap servers", "host:port, or several with commas between them."),
            "security_protocol": _choice(
                "Security protocol", "Defaults to PLAINTEXT.", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"
            ),
            "sasl_mechanism": _choice(
                "SASL mechanism",
                "With a SASL protocol. Of OAUTHBEARER, SASL user and password are the client's id and secret.",
                "PLAIN",
                "SCRAM-SHA-256",
                "SCRAM-SHA-512",
                "OAUTHBEARER",
                "AWS_MSK_IAM",
            ),
            "sasl_oauth_token_url": _text("Token URL", "Of OAUTHBEARER: https://..., which issues tokens."),
            "sasl_oauth_scope": _text("Token scope", "Of OAUTHBEARER, if the endpoint wants one."),
            "sasl_oauth_cafile": _file("CA certificate of the token URL"),
            "ssl_cafile": _file("CA certificate"),
            "ssl_certfile": _file("Client certificate"),
            "ssl_keyfile": _file("Client key"),
            "ssl_password": _text("Password of the client key", "If the key is encrypted.", format="password"),
        },
    },
    REDIS: {
        "hook-class-name": "headrace.airflow.hooks.HeadraceRedisHook",
        "hook-name": "Headrace Redis",
        "ui-field-behaviour": {
            "hidden-fields": ["schema"],
            "relabeling": {"login": "User"},
            "placeholders": {"port": "6379"},
        },
        "conn-fields": {
            "db": {"label": "Database", "schema": {"type": ["integer", "null"], "minimum": 0}},
            "ssl": {"label": "TLS", "schema": {"type": ["boolean", "null"], "default": False}},
            "ssl_ca_certs": _file("CA certificate"),
            "ssl_certfile": _file("Client certificate"),
            "ssl_keyfile": _file("Client key"),
        },
    },
    REGISTRY: {
        "hook-class-name": "headrace.airflow.hooks.HeadraceRegistryHook",
        "hook-name": "Headrace Schema Registry",
        "ui-field-behaviour": {"hidden-fields": ["host", "port", "schema"], "relabeling": {"login": "User"}},
        "conn-fields": {
            "url": _text("URL", "http(s)://host:port[/path], or several with commas between them."),
            "token": _text("Bearer token", "In the place of user and password.", format="password"),
            "ssl_cafile": _file("CA certificate"),
            "ssl_certfile": _file("Client certificate"),
            "ssl_keyfile": _file("Client key"),
            "ssl_password": _text("Password of the client key", "If the key is encrypted.", format="password"),
        },
    },
}


def get_provider_info() -> dict[str, Any]:
    """The provider's description, by Airflow's provider_info.schema.json."""
    return {
        "package-name": "headrace",
        "name": "Headrace",
        "description": "Kafka topics into Postgres staging tables, exactly once, and on into dbt marts",
        "versions": [__version__],
        "connection-types": [{"connection-type": name, **described} for name, described in TYPES.items()],
        "extra-links": LINKS,
    }
