"""The adoption of single topics of a dataset that reads several: only those that were replaced."""

from collections.abc import Mapping
from typing import Any

from psycopg import Connection

from headrace.ingest.identity import changed_topics
from headrace.ingest.prepare import append_adopt_line
from headrace.postgres.checkpoints import Checkpoints, Generation
from headrace.postgres.ledger import RunContext
from headrace.sources.base import SourceState


def adopts_topics(generation: Generation, state: SourceState) -> bool:
    """Whether topics are adopted one by one: not if the declaration had one topic before, nor on another cluster."""
    is_same_cluster = None in (generation.cluster_id, state.cluster_id) or generation.cluster_id == state.cluster_id
    return generation.has_several_topics and bool(state.origins) and is_same_cluster


def preview_topics(connection: Connection[Any], generation: Generation, state: SourceState) -> list[str]:
    """The effects of an adoption, one per line."""
    changed = changed_topics(generation, state)
    rows = staged_rows(connection, generation)
    lines = [str(error).partition("; `headrace")[0] for error in changed.values()]
    for partition, origin in sorted(generation.origins.items()):
        if origin.topic in changed:
            lines.append(
                f"{generation.where(partition)}: closed at {generation.next_offsets[partition]}; "
                f"{rows.get(partition, 0)} rows stay"
            )
    for partition, number in renumbered(generation, state, changed).items():
        found = state.partitions[partition]
        lines.append(
            f"{generation.dataset}[{number}] ({state.origins[partition]}): reads [{found.log_start_offset}, "
            f"{found.end_offset})"
        )
    return lines


def adopt_topics(stored: Checkpoints, generation: Generation, state: SourceState, run: RunContext) -> None:
    """Close the partitions of the topics that were replaced; begin those of the new ones at their log starts.

    The rows stay. Each new partition gets a ledger line of kind `adopt`; the partitions of other topics are unchanged.
    """
    changed = changed_topics(generation, state)
    closed = [partition for partition, origin in generation.origins.items() if origin.topic in changed]
    stored.close_partitions(generation.generation, closed)
    begun = renumbered(generation, state, changed)
    for partition, number in begun.items():
        start, origin = state.partitions[partition].log_start_offset, state.origins[partition]
        stored.start_partition(generation.generation, number, start, origin=origin)
    for partition, number in begun.items():
        note = str(changed[state.origins[partition].topic]).partition("; `headrace")[0]
        start = state.partitions[partition].log_start_offset
        append_adopt_line(stored, generation.generation, number, start, run, note)


def staged_rows(connection: Connection[Any], generation: Generation) -> dict[int, int]:
    """How many rows of a generation each partition has, tombstones included."""
    found = connection.execute(
        "select partition, sum(staged + tombstones) from headrace.batches "
        "where dataset = %s and generation = %s and kind in ('drain', 'load', 'replace', 'replay') group by partition",
        (generation.dataset, generation.generation),
    ).fetchall()
    return {partition: int(rows) for partition, rows in found}


def renumbered(generation: Generation, state: SourceState, changed: Mapping[str, object]) -> dict[int, int]:
    """The numbers that partitions of changed topics get, by those that the state has: none that was used before."""
    free = max([generation.first_free, *(number + 1 for number in state.partitions)])
    numbers: dict[int, int] = {}
    for partition, origin in sorted(state.origins.items()):
        if origin.topic not in changed:
            continue
        is_used = partition in generation.origins  # the same topic, which lost offsets
        numbers[partition] = free if is_used else partition
        free += is_used
    return numbers
