"""The protocol of sources: identity, readable offsets, and the records of given ranges.

Kafka topics, Redis streams and files implement it; tests/integration/test_source_conformance.py tests each of them
against it.
"""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from headrace.origin import Origin
from headrace.record import Record


@dataclass(frozen=True, slots=True)
class PartitionState:
    """The offsets of one partition, as the source reports them.

    log_start_offset: the first offset that is still served.
    end_offset: the first offset that may not be read yet; for Kafka the last stable offset.
    high_watermark: the first offset that does not exist yet; above end_offset while a transaction is open.
    start_position, end_position: the positions of log_start_offset and end_offset, for sources that have positions.
    """

    log_start_offset: int
    end_offset: int
    high_watermark: int
    start_position: str | None = None
    end_position: str | None = None


@dataclass(frozen=True, slots=True)
class SourceState:
    """A source's identity (topic, topic_id) and readable offsets at one moment.

    origins: of a source of several topics, where each partition is. Then `topic` names all of them, and `topic_id` has
    the ids of all of them.
    """

    topic: str
    topic_id: str
    partitions: Mapping[int, PartitionState]
    cluster_id: str | None = None  # of the cluster that answered; None if it reports none
    origins: Mapping[int, Origin] = field(default_factory=dict)


class Range(NamedTuple):
    """Offsets to read: [start, end).

    position, end_position: for sources that have positions, the position of start, and the last position to read, even
    if fewer records than offsets are left.
    """

    start: int
    end: int
    position: str | None = None
    end_position: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some records of one partition, in offset order, and the first offset that has not been read yet.

    Offsets below next_offset without a record are empty (compaction, transaction markers, aborted records). A chunk
    without records and with an unchanged next_offset only reports that the source is still waiting.
    """

    partition: int
    records: Sequence[Record]
    next_offset: int
    position: str | None = None  # of the last record; a source with positions puts each into its record's key


SourcePosition = tuple[int, str | None]  # an offset and its position; None for sources without positions


class Source(Protocol):
    """Where records come from. A source does not use Postgres."""

    def describe(self) -> SourceState:
        """Ask the source for its identity and its offsets.

        Raises TopicMissing, or SourceUnavailable if nothing answers.
        """

    def seen_from(
        self, state: SourceState, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]
    ) -> SourceState:
        """The state for a reader at these checkpoints: its log starts may be lower than for a new reader.

        Raises SourceChanged if the source was replaced and identity and offsets alone do not show it.
        """

    def topic_id(self) -> str:
        """The current topic id; called before every commit, so it must be cheap."""

    def cluster_id(self) -> str | None:
        """The id of the cluster at this address; None if it reports none."""

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """Yield the records of half-open offset ranges, given per partition.

        Always ends: each partition's last chunk has next_offset = end. No record at or after an end is yielded. A
        chunk's bytes are bounded, apart from its last record. A chunk comes about every second, an empty one if need
        be, so that the caller can check its time limit. Raises SourceError, CodecMissing, SourceUnavailable or
        SourceChanged; chunks yielded before remain valid. An unreadable record batch ends only its own partition's
        range: the other partitions are read first.
        """

    def wait(self, source_positions: Mapping[int, SourcePosition], seconds: float) -> bool:
        """Wait until something may be readable at or after one of the positions; False if nothing came in time.

        True is only a hint: `describe` gives the facts. Raises the errors of `read`.
        """

    def mirror(self, group: str, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]) -> None:
        """Move the consumer group of this name, for lag tools; nothing reads it back.

        Raises SourceUnavailable or SourceError, which a caller may ignore.
        """

    def close(self) -> None:
        """Close connections and files."""


class ReloadableSource(Source, Protocol):
    """A source whose ranges can be read again, and found by record times."""

    def offsets_at(self, partitions: Iterable[int], timestamp_ms: int) -> dict[int, int | None]:
        """Per partition the first offset whose record time is at or after timestamp_ms; None if there is none."""


@runtime_checkable
class SourceOfTopics(Protocol):
    """A source of several topics, whose partitions have numbers that are stored elsewhere."""

    def assign(self, origins: Mapping[int, Origin], first_free: int) -> None:
        """Take the numbers of the partitions that are read; `describe` numbers new ones from first_free on.

        Called before every other method, and again when the stored numbers have changed.
        """


def assign(source: Source, origins: Mapping[int, Origin], first_free: int = 0) -> None:
    """Give a source of several topics the numbers of its partitions; others need none."""
    if isinstance(source, SourceOfTopics):
        source.assign(origins, first_free)
