"""The irreversible commands: adopt, accept-loss and reset.

Each is refused if it is not needed, has a preview that changes nothing, and writes a ledger line.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, SourceChanged
from headrace.ingest.exclusive import exclusive
from headrace.ingest.identity import changed_topics, check_cluster, check_identity, seen_from
from headrace.ingest.opening import open_source
from headrace.ingest.prepare import AdoptLines, begin_generation
from headrace.origin import Origin
from headrace.postgres import checkpoints, ledger, staging
from headrace.postgres.checkpoints import Checkpoints, Generation
from headrace.postgres.connection import database
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.staged_tables import all_tables
from headrace.repair.topics import adopt_topics, adopts_topics, preview_topics, staged_rows
from headrace.sources.base import Source, SourceState, assign


def preview_adopt(deployment: Deployment, dataset: Dataset) -> list[str]:
    """The effects of `adopt`, one per line; raises DatasetError if it is not needed."""
    with closing(_topic(deployment, dataset)) as source, database(deployment.connect("headrace adopt")) as connection:
        state = _described(connection, dataset, source)
        generation, reason = _reason_to_adopt(connection, dataset, source, state)
        if adopts_topics(generation, state):
            return preview_topics(connection, generation, state)
        return [f"{dataset.name}: {reason}", *_adoption(connection, generation, state)]


def adopt(deployment: Deployment, dataset: Dataset, *, run: RunContext | None = None) -> int:
    """Close the open generation and begin the next at the current source; return its number.

    Of a dataset of several topics only those that were replaced are adopted, and the generation stays open. Raises
    DatasetError unless the source's identity, log end or retention shows that it was replaced: otherwise the same
    records would be staged twice.
    """
    with closing(_topic(deployment, dataset)) as source:
        with database(deployment.connect("headrace adopt")) as connection:
            state = _described(connection, dataset, source)
        with exclusive(deployment, dataset, "adopt") as connection:
            generation, reason = _reason_to_adopt(connection, dataset, source, state)
            stored = Checkpoints(connection, dataset.name)
            if adopts_topics(generation, state):
                adopt_topics(stored, generation, state, run or RunContext())
                return generation.generation
            begun = begin_generation(stored, state, run or RunContext(), lines=AdoptLines.ALL, note=reason)
            return begun.generation


def preview_accept_loss(deployment: Deployment, dataset: Dataset, partition: int, to: int) -> list[str]:
    """The effects of `accept_loss`, one per line; raises DatasetError if it is not needed."""
    with (
        closing(open_source(deployment, dataset)) as source,
        database(deployment.connect("headrace accept-loss")) as connection,
    ):
        state = _described(connection, dataset, source)
        loss = _loss(connection, dataset, source, state, partition, to)
    where = f"{dataset.name}[{partition}]{f' ({loss.origin})' if loss.origin else ''}"
    return [f"{where}: {loss.note}", f"{where}: the next run continues at {to}"]


def accept_loss(
    deployment: Deployment, dataset: Dataset, partition: int, to: int, *, run: RunContext | None = None
) -> tuple[int, int]:
    """Move a partition's checkpoint past a range that the source lost; return the range [start, to).

    Raises DatasetError if the source still serves any offset of the range.
    """
    with closing(open_source(deployment, dataset)) as source:
        with database(deployment.connect("headrace accept-loss")) as connection:
            state = _described(connection, dataset, source)
        with exclusive(deployment, dataset, "accept-loss") as connection:
            loss = _loss(connection, dataset, source, state, partition, to)
            if partition not in loss.generation.next_offsets:
                stored, number = Checkpoints(connection, dataset.name), loss.generation.generation
                stored.start_partition(number, partition, 0, origin=loss.origin)
            line = LedgerLine(
                batch_id=ledger.new_batch_id(),
                dataset=dataset.name,
                generation=loss.generation.generation,
                partition=partition,
                start_offset=loss.start,
                end_offset=to,
                kind=LedgerKind.ACCEPT_LOSS,
                position=loss.position,
                run=run or RunContext(),
                note=loss.note,
            )
            checkpoints.advance(connection, line)
            ledger.append_line(connection, line)
    return loss.start, to


def preview_reset(deployment: Deployment, dataset: Dataset) -> list[str]:
    """The effects of `reset`, one per line; empty if there is nothing to delete."""
    with database(deployment.connect("headrace reset")) as connection:
        found = _found(connection, dataset)
        if not any(found.values()):
            return []
        gone = connection.execute(
            "select partition, log_start_offset from headrace.observations "
            "where dataset = %s and log_start_offset > 0 order by partition",
            (dataset.name,),
        ).fetchall()
    lines = [f"{dataset.name}: deletes {_listed(found)}; the next run reads the source from its start"]
    if not dataset.source.is_file:
        lines += [
            f"{dataset.name}[{partition}]: what is staged of [0, {start}) cannot be read again: the source did not "
            "serve it when it was last checked"
            for partition, start in gone
        ]
    return lines


def reset(deployment: Deployment, dataset: Dataset, *, run: RunContext | None = None) -> dict[str, int]:
    """Delete everything staged of a dataset; return the deleted numbers. The next run starts from scratch.

    Generations are closed, not reused. Only ledger lines of kind `reset` stay, the new one last; if there is nothing to
    delete, nothing is written. Marts start from zero at their next build.
    """
    name = dataset.name
    with exclusive(deployment, dataset, "reset") as connection:
        found = _found(connection, dataset)
        staging.ensure_tables(connection, all_tables(dataset), recreate=True)
        if not any(found.values()):
            return found
        # truncate, like the case's SQL; running drains have ended, and the fence stops later ones of this generation
        tables = [table for each in all_tables(dataset) for table in (each.identifier, each.replaced)]
        connection.execute(SQL("truncate {}").format(SQL(", ").join(tables)))
        for table in ("dead_letters", "checkpoints", "observations", "loaded_files"):
            connection.execute(SQL("delete from headrace.{} where dataset = %s").format(SQL(table)), (name,))
        connection.execute("delete from headrace.batches where dataset = %s and kind <> 'reset'", (name,))
        connection.execute(
            "update headrace.generations set is_open = false, closed_at = clock_timestamp() "
            "where dataset = %s and is_open",
            (name,),
        )
        # only lines of kind reset remain: they are renumbered from 1, and the new one follows
        connection.execute(
            "update headrace.datasets set built = gen_random_uuid(), masking_key_id = null, last_seq = "
            "(select count(*) from headrace.batches as b where b.dataset = datasets.dataset) where dataset = %s",
            (name,),
        )
        newest = connection.execute(
            "select max(generation) from headrace.generations where dataset = %s", (name,)
        ).fetchone()
        if newest and newest[0]:
            line = LedgerLine(
                batch_id=ledger.new_batch_id(),
                dataset=name,
                generation=newest[0],
                partition=0,
                start_offset=0,
                end_offset=0,
                kind=LedgerKind.RESET,
                run=run or RunContext(),
                note=f"deleted {_listed(found)}",
            )
            ledger.append_line(connection, line)
    return found


def _topic(deployment: Deployment, dataset: Dataset) -> Source:
    if dataset.source.is_file:
        load = Command("load", dataset.name)
        raise DatasetError(
            f"{dataset.name}: comes from a file, expected a topic or a stream; `{load}` merges a file that changed",
            command=load,
        )
    return open_source(deployment, dataset)


def _described(connection: Connection[Any], dataset: Dataset, source: Source) -> SourceState:
    """The source's state, with the numbers that the partitions of several topics have."""
    generation = Checkpoints(connection, dataset.name).open_generation()
    if generation is not None:
        assign(source, generation.origins, generation.first_free)
    return source.describe()


