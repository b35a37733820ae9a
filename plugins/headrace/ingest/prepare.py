"""Preparation for a plan: tables, the first generation, new partitions, and their ledger lines.

All that a drain needs in Postgres is created here; `headrace.ingest.plan` only reads.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL

from headrace.command import Command
from headrace.dataset import Dataset, dataset_names
from headrace.deployment import Deployment
from headrace.exceptions import CheckpointMoved, DatasetError, DatasetsRejected
from headrace.ingest.identity import check_identity, is_new_topic, seen_from
from headrace.postgres import ledger, staging
from headrace.postgres.checkpoints import SEVERAL_TOPICS, Checkpoints, Generation
from headrace.postgres.connection import database
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.migrations import locked, migrate, while_locked
from headrace.postgres.roles import separate
from headrace.postgres.staged_tables import all_tables
from headrace.sources.base import Source, SourceState


def initialise(deployment: Deployment, print_line: Callable[[str], None] = lambda _line: None) -> list[str]:
    """Migrate headrace.*, create the staging tables, grant the roles; return the names of newly applied migrations.

    print_line: receives one line that tells an administrator what to do, and one for each rejected dataset.
    Raises DatasetsRejected after the tables of all other datasets are created.
    """
    rejected: dict[str, DatasetError] = {}
    with database(deployment.connect("headrace init")) as connection:
        applied = migrate(connection)
        names = dataset_names(deployment.settings.datasets_dir)
        for name in names:
            try:
                while_locked(connection, partial(_make_table, connection, deployment.dataset(name)))
            except DatasetError as error:
                rejected[name] = error
        todo = separate(connection)
    if todo is not None:
        print_line(todo)
    if len(rejected) == 1:
        raise DatasetsRejected(str(*rejected.values()))
    if rejected:
        for reason in rejected.values():
            print_line(str(reason))
        raise DatasetsRejected(
            f"{len(rejected)} of {len(names)} datasets are rejected: {', '.join(rejected)}; the others are ready; "
            "correct these and run `headrace init` again",
            command=Command("init"),
        )
    return applied


def _make_table(connection: Connection[Any], dataset: Dataset) -> None:
    with locked(connection, f"staging.{dataset.name}"):
        Checkpoints(connection, dataset.name).register()
        staging.ensure_tables(connection, all_tables(dataset))


def prepare_table(connection: Connection[Any], dataset: Dataset, lock_timeout_ms: int | None = None) -> None:
    """Register the dataset and create its staging table, or add the columns of new optional fields.

    lock_timeout_ms: adding a column waits for every reader of the table, and all drains wait behind it. Defaults to
    the session's timeout.
    """
    with connection.transaction():
        if lock_timeout_ms is not None:
            connection.execute(SQL("set local lock_timeout = {}").format(f"{lock_timeout_ms}ms"))
        stored = Checkpoints(connection, dataset.name, dataset.masking_key_id)
        stored.register()
        stored.check_masking_key()
        staging.ensure_tables(connection, all_tables(dataset))


def prepare_generation(
    stored: Checkpoints, dataset: Dataset, source: Source, state: SourceState, run: RunContext
) -> Generation:
    """Return the generation that a drain writes to, open and with a checkpoint for each partition.

    The first contact with a topic begins a generation, and so does a changed file. Raises SourceChanged, and changes
    nothing, if the source is another one, no longer serves the next offset, or ends before a checkpoint; the message
    names the range at risk.
    """
    with stored.connection.transaction():
        generation = stored.open_generation()
        if _is_new(dataset, generation, state):
            stored.lock()  # read again: another run may have been first
            generation = stored.open_generation()
        if generation is None or _is_new(dataset, generation, state):
            lines = AdoptLines.NONE if dataset.source.is_file else AdoptLines.OF_LOST
            return begin_generation(stored, state, run, lines=lines)
        if dataset.source.is_file:
            return generation
        check_identity(generation, seen_from(source, generation, state))
        if generation.cluster_id is None and state.cluster_id is not None:
            stored.store_cluster_id(generation.generation, state.cluster_id)
        return _with_new_partitions(stored, generation, state, run)


class AdoptLines(Enum):
    """Of which partitions the beginning of a generation writes an `adopt` line."""

    NONE = "none"  # a file: lines before its first one do not exist
    OF_LOST = "of lost"  # those whose log does not start at 0
    ALL = "all"


def begin_generation(
    stored: Checkpoints,
    state: SourceState,
    run: RunContext,
    *,
    lines: AdoptLines,
    note: str | None = None,
) -> Generation:
    """Open the next generation at the source's log starts.

    Offsets before a log start were never readable: an `adopt` line [0, log start) records that, with `note`.
    """
    topic_id = SEVERAL_TOPICS if state.origins else state.topic_id
    number = stored.start_generation(state.topic, topic_id, state.cluster_id)
    for partition, found in sorted(state.partitions.items()):
        start = found.log_start_offset
        stored.start_partition(number, partition, start, found.start_position, state.origins.get(partition))
        if lines is AdoptLines.ALL or (lines is AdoptLines.OF_LOST and start > 0):
            append_adopt_line(stored, number, partition, start, run, note)
    generation = stored.open_generation()
    assert generation is not None
    return generation


def append_adopt_line(
    stored: Checkpoints, generation: int, partition: int, start: int, run: RunContext, note: str | None = None
) -> None:
    """Write the first line of a partition whose log starts at `start`."""
    line = LedgerLine(
        batch_id=ledger.new_batch_id(),
        dataset=stored.dataset,
        generation=generation,
        partition=partition,
        start_offset=0,
        end_offset=start,
        kind=LedgerKind.ADOPT,
        run=run,
        note=note,
    )
    ledger.append_line(stored.connection, line)


def _is_new(dataset: Dataset, generation: Generation | None, state: SourceState) -> bool:
    """Whether to begin a generation: at the first contact, and for a changed file, but never for a changed topic."""
    return generation is None or (dataset.source.is_file and generation.topic_id != state.topic_id)


def _with_new_partitions(
    stored: Checkpoints, generation: Generation, state: SourceState, run: RunContext
) -> Generation:
    if state.origins and state.topic != generation.topic:
        stored.store_topic(generation.generation, state.topic)
    new = sorted(set(state.partitions) - set(generation.next_offsets))
    if not new:
        return generation
    if state.origins:
        stored.hold()  # its numbers are given once; and lines are the last statements before COMMIT
        generation = stored.open_generation() or generation
    starts: dict[int, int] = {}
    for partition in new:
        origin = state.origins.get(partition)
        if is_new_topic(generation, origin):
            starts[partition] = state.partitions[partition].log_start_offset
        stored.start_partition(generation.generation, partition, starts.get(partition, 0), origin=origin)
    found = stored.open_generation()
    if found is None or any(found.origins.get(p) != state.origins.get(p) or p not in found.next_offsets for p in new):
        raise CheckpointMoved(
            f"{stored.dataset}: another run numbered the partitions of new topics meanwhile; nothing was changed; run "
            "the same command again"
        )
    for partition, start in starts.items():
        if start > 0 and partition not in generation.next_offsets:
            append_adopt_line(stored, generation.generation, partition, start, run)
    return found
