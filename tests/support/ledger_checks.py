"""The ledger checks: conditions that ledger, checkpoints, staging and dead letters fulfil at any time."""

from collections.abc import Iterable
from typing import Any

import psycopg

from headrace.settings import Settings
from headrace.verify import verify
from tests.support.stage import Stage


def coordinates(stage: Stage, dataset: str = "jobs") -> list[tuple[int, int]]:
    """Partition and offset of every row and dead letter of the open generation, sorted."""
    return sorted(
        stage.query(
            f"""
            with open as (select generation from headrace.generations where dataset = %(d)s and is_open)

            select _partition, _offset from staging.{dataset} where _generation = (select generation from open)
            union all
            select partition, "offset" from headrace.dead_letters
            where dataset = %(d)s and generation = (select generation from open) and replayed_by is null
            """.replace("%(d)s", f"'{dataset}'")
        )
    )


def totals(stage: Stage, dataset: str = "jobs") -> dict[str, Any]:
    """What a dataset came to, in a form that two runs over the same records share."""
    return {
        "coordinates": coordinates(stage, dataset),
        "dead": stage.query(
            'select partition, "offset", key, value, reason from headrace.dead_letters where dataset = %s '
            "order by 1, 2",
            dataset,
        ),
        "checkpoints": stage.query(
            "select c.partition, c.next_offset from headrace.checkpoints as c inner join headrace.generations as g "
            "using (dataset, generation) where dataset = %s and g.is_open order by 1",
            dataset,
        ),
        "sums": stage.query(
            "select sum(staged), sum(dead), sum(tombstones), sum(empty), sum(ignored) from headrace.batches "
            "where dataset = %s",
            dataset,
        ),
    }


def assert_ledger(stage: Stage, sent: Iterable[tuple[int, int]] | None = None, dataset: str = "jobs") -> None:
    """Assert that the ledger chains and adds up; and that exactly the sent coordinates were ingested, once each."""
    if sent is not None:
        assert coordinates(stage, dataset) == sorted(sent)
    lines = stage.query(
        "select seq, generation, partition, start_offset, end_offset, staged, dead, tombstones, empty, ignored, kind, "
        "batch_id "
        "from headrace.batches where dataset = %s order by seq",
        dataset,
    )
    assert [line[0] for line in lines] == list(range(1, len(lines) + 1))
    assert stage.query("select last_seq from headrace.datasets where dataset = %s", dataset) == [(len(lines),)]
    ends: dict[tuple[int, int], int] = {}
    for _, generation, partition, start, end, staged, dead, tombstones, empty, ignored, kind, batch_id in lines:
        if kind not in ("replay", "reload", "fill", "reset"):  # they move no checkpoint
            assert start == ends.get((generation, partition), 1 if kind == "load" else 0)
            ends[generation, partition] = end
        if kind in ("drain", "load", "replace"):
            assert end - start == staged + dead + tombstones + empty + ignored
        assert (staged, tombstones) == stage.query(
            f"select count(*) filter (where not _deleted), count(*) filter (where _deleted) from staging.{dataset} "
            "where _batch_id = %s and _generation = %s and _partition = %s and _offset >= %s and _offset < %s",
            batch_id, generation, partition, start, end,
        )[0]  # fmt: skip
        assert dead == stage.value(
            'select count(*) from headrace.dead_letters where batch_id = %s and "offset" >= %s and "offset" < %s',
            batch_id, start, end,
        )  # fmt: skip
    for generation, partition, next_offset in stage.query(
        "select generation, partition, next_offset from headrace.checkpoints where dataset = %s", dataset
    ):
        assert next_offset == ends.get((generation, partition), next_offset)
    assert (
        stage.value(
            f"select count(*) from staging.{dataset} where _batch_id not in (select batch_id from headrace.batches)"
        )
        == 0
    )


def assert_nothing_left(stage: Stage) -> None:
    """Assert that no other session is connected or holds a lock in the stage's database."""
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        query = (
            "select application_name, state, query from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
        for _ in range(100):
            left = connection.execute(query).fetchall()
            if not left:
                return
            connection.execute("select pg_sleep(0.05)")
    raise AssertionError(f"still connected: {left}")


def assert_proven(stage: Stage, dataset: str = "jobs", *, deep: bool = True) -> None:
    """Assert that `headrace verify` finds nothing, and that no session is left."""
    verification = verify(stage.deployment, dataset, deep=deep)
    assert verification.is_clean, list(verification.lines())
    assert_nothing_left(stage)


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a subprocess that works with the same settings."""
    assert settings.postgres_dsn
    services = {
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "HEADRACE_REDIS_URL": settings.redis_url,
    }
    return {
        "PATH": "/usr/bin:/bin",
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_POSTGRES_DSN": settings.postgres_dsn,
        **{name: address for name, address in services.items() if address},
        "HEADRACE_DATASETS_DIR": str(settings.datasets_dir),
        "HEADRACE_DATA_DIR": str(settings.data_dir),
        "HEADRACE_BATCH_ROWS": str(settings.batch_rows),
    }


def ledger_lines(stage: Stage) -> list[tuple[object, ...]]:
    """The ledger: kind, generation, partition, start and end, rows."""
    return stage.query(
        "select kind, generation, partition, start_offset, end_offset, staged from headrace.batches "
        "order by generation, partition, start_offset, seq"
    )
