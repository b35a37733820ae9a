"""What the drain asks of a source: its identity, what can be read, and the records of given ranges.

Kafka topics, files and Redis streams keep the same protocol; tests/integration/test_source_conformance.py
tests each of them against it.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.record import Record


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What a source says of one partition.

    log_start_offset: the first offset that is still served.
    end_offset: the first one that may not be read yet; for Kafka the last stable offset.
    high_watermark: the first one that does not exist yet; above end_offset when a transaction is open.
    start_position, end_position: where log_start_offset and end_offset are, for sources with positions of their own.
    """

    log_start_offset: int
    end_offset: int
    high_watermark: int
    start_position: str | None = None
    end_position: str | None = None


@dataclass(frozen=True, slots=True)
class SourceState:
    """What a source is (its topic and topic_id) and what can be read from it, seen at one moment."""

    topic: str
    topic_id: str
    partitions: Mapping[int, PartitionState]
    cluster_id: str | None = None  # of the cluster that answered; None where it has none, or does not tell


class Range(NamedTuple):
    """Offsets to read: [start, end).

    position, end_position: for sources with positions of their own, where start is, and what must not be read beyond,
    even where fewer records than offsets are left.
    """

    start: int
    end: int
    position: str | None = None
    end_position: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records of one partition, in offset order, and the first offset that has not been looked at.

    Offsets below next_offset without a record hold none (compaction, transaction markers, aborted records). A chunk
    without records whose next_offset is where the partition already was says only that the source is still waiting.
    """

    partition: int
    records: Sequence[Record]
    next_offset: int
    position: str | None = None  # of the last record; where there is one, each record's key is its position


SourcePosition = tuple[int, str | None]  # an offset, and where it is for sources with positions of their own


class Source(Protocol):
    """Where records come from. A source knows nothing of Postgres."""

    def describe(self) -> SourceState:
        """Ask the source for its identity and its offsets.

        Raises TopicMissing, or SourceUnavailable when nothing answers.
        """

    def seen_from(
        self, state: SourceState, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]
    ) -> SourceState:
        """The state for a reader at these checkpoints: log starts may be lower than for one that begins.

        Raises SourceChanged where identity and offsets alone do not tell that the source became another one.
        """

    def topic_id(self) -> str:
        """The identity alone, asked for again and cheaply: it is compared before every commit."""

    def cluster_id(self) -> str | None:
        """The cluster that answers at this address; None where it has no identity, or does not tell."""

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield the records of half-open offset ranges, partition to (start, end).

        Always ends: each partition's last chunk has next_offset = end. No record at or beyond an end is yielded. A
        chunk is bounded in bytes, give or take its last record, and comes, empty if need be, every second or so: that
        is where a caller looks at the time. Raises SourceError, CodecMissing, SourceUnavailable or SourceChanged; what
        was yielded before stays true, and a batch that cannot be read ends only its own partition's range: the others
        are read first.
        """

    def wait(self, source_positions: Mapping[int, SourcePosition], seconds: float) -> bool:
        """Wait until something can be read at or behind a partition's place; False when nothing came in time.

        True promises nothing: what there is, `describe` tells. Raises what `read` raises.
        """

    def mirror(self, group: str, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]) -> None:
        """Tell lag tools how far a consumer group of that name is; nothing is ever decided by it.

        Raises SourceUnavailable or SourceError, which a caller may pass over.
        """

    def close(self) -> None:
        """Close connections and files."""


class ReloadableSource(Source, Protocol):
    """A source whose ranges can be read again, also by the records' times."""

    def offsets_at(self, partitions: Iterable[int], timestamp_ms: int) -> dict[int, int | None]:
        """Per partition the first offset whose record's time is at or after this one; None where there is none."""
