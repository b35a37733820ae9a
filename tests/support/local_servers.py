"""What local services of a home are and hold: their processes, topics and rows."""

import os
import signal
from contextlib import suppress

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


def discard(settings: Settings) -> None:
    """Stop the servers of a home whose data goes with it: none of them need write what it holds."""
    for name, pid in server_pids(settings).items():
        with suppress(ProcessLookupError):  # Postgres ends its processes and its shared memory when told to quit
            os.kill(pid, signal.SIGQUIT if name == "postgres" else signal.SIGKILL)
    services.down(settings, print_line=lambda _line: None)


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