def _reason_to_adopt(
    connection: Connection[Any], dataset: Dataset, source: Source, state: SourceState
) -> tuple[Generation, str]:
    """The open generation, and why a drain would refuse the source."""
    generation = Checkpoints(connection, dataset.name).open_generation()
    if generation is None:
        drain = Command("drain", dataset.name)
        raise DatasetError(f"{dataset.name}: nothing was ingested yet; `{drain}` begins", command=drain)
    try:
        check_identity(generation, seen_from(source, generation, state))
    except SourceChanged as error:
        if adopts_topics(generation, state) and not changed_topics(generation, state):
            raise  # a new partition that lost its first offsets: no topic was replaced
        reason = str(error).removeprefix(f"{dataset.name}: ").partition("; nothing was changed")[0]
        return generation, reason.partition("; `headrace")[0]
    again = sum(
        max(generation.next_offsets.get(p, 0) - found.log_start_offset, 0) for p, found in state.partitions.items()
    )
    raise DatasetError(
        f"{dataset.name}: found {state.topic} unchanged since generation {generation.generation} read it, expected "
        f"another topic or id, or offsets that do not match a checkpoint; nothing was changed: {again} offsets would "
        "be read and staged a second time"
    )


def _adoption(connection: Connection[Any], generation: Generation, state: SourceState) -> list[str]:
    """Per partition: what is read, what may be staged twice, and what is abandoned."""
    name = generation.dataset
    is_same = (generation.topic, generation.topic_id) == (state.topic, state.topic_id)
    if None not in (generation.cluster_id, state.cluster_id):
        is_same = is_same and generation.cluster_id == state.cluster_id
    staged = staged_rows(connection, generation)
    lines = []
    for partition in sorted({*state.partitions, *generation.next_offsets}):
        found, checkpoint = state.partitions.get(partition), generation.next_offsets.get(partition, 0)
        parts = ["the partition is gone"]
        if found is not None:
            parts = [f"reads [{found.log_start_offset}, {found.end_offset}) of {state.topic}"]
        rows = int(staged.get(partition, 0))
        if found is not None and is_same and found.log_start_offset < checkpoint:
            again = min(checkpoint, found.end_offset) - found.log_start_offset
            parts.append(f"{again} offsets of it were read before and will be staged twice")
        elif not is_same:
            parts.append(f"records of {generation.topic} from {checkpoint} on are abandoned")
        if rows:
            parts.append(f"{rows} rows of generation {generation.generation} stay")
        lines.append(f"{name}[{partition}]: {'; '.join(parts)}")
    return lines


