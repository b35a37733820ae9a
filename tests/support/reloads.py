"""What a reload may change, as one value."""

from typing import Any

from tests.support.stage import Stage


def state(stage: Stage) -> list[list[tuple[Any, ...]]]:
    """All that a reload may write."""
    return [
        stage.query("select * from staging.jobs order by _partition, _offset"),
        stage.query("select * from staging._replaced_jobs order by _partition, _offset, _replaced_by"),
        stage.query('select * from headrace.dead_letters order by partition, "offset"'),
        stage.query("select * from headrace.batches order by seq"),
        stage.query("select partition, next_offset, source_position from headrace.checkpoints order by partition"),
        stage.query("select last_seq from headrace.datasets order by 1"),
    ]
