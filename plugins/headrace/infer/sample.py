"""Sample records of a source: the first and the last of every partition."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headrace.deployment import Deployment
from headrace.exceptions import TopicMissing
from headrace.record import Record
from headrace.sources.base import Range, Source, SourceState
from headrace.sources.bounds import Bounds, is_kept
from headrace.sources.declarations import SourceDeclaration


@dataclass(frozen=True, slots=True)
class Sample:
    """Records with their partitions. size: how many records the source has, or offsets, if not all were read."""

    records: list[tuple[int, Record]]
    size: int


def read_sample(deployment: Deployment, source: SourceDeclaration, limit: int, path: Path | None = None) -> Sample:
    """Read at most `limit` records: half of them from the starts of the partitions, half from their ends.

    Raises TopicMissing, or the errors of `Source.read`.
    """
    settings = deployment.settings
    bounds = Bounds(settings.record_bytes_max, settings.unpacked_bytes_max)
    opened = source.open(deployment, (), bounds, path)
    try:
        state = opened.describe()
        each = max(limit // (2 * max(len(state.partitions), 1)), 1)
        parts = (_starts(state, each), _ends(state, each))
        records = [
            (partition, record)
            for ranges in parts
            for partition, record in _read(opened, ranges)
            if is_kept(record.headers)
        ]
        size = sum(partition.end_offset - partition.log_start_offset for partition in state.partitions.values())
        read = sum(part.end - part.start for ranges in parts for part in ranges.values())
    finally:
        opened.close()
    # offsets are no count of records: a header of a file, markers and compacted records have some, too
    return Sample(records, len(records) if read == size else size)


def exists(deployment: Deployment, source: SourceDeclaration) -> bool:
    """Whether the topic or the stream exists."""
    opened = source.open(deployment, (), Bounds())
    try:
        with suppress(TopicMissing):
            opened.describe()
            return True
    finally:
        opened.close()
    return False


def _starts(state: SourceState, each: int) -> dict[int, Range]:
    return {
        number: Range(
            found.log_start_offset,
            min(found.log_start_offset + each, found.end_offset),
            found.start_position,
            found.end_position,
        )
        for number, found in state.partitions.items()
    }


def _ends(state: SourceState, each: int) -> dict[int, Range]:
    """What `_starts` leaves; nothing of a source with positions, which are known of its two ends only."""
    return {
        number: Range(max(found.end_offset - each, found.log_start_offset + each), found.end_offset)
        for number, found in state.partitions.items()
        if found.end_position is None and found.end_offset > found.log_start_offset + each
    }


def _read(source: Source, ranges: dict[int, Range]) -> Iterator[tuple[int, Record]]:
    if not ranges:
        return
    for chunk in source.read(ranges):
        for record in chunk.records:
            yield chunk.partition, record
