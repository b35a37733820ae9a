"""Checks of the source: its identity, and whether it still serves the offsets after the checkpoints."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.sql import SQL

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import AnotherCluster, FileSourceError, HeadraceError, SourceChanged, TopicMissing
from headrace.ingest.identity import describe
from headrace.ingest.opening import bounds, open_source
from headrace.postgres.checkpoints import Checkpoints
from headrace.sources.base import SourceState
from headrace.verify.readers import FileReader, RecordReader, StreamReader, TopicReader, is_compacted
from headrace.verify.records import GenerationRange
from headrace.verify.report import DatasetReport
from headrace.verify.snapshot import Snapshot, query


@dataclass(frozen=True, slots=True)
class Rereading:
    """The ranges and reader of a deep check; taken_by: what may remove records if is_compacted is true."""

    reader: RecordReader
    ranges: list[GenerationRange]
    is_compacted: Callable[[], bool]
    taken_by: str = "compaction"


def check_source(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, *, deep: bool
) -> SourceState | None:
    """Check that the open generation's topic id is the source's, and no checkpoint is after its last stable offset.

    The source is asked after the snapshot, so its offsets can only be newer. A source that cannot be reached is a note,
    in a deep check the report's error. Returns the source's state.
    """
    subject = snapshot.subject
    generation = _open_generation(snapshot)
    if subject.declared is None:
        report.notes.append("not declared in this deployment: its source was not asked")
        return None
    if generation is None:
        return None
    state = _asked(deployment, snapshot, report, generation, deep=deep)
    if state is None:
        return None
    if subject.declared.source.is_file:
        if state.topic_id != generation["topic_id"]:
            report.notes.append(
                f"{state.topic} is not the file that generation {generation['generation']} was loaded from "
                f"({generation['topic']}, sha256 {generation['topic_id'][:12]}...): not compared"
            )
        return state
    report.checks.append("source")
    _check_topic(snapshot, report, generation, state)
    return state


def _asked(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, generation: dict[str, Any], *, deep: bool
) -> SourceState | None:
    """What the source says of itself; None where it did not, which the report then tells."""
    subject, declared = snapshot.subject, _declared(snapshot)
    try:
        source = open_source(deployment, declared)
        try:
            ours = Checkpoints(snapshot.connection, subject.name).open_generation()
            state = describe(source, ours)
            if ours is not None and ours.topic == state.topic:
                state = source.seen_from(state, ours.next_offsets, ours.positions)
        finally:
            source.close()
    except SourceChanged as error:
        report.checks.append("source")
        report.add(
            "source",
            generation=generation["generation"],
            found=str(error),
            expected=f"the {generation['topic']} of generation {generation['generation']}",
            remedy=(
                "point the address back to the old cluster; nothing else is wrong"
                if isinstance(error, AnotherCluster)
                else _adopt(subject.name, generation["generation"])
            ),
        )
        return None
    except FileSourceError as error:
        report.notes.append(f"the file was not compared: {error}")
        return None
    except TopicMissing:
        report.checks.append("source")
        report.add(
            "source",
            generation=generation["generation"],
            found=f"no topic {generation['topic']}",
            expected=f"the topic with id {generation['topic_id']}",
            remedy=f"create it and `{Command('adopt', subject.name)}` reads it from its start; what is staged stays",
        )
        return None
    except HeadraceError as error:
        if deep:
            report.error = str(error)
        else:
            report.notes.append(f"the source could not be asked: {error}")
        return None
    return state


def _check_topic(snapshot: Snapshot, report: DatasetReport, generation: dict[str, Any], state: SourceState) -> None:
    name, number = snapshot.subject.name, generation["generation"]
    adopt = _adopt(name, number)
    if (state.topic, state.topic_id) != (generation["topic"], generation["topic_id"]):
        report.add(
            "source",
            generation=number,
            found=f"topic {state.topic} with id {state.topic_id}",
            expected=f"{generation['topic']} with id {generation['topic_id']}, as generation {number} has it",
            remedy=adopt,
        )
        return
    for partition, checkpoint in _checkpoints(snapshot, number).items():
        found = state.partitions.get(partition)
        if found is None:
            offset, what, expected = checkpoint, "no such partition at the source", "the one that was drained"
        elif checkpoint > found.end_offset:
            offset, what = found.end_offset, f"checkpoint {checkpoint}"
            expected = f"at most {found.end_offset}, the last stable offset"
        elif checkpoint < found.log_start_offset:
            offset, what = checkpoint, f"a log that starts at {found.log_start_offset}"
            expected = f"{checkpoint}, the checkpoint: [{checkpoint}, {found.log_start_offset}) was never read"
        else:
            continue
        remedy = f"the topic lost records, or the checkpoint was moved by hand; {adopt}"
        if found is not None and checkpoint < found.log_start_offset:
            accept = Command("accept-loss", name, "--partition", partition, "--to", found.log_start_offset)
            remedy = f"`{accept}` continues after it"
        report.add(
            "source",
            generation=number,
            partition=partition,
            offset=offset,
            found=what,
            expected=expected,
            remedy=remedy,
        )


def plan_records(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read: of every generation of this source, [its start or the log start, checkpoint).

    Ranges that the source no longer serves are noted, not compared.
    """
    declared = _declared(snapshot)
    plan_of_kind = _PLANS.get(declared.source.kind)
    if plan_of_kind is None:
        report.notes.append(f"no second reader for a {declared.source.kind}: its records were not compared")
        return None
    return plan_of_kind(deployment, snapshot, report, state)