@dataclass(frozen=True, slots=True)
class _Loss:
    generation: Generation
    start: int
    position: str | None
    note: str
    origin: Origin | None


def _loss(
    connection: Connection[Any], dataset: Dataset, source: Source, state: SourceState, partition: int, to: int
) -> _Loss:
    generation = Checkpoints(connection, dataset.name).open_generation()
    where = f"{dataset.name}[{partition}]"
    if generation is not None:
        check_cluster(generation, state.cluster_id)
    origin = state.origins.get(partition)
    if generation is None or partition not in state.partitions or not _is_its_own(generation, state, partition):
        drain = Command("drain", dataset.name)
        raise DatasetError(f"{where}: no such partition in an open generation; run `{drain}`", command=drain)
    found = seen_from(source, generation, state).partitions[partition]
    start = generation.next_offsets.get(partition, 0)
    if not start < to <= found.log_start_offset:
        raise DatasetError(
            f"{where}: found checkpoint {start} and log start {found.log_start_offset}, expected --to above "
            f"the first and at most the second, got {to}: only offsets that the source no longer serves can be lost"
        )
    return _Loss(
        generation,
        start,
        found.start_position if to == found.log_start_offset else None,
        f"abandons [{start}, {to}), {to - start} offsets that were never read: the log starts at "
        f"{found.log_start_offset}",
        origin,
    )


def _is_its_own(generation: Generation, state: SourceState, partition: int) -> bool:
    """Whether a partition of the source is, or may become, one of the generation."""
    if not generation.has_several_topics:
        return state.topic_id == generation.topic_id
    origin = state.origins.get(partition)
    return origin is not None and generation.origins.get(partition, origin) == origin


def _found(connection: Connection[Any], dataset: Dataset) -> dict[str, int]:
    """The numbers of rows to delete, by table; 0 for a staging table that is gone."""
    is_there = connection.execute("select to_regclass(%s) is not null", (f"staging.{dataset.name}",)).fetchone()
    staged = SQL("(select count(*) from {})").format(staging.table(dataset)) if is_there == (True,) else SQL("0")
    row = connection.execute(
        SQL(
            "select {}, (select count(*) from headrace.dead_letters where dataset = %(dataset)s), "
            "(select count(*) from headrace.batches where dataset = %(dataset)s and kind <> 'reset'), "
            "(select count(*) from headrace.checkpoints where dataset = %(dataset)s)"
        ).format(staged),
        {"dataset": dataset.name},
    ).fetchone()
    assert row is not None
    return dict(zip(("staged", "dead", "batches", "checkpoints"), row, strict=True))


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in found.items())
