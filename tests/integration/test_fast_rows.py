"""COPY text of the fast path and binary COPY of decoded rows store the same values."""

from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL

from headrace.dataset import load_dataset
from headrace.deployment import Deployment
from headrace.ingest.batch import Batch
from headrace.ingest.prepare import initialise
from headrace.postgres import staging
from headrace.record import KafkaRecord
from headrace.settings import Settings
from tests.support.fuzz_payloads import payloads
from tests.support.shapes import SHAPES

SEED = 20_261_123
TIMES = (None, -1, 0, 1, 999, 1_700_000_000_123, 253_402_300_799_999, 2**60)


@pytest.mark.parametrize("name", SHAPES)
def test_rows_of_both_ways_are_stored_alike(name: str, database: str, tmp_path: Path) -> None:
    declared, shape = SHAPES[name]
    (tmp_path / f"{name}.py").write_text((declared / f"{name}.py").read_text())
    initialise(Deployment.from_settings(Settings(home=tmp_path, postgres_dsn=database, datasets_dir=tmp_path)))
    dataset = load_dataset(tmp_path, name)
    batch, rng = Batch(dataset, 1, 2, 0), Random(SEED)
    for offset, payload in enumerate(payloads(shape, SEED, 6_000, huge=False)):
        batch.add(KafkaRecord(2**33 + offset, rng.choice(TIMES), payload.key, payload.value, payload.headers))
    counted = (len(batch.rows), len(batch.dead), batch.tombstones)
    lines = sum(isinstance(row, str) for row in batch.rows)
    assert lines > 300
    stored = []
    with psycopg.connect(database, autocommit=True) as connection:
        for _ in range(2):
            with connection.cursor() as cursor:
                batch.copy(cursor, staging.copy_target(connection, dataset))
            stored.append(_rows(connection, dataset.name))
            connection.execute(SQL("truncate {}").format(staging.table(dataset)))
            assert batch.decode_by_contract() == (
                len(stored) == 1
            )  # the second time there is nothing left of the fast way
    assert stored[0] == stored[1]
    assert len(stored[0]) == counted[0] == len(batch.rows)
    assert counted == (len(batch.rows), len(batch.dead), batch.tombstones)


def _rows(connection: psycopg.Connection[Any], name: str) -> list[tuple[Any, ...]]:
    """All columns as text: some times are beyond Python's years."""
    query = SQL("select row(t.*)::text from staging.{} as t order by _offset").format(psycopg.sql.Identifier(name))
    return connection.execute(query).fetchall()
