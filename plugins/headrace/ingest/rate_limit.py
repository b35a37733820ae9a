"""The rate limit of a dataset (`max_records_per_s`): how long reading rests after the records that were read."""

import math
import time
from collections.abc import Callable, Iterable, Iterator

from headrace.dataset import Dataset
from headrace.sources.base import Chunk

BURST_S = 1.0  # of records are read at once: a rest is short
REST_S = 0.1  # between looks for a reason to stop


class RateLimit:
    """Counts what a run reads of a dataset; each record takes 1 / per_s seconds. Not thread-safe.

    In any time of T seconds the run reads at most T * per_s records and one burst.
    """

    def __init__(self, per_s: float) -> None:
        """per_s: records per second, more than 0."""
        self._per_s = per_s
        self._free_at = time.monotonic()

    @classmethod
    def of(cls, dataset: Dataset, part: float = 1.0) -> "RateLimit | None":
        """The limit of a dataset's declaration, or this part of it; None without one."""
        return None if dataset.max_records_per_s is None else cls(dataset.max_records_per_s * part)

    @property
    def burst(self) -> int:
        """The number of records that are read at once, at least one."""
        return max(math.floor(self._per_s * BURST_S), 1)

    @property
    def seconds_left(self) -> float:
        """Seconds until the next record may be read; 0 if it may be now."""
        return max(self._free_at - time.monotonic(), 0.0)

    def count(self, records: int) -> None:
        """Count records that were read."""
        self._free_at = max(self._free_at, time.monotonic()) + records / self._per_s

    def paced(self, chunks: Iterable[Chunk], is_over: Callable[[], bool]) -> Iterator[Chunk]:
        """The chunks, none with more records than one burst, and a rest behind each; ends early if the run is over."""
        for chunk in chunks:
            for part in _cut(chunk, self.burst):
                yield part
                self.count(len(part.records))
                while seconds := self.seconds_left:
                    if is_over():
                        return
                    time.sleep(min(seconds, REST_S))


def _cut(chunk: Chunk, size: int) -> Iterator[Chunk]:
    """A chunk in parts of at most this many records; the last one ends where the chunk does."""
    records = chunk.records
    for start in range(0, max(len(records) - size, 0), size):
        part = records[start : start + size]
        position = part[-1].key.decode() if chunk.position is not None and part[-1].key else None
        yield Chunk(chunk.partition, part, part[-1].offset + 1, position)
    last = max(len(records) - 1, 0) // size * size
    yield Chunk(chunk.partition, records[last:], chunk.next_offset, chunk.position)
