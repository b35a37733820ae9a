"""Preparation for a plan: tables, the first generation, new partitions, and their ledger lines.

All that a drain needs in Postgres is created here; `headrace.ingest.plan` only reads.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from psycopg import Connection
from psycopg.sql import SQL

from headrace.command import Command
from headrace.dataset import Dataset, dataset_names
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, DatasetsRejected
from headrace.ingest.identity import check_identity, seen_from
from headrace.postgres import checkpoints, ledger, staging
from headrace.postgres.checkpoints import Generation
from headrace.postgres.connection import database
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.migrations import locked, migrate, while_locked
from headrace.postgres.roles import separate
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
        checkpoints.register(connection, dataset.name)
        staging.ensure_table(connection, dataset)


def prepare_table(connection: Connection[Any], dataset: Dataset, lock_timeout_ms: int | None = None) -> None:
    """Register the dataset and create its staging table, or add the columns of new optional fields.

    lock_timeout_ms: adding a column waits for every reader of the table, and all drains wait behind it. Defaults to
    the session's timeout.
    """
    with connection.transaction():
        if lock_timeout_ms is not None:
            connection.execute(SQL("set local lock_timeout = {}").format(f"{lock_timeout_ms}ms"))
        checkpoints.register(connection, dataset.name)
        staging.ensure_table(connection, dataset)


def prepare_generation(
    connection: Connection[Any], dataset: Dataset, source: Source, state: SourceState, run: RunContext
) -> Generation:
    """Return the generation that a drain writes to, open and with a checkpoint for each partition.

    The first contact with a topic begins a generation, and so does a changed file. Raises SourceChanged, and changes
    nothing, if the source is another one, no longer serves the next offset, or ends before a checkpoint; the message
    names the range at risk.
    """
    with connection.transaction():
        generation = checkpoints.open_generation(connection, dataset.name)
        if _is_new(dataset, generation, state):
            checkpoints.lock(connection, dataset.name)  # read again: another run may have been first
            generation = checkpoints.open_generation(connection, dataset.name)
        if generation is None or _is_new(dataset, generation, state):
            return begin_generation(connection, dataset, state, run, always_line=False)
        if dataset.source.is_file:
            return generation
        check_identity(generation, seen_from(source, generation, state))
        if generation.cluster_id is None and state.cluster_id is not None:
            checkpoints.store_cluster_id(connection, generation, state.cluster_id)
        return _with_new_partitions(connection, generation, state)


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

    Offsets before a log start were never readable: an `adopt` line [0, log start) records that, with `note`.
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
    """Whether to begin a generation: at the first contact, and for a changed file, but never for a changed topic."""
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
