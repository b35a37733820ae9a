"""What a deep check reads again: the ranges of each generation that the source still has, and a reader for them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from psycopg.sql import SQL

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.ingest.opening import bounds
from headrace.origin import Origin
from headrace.postgres.checkpoints import Checkpoints
from headrace.sources.base import SourceState
from headrace.verify.readers import FileReader, RecordReader, StreamReader, TopicReader, TopicsReader, is_compacted
from headrace.verify.records import GenerationRange
from headrace.verify.report import DatasetReport
from headrace.verify.snapshot import Snapshot, query


@dataclass(frozen=True, slots=True)
class Rereading:
    """The ranges and reader of a deep check; taken_by: what may remove records if is_compacted is true."""

    reader: RecordReader
    ranges: list[GenerationRange]
    is_compacted: Callable[[int], bool]  # by partition
    taken_by: str = "compaction"


def plan_records(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read: of every generation of this source, [its start or the log start, checkpoint).

    Ranges that the source no longer serves are noted, not compared.
    """
    declared = declared_of(snapshot)
    plan_of_kind = _PLANS.get(declared.source.kind)
    if plan_of_kind is None:
        report.notes.append(f"no second reader for a {declared.source.kind}: its records were not compared")
        return None
    return plan_of_kind(deployment, snapshot, report, state)


