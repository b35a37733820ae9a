"""What local services of a home are and hold: their processes, topics and rows."""

import psycopg
from kafka import KafkaAdminClient
from kafka.admin import NewTopic

from headrace.local import kafka, postgres, services
from headrace.settings import Settings

BOTH = ("postgres", "kafka")


def server_pids(settings: Settings) -> dict[str, int]:
    """The pids of those that run."""
    home = settings.home.resolve()
    found = {"postgres": postgres.service(home).pid(), "kafka": kafka.service(home).pid()}
    return {name: pid for name, pid in found.items() if pid is not None}


def query(settings: Settings, sql: str) -> list[tuple[object, ...]]:
    """Rows of a statement; none if it returns none."""
    with psycopg.connect(services.environment(settings)["HEADRACE_POSTGRES_DSN"], autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def topic_names(settings: Settings, create: str | None = None) -> set[str]:
    """All topics, and one that is created first."""
    admin = KafkaAdminClient(bootstrap_servers=services.environment(settings)["HEADRACE_KAFKA_BOOTSTRAP_SERVERS"])
    try:
        if create is not None and create not in admin.list_topics():
            admin.create_topics([NewTopic(create, num_partitions=1, replication_factor=1)])
        return set(admin.list_topics())
    finally:
        admin.close()