def _plan_topic(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read of a topic: of every generation with this topic's id."""
    declared = _declared(snapshot)
    ranges = _generation_ranges(snapshot, report, state)
    config = deployment.kafka()
    reader = TopicReader(state.topic, config, bounds(deployment.settings, declared))
    return Rereading(reader, ranges, lambda: is_compacted(state.topic, config))


def _plan_file(
    deployment: Deployment, snapshot: Snapshot, report: DatasetReport, state: SourceState
) -> Rereading | None:
    """The ranges to re-read of a file: of every generation with this content."""
    declared = _declared(snapshot)
    ranges = _generation_ranges(snapshot, report, state)
    path: Path = deployment.settings.data_dir / declared.source.name
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix in (".csv", ".parquet"):
        report.notes.append(f"no second reader for {suffix}: its records were not compared")
        return None
    return Rereading(FileReader(path, deployment.settings.unpacked_bytes_max), ranges, lambda: False)


def _declared(snapshot: Snapshot) -> Dataset:
    assert snapshot.subject.declared is not None  # without a declaration check_source returns no state
    return snapshot.subject.declared


def _generation_ranges(snapshot: Snapshot, report: DatasetReport, state: SourceState) -> list[GenerationRange]:
    is_file = _declared(snapshot).source.is_file
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
        for partition, checkpoint in _checkpoints(snapshot, number).items():
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
    declared, name = _declared(snapshot), snapshot.subject.name
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
    return Rereading(reader, ranges, reader.has_deletions, "XDEL or XTRIM")


# by SourceDeclaration.kind
_PLANS: Mapping[str, Callable[[Deployment, Snapshot, DatasetReport, SourceState], Rereading | None]] = {
    "topic": _plan_topic,
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


def _adopt(name: str, generation: int) -> str:
    adopt = Command("adopt", name)
    return f"`{adopt}` closes generation {generation} and reads the current topic from its start"


def _open_generation(snapshot: Snapshot) -> dict[str, Any] | None:
    found = snapshot.rows(
        "select generation, topic, topic_id from headrace.generations where dataset = %(dataset)s and is_open "
        "order by generation desc"
    )
    return found[0] if found else None


def _checkpoints(snapshot: Snapshot, generation: int) -> dict[int, int]:
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
