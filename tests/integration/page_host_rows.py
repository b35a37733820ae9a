"""A declaration of d00001 for tests/page_host.py, and dead letters of it: hostile, binary, large, acceptable."""

from typing import Any

from psycopg import Connection

DECLARATION = """
from typing import Annotated

from pydantic import BaseModel

from headrace.contract import Masked
from headrace.dataset import Dataset, KafkaTopic


class Order(BaseModel):
    id: int
    name: str
    card: Annotated[str | None, Masked("last4")] = None


DATASET = Dataset(
    name="d00001", contract=Order, key="id", source=KafkaTopic(topic="d00001", dead_letter_topic="d00001_dead"),
    description="Orders <b>with</b> a description",
)
"""
HOSTILE = "</pre><script>window.hostile = 1</script><img src=x onerror='window.hostile = 2'>"
LARGE = 200_000
DEAD_LETTERS = {
    11: ("missing_field", HOSTILE.encode()),
    12: ("undecodable", bytes(range(256)) * 10),
    13: ("too_large", b'{"id": 1, "name": "' + b"x" * LARGE + b'"}'),
    14: ("wrong_type", b'{"id": 1, "name": "\\u003cb\\u003e", "card": "4111"}'),
}


def add_dead_letters(connection: Connection[Any]) -> None:
    """Insert them, one of them published, and let the newest batches name a run of Airflow's."""
    for offset, (reason, value) in DEAD_LETTERS.items():
        connection.execute(
            """
            insert into headrace.dead_letters (
                dataset, generation, partition, "offset", key, value, "timestamp", reason, detail, json_path, batch_id,
                published_at, headers
            )
            select
                dataset, generation, partition, %s, '\\x31', %s, now(), %s, repeat('long ', 100) || %s, '$.name',
                batch_id, case when %s = 11 then now() end,
                '[{"key": "trace", "value": "<b>"}, {"key": "raw", "base64": "AP8="}]'
            from headrace.batches where dataset = 'd00001' and seq = 4
            """,
            (offset, value, reason, HOSTILE, offset),
        )
    connection.execute(
        "update headrace.batches set dag_id = 'ingest_d00001', run_id = 'scheduled__2026-03-01T12:00:00+00:00', "
        "task_id = 'drain', map_index = -1 where dataset = 'd00001'"
    )
