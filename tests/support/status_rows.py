"""Rows of the ledger and the like, written by hand, for the figures of status and page."""

from headrace.ingest import observations, totals
from headrace.monitor.figures import DatasetStatus, Status
from headrace.monitor.status import read_status
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.connection import database as connected
from tests.support.stage import Stage


def read(stage: Stage) -> Status:
    return read_status(stage.deployment.connect("test"))


def jobs(stage: Stage) -> DatasetStatus:
    return next(dataset for dataset in read(stage).datasets if dataset.dataset == "jobs")


def begin(stage: Stage, partitions: int = 1, dataset: str = "jobs") -> None:
    """An open generation, nothing read."""
    stage.execute(
        f"insert into headrace.generations (dataset, generation, topic, topic_id) values ('{dataset}', 1, 'j', 'id')",
        *(
            f"insert into headrace.checkpoints (dataset, generation, partition, next_offset) "
            f"values ('{dataset}', 1, {partition}, 0)"
            for partition in range(partitions)
        ),
    )


def batch(stage: Stage, partition: int, start: int, end: int, **columns: str) -> None:
    """A drain's ledger line [start, end), committed now unless `columns` (SQL expressions) say otherwise."""
    given: dict[str, str] = {
        "staged": str(end - start),
        "started_at": "now() - interval '2 s'",
        "committed_at": "now()",
        "first_record_at": "now() - interval '5 s'",
        "last_record_at": "now() - interval '3 s'",
        "kind": "'drain'",
    } | columns
    stage.execute(
        f"""
        with counted as (
            update headrace.datasets set last_seq = last_seq + 1 where dataset = 'jobs' returning last_seq
        )

        insert into headrace.batches (
            batch_id, dataset, seq, generation, partition, start_offset, end_offset, {", ".join(given)}
        )
        select gen_random_uuid(), 'jobs', last_seq, 1, {partition}, {start}, {end}, {", ".join(given.values())}
        from counted
        """,
        f"update headrace.checkpoints set next_offset = {end} where dataset = 'jobs' and partition = {partition}",
    )


def observe(stage: Stage, partition: int, end: int, at: str = "now()") -> None:
    stage.execute(
        f"""
        insert into headrace.observations (dataset, partition, end_offset, high_watermark, observed_at)
        values ('jobs', {partition}, {end}, {end}, {at})
        on conflict (dataset, partition) do update set
            end_offset = excluded.end_offset, observed_at = excluded.observed_at, error = null
        """
    )


def note(stage: Stage) -> None:
    with connected(stage.deployment.connect("test")) as connection:
        observations.save_observation(Checkpoints(connection, "jobs"))


def update_totals(stage: Stage, lines: int = 0) -> None:
    with connected(stage.deployment.connect("test")) as connection:
        totals.update_totals(connection, ["jobs"], lines)
