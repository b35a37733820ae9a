"""What must be true of the stream that a drain of telemetry has read."""

from tests.support import streams
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.stage import Stage

KEYS = "select _key from staging.telemetry union all select key from headrace.dead_letters order by 1"


def assert_ingested(stage: Stage, ids: list[bytes], *, first: int = 0) -> None:
    """Assert that these entries, numbered from `first`, were ingested once each, and that the ledger agrees."""
    assert_ledger(stage, [(0, first + n) for n in range(len(ids))], "telemetry")
    keys = [bytes(key) for (key,) in stage.query(KEYS)]
    assert len(keys) == len(set(keys))
    assert set(ids) <= set(keys)
    assert_nothing_left(stage)


def checkpoint(stage: Stage) -> tuple[int, str]:
    """next_offset of the open generation, and the id of the entry before it."""
    found = stage.query(
        "select next_offset, source_position from headrace.checkpoints inner join headrace.generations "
        "using (dataset, generation) where is_open"
    )[0]
    return found[0], found[1]


def stream_lines(stage: Stage) -> list[tuple[object, ...]]:
    """The ledger: kind, generation, start and end, rows, empty offsets."""
    return stage.query(
        "select kind, generation, start_offset, end_offset, staged, empty from headrace.batches order by seq"
    )


def recreate(stage: Stage, count: int) -> list[bytes]:
    """Delete the stream, make it again with valid readings; return their ids."""
    streams.command(stage, "DEL")
    return streams.send(stage, count)
