"""The plan of a drain: which offsets to read, pinned once, after making sure that the source is still the same.

First contact with a source, partitions that are new and files that changed are dealt with here; a source that
is not the one that the checkpoint belongs to is refused.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from psycopg import Connection

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.exceptions import AnotherCluster, SourceChanged, TopicMissing
from headrace.postgres import checkpoints, ledger
from headrace.postgres.checkpoints import Generation
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.sources.base import PartitionState, Range, Source, SourcePosition, SourceState


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


def make_plan(connection: Connection[Any], dataset: Dataset, source: Source, run: RunContext | None = None) -> Plan:
    """Pin the offsets that a drain reads: from the checkpoints to the source's ends as they are now.

    Raises SourceChanged when the source is another one than the checkpoints belong to, when it no longer holds
    what comes next, or when it ends before the checkpoint; the message names the range at risk.
    """
    state = describe(source, checkpoints.open_generation(connection, dataset.name))
    observe(connection, dataset.name, state)
    with connection.transaction():
        generation = checkpoints.open_generation(connection, dataset.name)
        if _is_new(dataset, generation, state):
            checkpoints.lock(connection, dataset.name)  # and look again: another run may have been first
            generation = checkpoints.open_generation(connection, dataset.name)
        if generation is None or _is_new(dataset, generation, state):
            generation = begin_generation(connection, dataset, state, run or RunContext(), always_line=False)
        elif not dataset.source.is_file:
            check_identity(generation, seen_from(source, generation, state))
            if generation.cluster_id is None and state.cluster_id is not None:
                checkpoints.store_cluster_id(connection, generation, state.cluster_id)
            generation = _with_new_partitions(connection, generation, state)
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
    return Plan(dataset.name, generation.generation, state.topic, state.topic_id, ranges, waiting, behind)


def describe(source: Source, generation: Generation | None) -> SourceState:
    """The source as it is now; raises SourceChanged where another cluster answers, whether it has the topic or not."""
    try:
        state = source.describe()
    except TopicMissing:
        if generation is not None and generation.cluster_id is not None:
            check_cluster(generation, source.cluster_id())
        raise
    if generation is not None:
        check_cluster(generation, state.cluster_id)
    return state


def check_cluster(generation: Generation, cluster_id: str | None) -> None:
    """Refuse another cluster than the one that the checkpoints belong to: nothing that it says is about them.

    A cluster that does not tell its id, or was never asked for it, passes.
    """
    if None not in (generation.cluster_id, cluster_id) and cluster_id != generation.cluster_id:
        drain = Command("drain", generation.dataset)
        raise AnotherCluster(
            f"{generation.dataset}: another cluster answers at this address: found cluster id {cluster_id}, expected "
            f"{generation.cluster_id}, of which generation {generation.generation} read {generation.topic}; nothing "
            "was changed; point HEADRACE_KAFKA_BOOTSTRAP_SERVERS (in Airflow: the connection headrace_kafka) back to "
            f"the old cluster and run `{drain}`; only if the new one is meant, {_adopt(generation)}",
            command=drain,
        )


def seen_from(source: Source, generation: Generation, state: SourceState) -> SourceState:
    """The source as it looks from a generation's checkpoints.

    Raises SourceChanged, with the range at risk and the command, when the source can tell that it is another one.
    """
    if state.topic != generation.topic:
        return state
    try:
        return source.seen_from(state, generation.next_offsets, generation.positions)
    except SourceChanged as error:
        raise SourceChanged(
            f"{generation.dataset}: {error}; at risk: what the old one held from {_at_risk(generation)}; "
            f"{_adopt(generation)}",
            command=Command("adopt", generation.dataset),
        ) from error


def check_identity(generation: Generation, state: SourceState) -> None:
    """Refuse a source that is not the one that the checkpoints belong to, or that lost what they point at."""
    name, adopt, command = generation.dataset, _adopt(generation), Command("adopt", generation.dataset)
    check_cluster(generation, state.cluster_id)
    if state.topic != generation.topic:
        raise SourceChanged(
            f"{name}: the topic is {state.topic}, generation {generation.generation} belongs to {generation.topic}; "
            f"at risk: {_at_risk(generation)}; {adopt}",
            command=command,
        )
    if state.topic_id != generation.topic_id:
        raise SourceChanged(
            f"{name}: topic {state.topic} has id {state.topic_id}, expected {generation.topic_id}: it was deleted and "
            f"made anew; at risk: what the old one held from {_at_risk(generation)}; {adopt}",
            command=command,
        )
    for partition, next_offset in sorted(generation.next_offsets.items()):
        found = state.partitions.get(partition)
        if found is None:
            raise SourceChanged(
                f"{name}[{partition}]: the partition is gone, its checkpoint is {next_offset}; {adopt}", command=command
            )
        _check_offsets(generation, partition, next_offset, found)
    for partition, found in sorted(state.partitions.items()):
        if partition not in generation.next_offsets and found.log_start_offset > 0:
            accept = accept_loss(name, partition, found.log_start_offset)
            raise SourceChanged(
                f"{name}[{partition}]: a new partition whose log starts at {found.log_start_offset}, expected 0: "
                f"[0, {found.log_start_offset}) is lost; `{accept}` goes on behind it",
                command=accept,
            )


def accept_loss(dataset: str, partition: int, to: int) -> Command:
    """The command that goes on at an offset, behind what the source lost."""
    return Command("accept-loss", dataset, "--partition", partition, "--to", to)


def _check_offsets(generation: Generation, partition: int, next_offset: int, found: PartitionState) -> None:
    where = f"{generation.dataset}[{partition}]"
    if next_offset < found.log_start_offset:
        accept = accept_loss(generation.dataset, partition, found.log_start_offset)
        raise SourceChanged(
            f"{where}: retention overtook the checkpoint: [{next_offset}, {found.log_start_offset}) is no longer "
            f"served and was never read; `{accept}` goes on behind it",
            command=accept,
        )
    if next_offset > found.high_watermark:
        raise SourceChanged(
            f"{where}: the checkpoint is {next_offset}, the log ends at {found.high_watermark}: "
            f"[{found.high_watermark}, {next_offset}) was read and the source lost it; {_adopt(generation)}",
            command=Command("adopt", generation.dataset),
        )


def observe(connection: Connection[Any], dataset: str, state: SourceState) -> None:
    """Write down what the source says of itself, in a transaction of its own."""
    with connection.transaction():
        checkpoints.register(connection, dataset)
        for partition, found in state.partitions.items():
            connection.execute(
                """
                insert into headrace.observations (dataset, partition, log_start_offset, end_offset, high_watermark)
                values (%s, %s, %s, %s, %s)
                on conflict (dataset, partition) do update set
                    log_start_offset = excluded.log_start_offset,
                    end_offset = excluded.end_offset,
                    high_watermark = excluded.high_watermark,
                    error = null,
                    command = null,
                    observed_at = clock_timestamp()
                """,
                (dataset, partition, found.log_start_offset, found.end_offset, found.high_watermark),
            )


def begin_generation(
    connection: Connection[Any],
    dataset: Dataset,
    state: SourceState,
    run: RunContext,
    *,
    always_line: bool,
    note: str | None = None,
) -> Generation:
    """Open the next generation at the source's log starts.

    What lies before a log start was never ours to read: an `adopt` line [0, log start) says so, and why in its note.
    """
    number = checkpoints.start_generation(connection, dataset.name, state.topic, state.topic_id, state.cluster_id)
    for partition, found in sorted(state.partitions.items()):
        start = found.log_start_offset
        checkpoints.start_partition(connection, dataset.name, number, partition, start, found.start_position)
        if dataset.source.is_file or (start == 0 and not always_line):
            continue
        ledger.append_line(
            connection,
            LedgerLine(
                batch_id=ledger.new_batch_id(),
                dataset=dataset.name,
                generation=number,
                partition=partition,
                start_offset=0,
                end_offset=start,
                kind=LedgerKind.ADOPT,
                run=run,
                note=note,
            ),
        )
    generation = checkpoints.open_generation(connection, dataset.name)
    assert generation is not None
    return generation


def _is_new(dataset: Dataset, generation: Generation | None, state: SourceState) -> bool:
    """Whether this is a first contact; a file that changed is a new source, a topic that changed a suspect one."""
    return generation is None or (dataset.source.is_file and generation.topic_id != state.topic_id)


def _with_new_partitions(connection: Connection[Any], generation: Generation, state: SourceState) -> Generation:
    new = sorted(set(state.partitions) - set(generation.next_offsets))
    for partition in new:
        checkpoints.start_partition(connection, generation.dataset, generation.generation, partition, 0)
    if not new:
        return generation
    found = checkpoints.open_generation(connection, generation.dataset)
    assert found is not None
    return found


def _adopt(generation: Generation) -> str:
    adopt = Command("adopt", generation.dataset)
    return f"`{adopt}` closes generation {generation.generation} and reads the new one from its start"


def _at_risk(generation: Generation) -> str:
    return ", ".join(
        f"{generation.topic}[{p}] from {offset} on" for p, offset in sorted(generation.next_offsets.items())
    )
