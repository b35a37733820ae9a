"""The reload: read a range that the topic still serves again, and replace its staged rows.

The records are first read and decoded into temporary tables, without a lock that a drain needs. Then, in the same
transaction, the reload locks the dataset's checkpoints and moves the rows: drains wait only for that.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from psycopg import Connection
from psycopg.sql import SQL

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, SourceChanged
from headrace.ingest.batch import Batch
from headrace.ingest.identity import check_identity
from headrace.ingest.opening import open_source
from headrace.postgres import ledger, staging
from headrace.postgres.checkpoints import Checkpoints, Generation
from headrace.postgres.connection import database
from headrace.postgres.ledger import LedgerKind, LedgerLine
from headrace.postgres.lock_watchdog import drain_name, watch_locks
from headrace.postgres.staged_tables import all_tables
from headrace.repair import restage
from headrace.repair.options import DEFAULT_OPTIONS, RepairOptions
from headrace.repair.reload_request import check_source_kind, parse, ranges
from headrace.repair.restage import Restaged
from headrace.sources.base import Range, ReloadableSource, SourceState, assign


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """The result of a reload, per partition; empty if no record of that time was below the checkpoints."""

    dataset: str
    partitions: tuple[Restaged, ...]

    def summary(self) -> str:
        """The result, one line per partition."""
        if not self.partitions:
            return f"{self.dataset}: nothing to reload: no record of that time below the checkpoints"
        return "\n".join(partition.summary(self.dataset) for partition in self.partitions)

    def document(self) -> dict[str, Any]:
        """The result as JSON types, per partition."""
        return {"dataset": self.dataset, "partitions": [partition.document() for partition in self.partitions]}


def reload_range(
    deployment: Deployment,
    dataset: Dataset,
    start: str,
    end: str,
    *,
    partition: int | None = None,
    options: RepairOptions = DEFAULT_OPTIONS,
) -> ReloadResult:
    """Read [start, end) of a topic again and replace its staged rows and dead letters, all in one transaction.

    start, end: offsets of one partition, or ISO times (of all partitions, or one): from the first record at or after
    `start` up to the first one at or after `end`, by the broker's record timestamps. Only offsets below the checkpoint
    are read, and no checkpoint moves. A row moves to staging._replaced_<dataset>, and the row that today's contract
    makes of the record takes its place, even if both are equal. A record that the contract now rejects becomes a dead
    letter; a dead letter that it now accepts is marked as replayed.

    Raises DatasetError for a range that is not available, and names the available one; SourceChanged like `plan`.
    """
    check_source_kind(dataset)
    request = parse(dataset, start, end, partition)
    source = cast(ReloadableSource, open_source(deployment, dataset))
    try:
        with database(deployment.connect(f"headrace reload {dataset.name}")) as connection:
            if (known := Checkpoints(connection, dataset.name).open_generation()) is not None:
                assign(source, known.origins, known.first_free)
            state = source.describe()
            generation = _check_generation(connection, dataset, state)
            wanted = [Restaged(requested) for requested in ranges(connection, generation, state, source, request)]
            if wanted:
                job = _ReloadJob(deployment, dataset, source, generation, wanted, options, state.topic_id)
                _reload(connection, job)
    finally:
        source.close()
    return ReloadResult(dataset.name, tuple(wanted))


def _check_generation(connection: Connection[Any], dataset: Dataset, state: SourceState) -> Generation:
    """The open generation, if it is the source's. Adds columns for new optional fields to the staging table."""
    with connection.transaction():
        stored = Checkpoints(connection, dataset.name, dataset.masking_key_id)
        generation = stored.open_generation()
        if generation is None:
            drain = Command("drain", dataset.name)
            raise DatasetError(f"{dataset.name}: nothing was ingested yet; `{drain}` begins", command=drain)
        check_identity(generation, state)
        stored.check_masking_key()
        staging.ensure_tables(connection, all_tables(dataset))
    return generation


