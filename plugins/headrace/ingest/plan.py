"""The plan of a drain: which offsets it reads, pinned once. Planning writes nothing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from headrace.origin import Origin
from headrace.postgres.checkpoints import Generation
from headrace.sources.base import Range, SourcePosition, SourceState


@dataclass(frozen=True, slots=True)
class Plan:
    """The offsets that one run reads: per partition a half-open range, in one generation."""

    dataset: str
    generation: int
    topic: str
    topic_id: str
    ranges: Mapping[int, Range]
    waiting: int = 0  # offsets from the last stable offset on: a transaction is open
    # per partition the offset and position after this plan, also for partitions with nothing to read
    behind: Mapping[int, SourcePosition] = field(default_factory=dict)
    origins: Mapping[int, Origin] = field(default_factory=dict)  # of a dataset of several topics
    part: float = 1.0  # of the plan that was split, by offsets: its part of the dataset's rate limit

    def label(self, partition: int) -> str:
        """A partition for people: `[3]`, of several topics `[3] orders_eu[1]`."""
        origin = self.origins.get(partition)
        return f"[{partition}]{f' {origin}' if origin else ''}"

    @property
    def lag(self) -> int:
        """The number of offsets to read."""
        return sum(bounds.end - bounds.start for bounds in self.ranges.values())

    @property
    def ends(self) -> dict[int, int]:
        """Per partition the end of its range."""
        return {partition: bounds.end for partition, bounds in self.ranges.items()}

    def limited(self, max_records: int | None) -> Self:
        """The same plan with lower ends, so that at most max_records offsets are left."""
        if max_records is None:
            return self
        ranges: dict[int, Range] = {}
        for partition, bounds in self.ranges.items():
            left = max_records - sum(taken.end - taken.start for taken in ranges.values())
            cut = bounds._replace(end=min(bounds.end, bounds.start + left))
            if cut.end > cut.start:
                ranges[partition] = cut
        return replace(self, ranges=ranges)

    def remaining(self, next_offsets: Mapping[int, int], positions: Mapping[int, str | None]) -> Self:
        """The part of the plan that is left once partitions are committed up to next_offsets."""
        ranges = {
            partition: bounds._replace(
                start=next_offsets.get(partition, bounds.start), position=positions.get(partition, bounds.position)
            )
            for partition, bounds in self.ranges.items()
        }
        return replace(self, ranges={p: bounds for p, bounds in ranges.items() if bounds.start < bounds.end})

    def split(self, parts: int) -> list[Self]:
        """At most `parts` plans of whole partitions, as even as possible, the longest first."""
        shares: list[dict[int, Range]] = [{} for _ in range(max(parts, 1))]
        for partition, bounds in sorted(self.ranges.items(), key=lambda item: item[1].start - item[1].end):
            smallest = min(shares, key=lambda share: sum(taken.end - taken.start for taken in share.values()))
            smallest[partition] = bounds
        split = [replace(self, ranges=share) for share in shares if share]
        return [replace(share, part=self.part * share.lag / self.lag) for share in split]

    def to_dict(self) -> dict[str, Any]:
        """The plan in JSON types, to pass it between tasks."""
        values = asdict(self) | {
            "ranges": {str(p): list(bounds) for p, bounds in self.ranges.items()},
            "origins": {str(p): list(origin) for p, origin in self.origins.items()},
        }
        del values["behind"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The plan from the result of to_dict."""
        ranges = {int(partition): Range(*bounds) for partition, bounds in values["ranges"].items()}
        origins = {int(partition): Origin(*origin) for partition, origin in values.get("origins", {}).items()}
        return cls(**{**values, "ranges": ranges, "origins": origins})


def make_plan(generation: Generation, state: SourceState) -> Plan:
    """Pin the offsets that a drain reads: per partition [checkpoint, current end of the source).

    generation: the open one; its checkpoints were checked against this state (`prepare.prepare_generation`).
    """
    ranges = {
        partition: Range(
            generation.next_offsets[partition],
            state.partitions[partition].end_offset,
            generation.positions[partition],
            state.partitions[partition].end_position,
        )
        for partition in sorted(state.partitions)
        if generation.next_offsets[partition] < state.partitions[partition].end_offset
    }
    behind = {
        partition: (ranges[partition].end, ranges[partition].end_position)
        if partition in ranges
        else (generation.next_offsets[partition], generation.positions[partition])
        for partition in state.partitions
    }
    waiting = sum(max(p.high_watermark - p.end_offset, 0) for p in state.partitions.values())
    return Plan(
        generation.dataset,
        generation.generation,
        state.topic,
        state.topic_id,
        ranges,
        waiting,
        behind,
        generation.origins,
    )
