"""Reads of a source."""

import itertools

from headrace.record import Record
from headrace.sources.base import Chunk, Range, Source


def ranged(ranges: dict[int, tuple[int, int]]) -> dict[int, Range]:
    return {partition: Range(*bounds) for partition, bounds in ranges.items()}


def records(chunks: list[Chunk], partition: int = 0) -> list[Record]:
    return list(itertools.chain.from_iterable(chunk.records for chunk in chunks if chunk.partition == partition))


def position_of(source: Source, offset: int) -> str | None:
    """Where an offset is, for sources with positions of their own: the key of the record before it."""
    start = source.describe().partitions[0]
    if start.start_position is None or offset == start.log_start_offset:
        return start.start_position
    reading = source.read({0: Range(start.log_start_offset, offset, start.start_position)})
    key = [record.key for chunk in reading for record in chunk.records][-1]
    return None if key is None else key.decode()


def read_ranges(source: Source, ranges: dict[int, tuple[int, int]]) -> list[Chunk]:
    """Read ranges, holding every chunk to the docstrings of Source."""
    bounds = {p: Range(start, end, position_of(source, start)) for p, (start, end) in ranges.items()}
    chunks = list(source.read(bounds))
    positions = {partition: start for partition, (start, _) in ranges.items()}
    for chunk in chunks:
        offsets = [record.offset for record in chunk.records]
        assert offsets == sorted(set(offsets))
        assert all(positions[chunk.partition] <= offset < chunk.next_offset for offset in offsets)
        assert positions[chunk.partition] < chunk.next_offset <= ranges[chunk.partition][1]
        if chunk.position is not None and chunk.records:
            assert chunk.position.encode() == chunk.records[-1].key
        positions[chunk.partition] = chunk.next_offset
    assert positions == {partition: max(bounds) for partition, bounds in ranges.items()}
    return chunks
