"""Settings with passwords that are wrong, and addresses that cannot be read; each holds a canary."""

from urllib.parse import quote

from psycopg.conninfo import make_conninfo

from headrace.deployment import Deployment
from headrace.settings import Settings
from tests.support.stage import Stage

ODD = "#é \"x'\\/ @:%?&<"  # what is written otherwise in URLs, connection strings, JSON, shells and pages


def mistaken_addresses(stage: Stage, redis_url: str) -> list[tuple[str, str]]:
    """Variables and their values: passwords that are wrong, addresses that cannot be read."""
    wrong = {
        "HEADRACE_POSTGRES_DSN": make_conninfo(stage.dsn, password=f"canary-mistaken{ODD}"),
        "HEADRACE_REDIS_URL": redis_url.replace("redis://", f"redis://etl:{quote(f'canary-mistaken{ODD}', safe='')}@"),
        "HEADRACE_KAFKA_SASL_PASSWORD": f"canary-mistaken{ODD}",
    }
    return [
        *wrong.items(),
        ("HEADRACE_POSTGRES_DSN", "postgresql://etl:canary-mistaken@[db/sales"),
        ("HEADRACE_POSTGRES_DSN", "postgresql://etl:canary-mistaken@canary-mistaken@db/sales"),
        ("HEADRACE_POSTGRES_DSN_FILE", "postgresql://etl:canary-mistaken@db/sales"),
        ("HEADRACE_REDIS_URL", "canary://etl:canary-mistaken@cache"),
        ("HEADRACE_REDIS_URL", "redis://etl:1#canary-mistaken@cache"),
        ("HEADRACE_AIRFLOW_URL", "http://ops:canary-mistaken@airflow"),
    ]


def with_mistaken_password(secrets: dict[str, str]) -> Deployment:
    """A deployment whose password for Kafka is wrong."""
    given = {name: text for name, text in secrets.items() if not name.startswith("HEADRACE_KAFKA_SASL_PASSWORD")}
    given["HEADRACE_KAFKA_SASL_PASSWORD"] = f"canary-mistaken{ODD}"
    return Deployment.from_settings(Settings.from_environment(given))
