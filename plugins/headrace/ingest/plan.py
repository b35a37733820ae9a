"""The plan of a drain: which offsets it reads, pinned once. Planning writes nothing."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from headrace.postgres.checkpoints import Generation
from headrace.sources.base import Range, SourcePosition, SourceState


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run is going to read: per partition a half-open range of offsets, in one generation."""

    dataset: str
    generation: int
    topic: str
    topic_id: str
    ranges: Mapping[int, Range]
    waiting: int = 0  # records behind the last stable offset: a transaction is open
    # of every partition, what comes next after this plan
    behind: Mapping[int, SourcePosition] = field(default_factory=dict)

    @property
    def lag(self) -> int:
        """Offsets to read in all."""
        return sum(bounds.end - bounds.start for bounds in self.ranges.values())

    @property
    def ends(self) -> dict[int, int]:
        """Per partition the end of what is read."""
        return {partition: bounds.end for partition, bounds in self.ranges.items()}

    def limited(self, max_records: int | None) -> Self:
        """The same plan with ends so low that no more than max_records offsets are left."""
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
        """What is left of the plan once partitions are committed up to next_offsets."""
        ranges = {
            partition: bounds._replace(
                start=next_offsets.get(partition, bounds.start), position=positions.get(partition, bounds.position)
            )
            for partition, bounds in self.ranges.items()
        }
        return replace(self, ranges={p: bounds for p, bounds in ranges.items() if bounds.start < bounds.end})

    def split(self, parts: int) -> list[Self]:
        """At most `parts` plans of whole partitions, as even as partitions allow, the longest first."""
        shares: list[dict[int, Range]] = [{} for _ in range(max(parts, 1))]
        for partition, bounds in sorted(self.ranges.items(), key=lambda item: item[1].start - item[1].end):
            smallest = min(shares, key=lambda share: sum(taken.end - taken.start for taken in share.values()))
            smallest[partition] = bounds
        return [replace(self, ranges=share) for share in shares if share]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, to hand it from task to task."""
        values = asdict(self) | {"ranges": {str(p): list(bounds) for p, bounds in self.ranges.items()}}
        del values["behind"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The plan that to_dict wrote."""
        ranges = {int(partition): Range(*bounds) for partition, bounds in values["ranges"].items()}
        return cls(**{**values, "ranges": ranges})


def make_plan(generation: Generation, state: SourceState) -> Plan:
    """Pin the offsets that a drain reads: per partition [checkpoint, the source's end as it is now).

    generation: the open one, whose checkpoints were compared with this state (`prepare.prepare_generation`).
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
    return Plan(generation.dataset, generation.generation, state.topic, state.topic_id, ranges, waiting, behind)