def _plan_topic(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read of a topic: of every generation with this topic's id."""
    declared = declared_of(snapshot)
    ranges = _generation_ranges(snapshot, report, state)
    config = deployment.kafka()
    reader = TopicReader(state.topic, config, bounds(deployment.settings, declared))
    return Rereading(reader, ranges, cache(lambda _partition: is_compacted(state.topic, config)))


def _plan_topics(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read of several topics: of every partition whose topic has the id that it was read under."""
    config = deployment.kafka()
    there = {origin: state.partitions[number] for number, origin in state.origins.items()}
    ranges: list[GenerationRange] = []
    origins: dict[int, Origin] = {}
    for row in snapshot.rows(
        "select generation, partition, next_offset, topic, topic_id, topic_partition from headrace.checkpoints "
        "where dataset = %(dataset)s order by generation, partition"
    ):
        number, partition = row["generation"], row["partition"]
        origin = Origin(row["topic"], row["topic_id"], row["topic_partition"])
        if origin not in there or origins.setdefault(partition, origin) != origin:
            report.notes.append(
                f"[{partition}] of generation {number} came from another {origin.topic or 'topic'}: not compared"
            )
            continue
        start = _starts(snapshot, number).get(partition, 0)
        first = max(start, there[origin].log_start_offset)
        if first > start:
            served = min(first, row["next_offset"])
            report.notes.append(f"[{partition}] {origin} no longer served: not compared [{start}, {served})")
        if first < row["next_offset"]:
            ranges.append(GenerationRange(number, partition, first, row["next_offset"]))
    reader = TopicsReader(origins, config, bounds(deployment.settings, declared_of(snapshot)))
    return Rereading(reader, ranges, cache(lambda partition: is_compacted(origins[partition].topic, config)))


def _plan_file(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read of a file: of every generation with this content."""
    declared = declared_of(snapshot)
    ranges = _generation_ranges(snapshot, report, state)
    path: Path = deployment.settings.data_dir / declared.source.name
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix in (".csv", ".parquet"):
        report.notes.append(f"no second reader for {suffix}: its records were not compared")
        return None
    return Rereading(FileReader(path, deployment.settings.unpacked_bytes_max), ranges, lambda _: False)


def _generation_ranges(snapshot: Snapshot, report: DatasetReport, state: SourceState) -> list[GenerationRange]:
    is_file = declared_of(snapshot).source.is_file
    generations = snapshot.rows(
        "select generation, topic, topic_id from headrace.generations where dataset = %(dataset)s order by generation"
    )
    ranges: list[GenerationRange] = []
    for generation in generations:
        number = generation["generation"]
        if generation["topic_id"] != state.topic_id:
            if generation is not generations[-1]:
                report.notes.append(f"generation {number} came from another {generation['topic']}: not compared")
            continue
        starts = _starts(snapshot, number)
        for partition, checkpoint in checkpoints_of(snapshot, number).items():
            found = state.partitions.get(partition)
            if found is None:
                continue
            start, end = starts.get(partition, 0), checkpoint
            if is_file:
                start, end = (
                    found.log_start_offset,
                    min(checkpoint, found.end_offset),
                )  # later lines are the tombstones of `load --replace`
            first = max(start, found.log_start_offset)
            if first > start:
                report.notes.append(f"[{partition}] no longer served: not compared [{start}, {min(first, end)})")
            if first < end:
                ranges.append(GenerationRange(number, partition, first, end))
    return ranges


def _plan_entries(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read of a stream: only the open generation's, because ids do not identify a stream."""
    declared, name = declared_of(snapshot), snapshot.subject.name
    generation = Checkpoints(snapshot.connection, name).open_generation()
    if generation is None:
        return None
    report.notes += [
        f"generation {row['generation']} came from an earlier {row['topic']}: not compared"
        for row in snapshot.rows(
            "select generation, topic from headrace.generations where dataset = %(dataset)s and not is_open order by 1"
        )
    ]
    number = generation.generation
    _check_doubled(snapshot, report, number)
    reader = StreamReader(
        state.topic,
        deployment.redis(),
        generation.positions[0] or "0-0",
        lambda start, end: _stored_keys(snapshot, number, start, end),
        bounds(deployment.settings, declared),
    )
    start, end = _starts(snapshot, number).get(0, 0), generation.next_offsets[0]
    first = start if reader.has_deletions() else max(start, state.partitions[0].log_start_offset)
    if first > start:
        report.notes.append(f"[0] no longer served: not compared [{start}, {min(first, end)})")
    ranges = [GenerationRange(number, 0, first, end)] if first < end else []
    return Rereading(reader, ranges, cache(lambda _: reader.has_deletions()), "XDEL or XTRIM")


# by SourceDeclaration.kind
_PLANS: Mapping[str, Callable[[Deployment, Snapshot, DatasetReport, SourceState], Rereading | None]] = {
    "topic": _plan_topic,
    "topics": _plan_topics,
    "file": _plan_file,
    "stream": _plan_entries,
}


def _check_doubled(snapshot: Snapshot, report: DatasetReport, generation: int) -> None:
    """Check that no id is stored twice: after XDEL a second row of one id could pass for the row of another."""
    found = snapshot.rows(
        query("doubled_entries"),
        generation=generation,
    )
    for row in found:
        report.add(
            "records",
            generation=generation,
            partition=0,
            offset=row["last_offset"],
            found=f"entry {row['id']} again",
            expected=f"it only at {row['first_offset']}",
            remedy=snapshot.subject.restage,
        )


def _stored_keys(snapshot: Snapshot, generation: int, start: int, end: int) -> Iterator[tuple[int, bytes | None]]:
    query = SQL(
        "select _offset, _key from {} where _generation = %(generation)s and _partition = 0 "
        "and _offset >= %(start)s and _offset < %(end)s "
        'union select "offset", key from headrace.dead_letters where dataset = %(dataset)s '
        'and generation = %(generation)s and partition = 0 and "offset" >= %(start)s and "offset" < %(end)s order by 1'
    ).format(snapshot.subject.staging)
    parameters = {"dataset": snapshot.subject.name, "generation": generation, "start": start, "end": end}
    with snapshot.connection.cursor("verified_keys") as cursor:
        yield from cursor.execute(query, parameters)


def declared_of(snapshot: Snapshot) -> Dataset:
    """The declaration, which the source was opened by."""
    assert snapshot.subject.declared is not None  # without a declaration check_source returns no state
    return snapshot.subject.declared


def checkpoints_of(snapshot: Snapshot, generation: int) -> dict[int, int]:
    """The next offsets of a generation by partition."""
    found = snapshot.rows(
        "select partition, next_offset from headrace.checkpoints "
        "where dataset = %(dataset)s and generation = %(generation)s order by partition",
        generation=generation,
    )
    return {row["partition"]: row["next_offset"] for row in found}


def _starts(snapshot: Snapshot, generation: int) -> dict[int, int]:
    # where a partition's offsets begin: after the line that adopted it
    found = snapshot.rows(
        "select partition, max(end_offset) as start_offset from headrace.batches where dataset = %(dataset)s "
        "and generation = %(generation)s and kind = 'adopt' group by partition",
        generation=generation,
    )
    return {row["partition"]: row["start_offset"] for row in found}