@dataclass(frozen=True, slots=True)
class _ReloadJob:
    """A reload's ranges, source and ledger context."""

    deployment: Deployment
    dataset: Dataset
    source: ReloadableSource
    generation: Generation
    wanted: Sequence[Restaged]
    options: RepairOptions
    topic_id: str

    def line(self, restaged: Restaged, elapsed_s: float) -> LedgerLine:
        """The ledger line of one partition."""
        return LedgerLine(
            batch_id=restaged.batch_id,
            dataset=self.dataset.name,
            generation=self.generation.generation,
            partition=restaged.partition,
            start_offset=restaged.start,
            end_offset=restaged.end,
            kind=LedgerKind.RELOAD,
            elapsed_s=elapsed_s,
            staged=restaged.staged,
            dead=restaged.dead,
            tombstones=restaged.tombstones,
            empty=restaged.end
            - restaged.start
            - (restaged.staged + restaged.dead + restaged.tombstones + restaged.ignored),
            elements=dict(restaged.elements) if self.dataset.children else None,
            ignored=restaged.ignored,
            bytes=restaged.bytes,
            first_record_at=restaged.first_record_at,
            last_record_at=restaged.last_record_at,
            run=self.options.run,
        )


def _reload(connection: Connection[Any], job: _ReloadJob) -> None:
    began = time.monotonic()
    dataset, generation = job.dataset, job.generation
    with connection.transaction():
        restage.create_tables(connection, dataset)
        _read(connection, job)
        if job.source.topic_id() != job.topic_id:
            drain = Command("drain", dataset.name)
            raise SourceChanged(
                f"{dataset.name}: {generation.topic} was replaced while it was read; nothing was changed; "
                f"`{drain}` shows the change",
                command=drain,
            )
        job.options.barrier("read")
        with _exclusive(connection, job):
            job.options.barrier("held")
            for restaged in job.wanted:
                restage.replace_rows(connection, dataset, generation, restaged)
                restage.replace_dead_letters(connection, dataset, generation, restaged)
            job.options.barrier("replaced")
            for restaged in job.wanted:
                ledger.append_line(connection, job.line(restaged, time.monotonic() - began))
            job.options.barrier("before_commit")


@contextmanager
def _exclusive(connection: Connection[Any], job: _ReloadJob) -> Iterator[None]:
    """Exclude the dataset's commits until the transaction ends.

    The lock watchdog sees this session under the drain's name: a drain that waits for a frozen reload may end it, like
    a frozen drain. From here on the transaction waits for no client. Raises SourceChanged if the generation was closed.
    """
    dataset, generation = job.dataset, job.generation
    connect = job.deployment.connect(f"headrace reload {dataset.name}")
    with watch_locks(connection, connect, dataset.name, job.deployment.lock_timeouts, drain_name(dataset.name)):
        Checkpoints(connection, dataset.name).hold()
        found = Checkpoints(connection, dataset.name).open_generation()
        if found is None or found.generation != generation.generation:
            raise SourceChanged(
                f"{dataset.name}: generation {generation.generation} was closed while it was read again: the dataset "
                "was adopted or reset meanwhile; nothing was changed"
            )
        staging.lock_tables(connection, dataset)
        staging.check_table(connection, dataset)
        yield


def _read(connection: Connection[Any], job: _ReloadJob) -> None:
    """Read the ranges, chunk by chunk, into the temporary tables."""
    wanted = {restaged.partition: restaged for restaged in job.wanted}
    done, total = 0, sum(restaged.end - restaged.start for restaged in job.wanted)
    positions = {partition: restaged.start for partition, restaged in wanted.items()}
    bounds = {partition: Range(restaged.start, restaged.end) for partition, restaged in wanted.items()}
    with closing(job.source.read(bounds)) as chunks:
        for chunk in chunks:
            restaged = wanted[chunk.partition]
            batch = Batch(
                job.dataset, job.generation.generation, chunk.partition, restaged.start, batch_id=restaged.batch_id
            )
            for record in chunk.records:
                batch.add(record)
            restage.buffer_batch(connection, batch)
            restaged.add(batch)
            done += chunk.next_offset - positions[chunk.partition]
            positions[chunk.partition] = chunk.next_offset
            del batch, chunk  # frees their memory while the next chunk is fetched
            job.options.on_progress(done, total)
            job.options.barrier("shelved")
    for target in (restage.ROWS, restage.DEAD_LETTERS, *restage.element_tables(job.dataset)):
        connection.execute(SQL("analyze {}").format(target))
