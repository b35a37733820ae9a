"""Checks of the source: its identity, and whether it still serves the offsets after the checkpoints."""

from typing import Any

from headrace.command import Command
from headrace.deployment import Deployment
from headrace.exceptions import AnotherCluster, FileSourceError, HeadraceError, SourceChanged, TopicMissing
from headrace.ingest.identity import changed_topics, describe
from headrace.ingest.opening import open_source
from headrace.postgres.checkpoints import SEVERAL_TOPICS, Checkpoints, Generation
from headrace.sources.base import SourceState
from headrace.verify.report import DatasetReport
from headrace.verify.rereading import checkpoints_of, declared_of
from headrace.verify.snapshot import Snapshot


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
    subject, declared = snapshot.subject, declared_of(snapshot)
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
    except TopicMissing as error:
        report.checks.append("source")
        report.add(
            "source",
            generation=generation["generation"],
            found=str(error),
            expected=f"the {generation['topic']} with id {generation['topic_id']}",
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
    checkpoints = checkpoints_of(snapshot, number)
    if state.origins and generation["topic_id"] == SEVERAL_TOPICS:
        closed = _closed(snapshot, number)
        checkpoints = {partition: at for partition, at in checkpoints.items() if partition not in closed}
        changed = changed_topics(_ours(snapshot), state)
        for topic, refused in changed.items():
            report.add(
                "source", generation=number, found=str(refused), expected=f"{topic} as it was read", remedy=adopt
            )
        if changed:
            return
    elif (state.topic, state.topic_id) != (generation["topic"], generation["topic_id"]):
        report.add(
            "source",
            generation=number,
            found=f"topic {state.topic} with id {state.topic_id}",
            expected=f"{generation['topic']} with id {generation['topic_id']}, as generation {number} has it",
            remedy=adopt,
        )
        return
    for partition, checkpoint in checkpoints.items():
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


def _adopt(name: str, generation: int) -> str:
    adopt = Command("adopt", name)
    return f"`{adopt}` closes generation {generation} and reads the current topic from its start"


def _open_generation(snapshot: Snapshot) -> dict[str, Any] | None:
    found = snapshot.rows(
        "select generation, topic, topic_id from headrace.generations where dataset = %(dataset)s and is_open "
        "order by generation desc"
    )
    return found[0] if found else None


def _closed(snapshot: Snapshot, generation: int) -> set[int]:
    """Partitions of topics that were replaced: their offsets are no longer those of the source."""
    found = snapshot.rows(
        "select partition from headrace.checkpoints "
        "where dataset = %(dataset)s and generation = %(generation)s and is_closed",
        generation=generation,
    )
    return {row["partition"] for row in found}


def _ours(snapshot: Snapshot) -> Generation:
    generation = Checkpoints(snapshot.connection, snapshot.subject.name).open_generation()
    assert generation is not None  # its row was read in this snapshot
    return generation
