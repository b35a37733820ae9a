"""The reload: a range that the topic still serves is read again and replaces what was staged of it.

The records are read and decoded into temporary tables first, which holds nobody up. Then, in the same transaction, the
reload takes its turn with the dataset's commits and moves the rows: so that drains wait for the moving alone.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from psycopg import Connection
from psycopg.sql import SQL

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.deployment import Deployment, open_source
from headrace.exceptions import DatasetError, SourceChanged
from headrace.ingest.batch import Barrier, Batch, no_barrier
from headrace.ingest.identity import check_identity
from headrace.postgres import checkpoints, ledger, staging
from headrace.postgres.checkpoints import Generation
from headrace.postgres.connection import database
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.lock_watchdog import drain_name, watch_locks
from headrace.repair import restage
from headrace.repair.reload_request import check_source_kind, parse, ranges
from headrace.repair.restage import Restaged
from headrace.sources.base import Range, ReloadableSource, SourceState

ProgressCallback = Callable[[int, int], None]  # offsets done, offsets in all


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What a reload did, per partition; nothing where no record of that time was below the checkpoints."""

    dataset: str
    partitions: tuple[Restaged, ...]

    def summary(self) -> str:
        """What happened, in one line per partition."""
        if not self.partitions:
            return f"{self.dataset}: nothing to reload: no record of that time below the checkpoints"
        return "\n".join(partition.summary(self.dataset) for partition in self.partitions)


def reload_range(
    deployment: Deployment,
    dataset: Dataset,
    start: str,
    end: str,
    *,
    partition: int | None = None,
    run: RunContext | None = None,
    on_progress: ProgressCallback = lambda _done, _total: None,
    barrier: Barrier = no_barrier,
) -> ReloadResult:
    """Read [start, end) of a topic again and replace what was staged of it, all in one transaction.

    start, end: offsets of one partition, or ISO times (of all partitions, or one): from the first record at or after
    `start` up to the first one at or after `end`, by the broker's record timestamps. Only what lies below the
    checkpoint is read, and moves none. A row moves to staging._replaced_<dataset> and the record's row of today's
    contract takes its place, whether it differs or not; what fails now is a dead letter, what passes now no longer is.

    Raises DatasetError for a range that cannot be had, with the one that can; SourceChanged as `make_plan` does.
    """
    check_source_kind(dataset)
    request = parse(dataset, start, end, partition)
    source = cast(ReloadableSource, open_source(deployment, dataset))
    try:
        state = source.describe()
        with database(deployment.connect(f"headrace reload {dataset.name}")) as connection:
            generation = _check_generation(connection, dataset, state)
            wanted = [Restaged(requested) for requested in ranges(connection, generation, state, source, request)]
            if wanted:
                _reload(deployment, dataset, connection, source, generation, wanted, run, on_progress, barrier)
    finally:
        source.close()
    return ReloadResult(dataset.name, tuple(wanted))


def _check_generation(connection: Connection[Any], dataset: Dataset, state: SourceState) -> Generation:
    """The open generation, if it is the source's; brings the table up to today's contract on the way."""
    with connection.transaction():
        generation = checkpoints.open_generation(connection, dataset.name)
        if generation is None:
            drain = Command("drain", dataset.name)
            raise DatasetError(f"{dataset.name}: nothing was ingested yet; `{drain}` begins", command=drain)
        check_identity(generation, state)
        staging.ensure_table(connection, dataset)
    return generation


def _reload(
    deployment: Deployment,
    dataset: Dataset,
    connection: Connection[Any],
    source: ReloadableSource,
    generation: Generation,
    wanted: list[Restaged],
    run: RunContext | None,
    on_progress: ProgressCallback,
    barrier: Barrier,
) -> None:
    began = time.monotonic()
    with connection.transaction():
        restage.create_tables(connection, dataset)
        _read(connection, dataset, source, generation, {each.partition: each for each in wanted}, on_progress, barrier)
        if source.topic_id() != generation.topic_id:
            drain = Command("drain", dataset.name)
            raise SourceChanged(
                f"{dataset.name}: {generation.topic} was replaced while it was read; nothing was changed; "
                f"`{drain}` says more",
                command=drain,
            )
        barrier("read")
        with _exclusive(deployment, connection, dataset, generation):
            barrier("held")
            for each in wanted:
                restage.replace_rows(connection, dataset, generation, each)
                restage.replace_dead_letters(connection, dataset, generation, each)
            barrier("replaced")
            for each in wanted:
                ledger.append_line(connection, _line(dataset, generation, each, time.monotonic() - began, run))
            barrier("before_commit")


@contextmanager
def _exclusive(
    deployment: Deployment, connection: Connection[Any], dataset: Dataset, generation: Generation
) -> Iterator[None]:
    """Take a turn with the dataset's commits, if its generation is still open.

    In the drain's name: what waits for a reload that is frozen here may end it as it may a drain. Nothing of the client
    is waited for from here on.
    """
    connect = deployment.connect(f"headrace reload {dataset.name}")
    with watch_locks(connection, connect, dataset.name, deployment.lock_timeouts, drain_name(dataset.name)):
        checkpoints.hold(connection, dataset.name)
        found = checkpoints.open_generation(connection, dataset.name)
        if found is None or found.generation != generation.generation:
            raise SourceChanged(
                f"{dataset.name}: generation {generation.generation} was closed while it was read again: the dataset "
                "was adopted or reset meanwhile; nothing was changed"
            )
        connection.execute(SQL("lock table {} in row exclusive mode").format(staging.table(dataset)))
        staging.check_table(connection, dataset)
        yield


def _read(
    connection: Connection[Any],
    dataset: Dataset,
    source: ReloadableSource,
    generation: Generation,
    wanted: Mapping[int, Restaged],
    on_progress: ProgressCallback,
    barrier: Barrier,
) -> None:
    """Read the ranges, chunk by chunk, into the temporary tables."""
    done, total = 0, sum(each.end - each.start for each in wanted.values())
    positions = {partition: each.start for partition, each in wanted.items()}
    bounds = {partition: Range(each.start, each.end) for partition, each in wanted.items()}
    with closing(source.read(bounds)) as chunks:
        for chunk in chunks:
            each = wanted[chunk.partition]
            batch = Batch(dataset, generation.generation, chunk.partition, each.start, batch_id=each.batch_id)
            for record in chunk.records:
                batch.add(record)
            restage.buffer_batch(connection, batch)
            each.add(batch)
            done += chunk.next_offset - positions[chunk.partition]
            positions[chunk.partition] = chunk.next_offset
            del batch, chunk  # not held while the next one is fetched
            on_progress(done, total)
            barrier("shelved")
    for target in (restage.ROWS, restage.DEAD_LETTERS):
        connection.execute(SQL("analyze {}").format(target))


def _line(
    dataset: Dataset, generation: Generation, each: Restaged, elapsed_s: float, run: RunContext | None
) -> LedgerLine:
    return LedgerLine(
        batch_id=each.batch_id,
        dataset=dataset.name,
        generation=generation.generation,
        partition=each.partition,
        start_offset=each.start,
        end_offset=each.end,
        kind=LedgerKind.RELOAD,
        elapsed_s=elapsed_s,
        staged=each.staged,
        dead=each.dead,
        tombstones=each.tombstones,
        empty=each.end - each.start - each.staged - each.dead - each.tombstones,
        bytes=each.bytes,
        first_record_at=each.first_record_at,
        last_record_at=each.last_record_at,
        run=run or RunContext(),
    )
