"""Reads of a source."""

import itertools

from headrace.record import Record
from headrace.sources.base import Chunk, Range


def ranged(ranges: dict[int, tuple[int, int]]) -> dict[int, Range]:
    return {partition: Range(*bounds) for partition, bounds in ranges.items()}


def records(chunks: list[Chunk], partition: int = 0) -> list[Record]:
    return list(itertools.chain.from_iterable(chunk.records for chunk in chunks if chunk.partition == partition))
