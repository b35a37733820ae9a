"""The replay: decode dead letters again by today's contract, and stage those that it accepts.

A row keeps its record's coordinate, time, key and headers, so an old one never replaces a newer version of its key.
Only its batch is new, so marts claim it like any other batch.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from psycopg import Connection, Rollback

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatabaseError
from headrace.ingest.batch import Batch
from headrace.ingest.exclusive import exclusive
from headrace.postgres import ledger, staging
from headrace.postgres.copy import copy_in_savepoint
from headrace.postgres.dead_letter_pages import (
    PAGE_BYTES,
    PAGE_ROWS,
    DeadLetter,
    DeadLetterSelection,
    ReasonCount,
    count,
    count_reasons,
    pages,
)
from headrace.postgres.dead_letters import COLUMNS
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.masking_keys import check_masking_key
from headrace.repair.options import DEFAULT_OPTIONS, RepairOptions
from headrace.times import record_time

OFFSET, REASON = ([name for name, _ in COLUMNS].index(name) for name in ("offset", "reason"))

GenerationPartition = tuple[int, int]  # generation, partition


@dataclass(slots=True)
class ReplayResult:
    """The result of a replay or of a dry run.

    remaining: dead letters that are still rejected, by their stored reason. changed: those that are now rejected for
    another reason, by both reasons. reason_counts: all dead letters by reason, if none was selected.
    """

    dataset: str
    reason: str | None
    dry_run: bool
    staged: int = 0
    tombstones: int = 0
    batches: int = 0
    remaining: Counter[str] = field(default_factory=Counter)
    changed: Counter[tuple[str, str]] = field(default_factory=Counter)
    reason_counts: list[ReasonCount] = field(default_factory=list)

    @property
    def passed(self) -> int:
        """The number of dead letters that became rows or tombstones."""
        return self.staged + self.tombstones

    @property
    def records(self) -> int:
        """The number of dead letters that were decoded again."""
        return self.passed + self.remaining.total()

    def summary(self) -> str:
        """The result in one line."""
        if not self.records:
            selected = "no dead letters" if self.reason is None else f"no dead letter of reason {self.reason}"
            others = ", ".join(f"{r.reason} {r.dead}" for r in self.reason_counts if r.dead)
            return f"{self.dataset}: nothing to replay: {selected}" + (f"; there are {others}" if others else "")
        did = "would be" if self.dry_run else "were"
        parts = [
            f"{self.dataset}: {self.passed} of {self.records} dead letters {did} replayed: {self.staged} staged, "
            f"{self.tombstones} tombstones, {self.batches} batches"
        ]
        if self.remaining:
            reasons = ", ".join(f"{reason} {number}" for reason, number in self.remaining.most_common())
            parts.append(f"{self.remaining.total()} still fail: {reasons}")
        if self.changed:
            changes = ", ".join(f"{old} now {new} {number}" for (old, new), number in self.changed.most_common())
            parts.append(f"for another reason than the one that they keep: {changes}")
        return "; ".join(parts)


@dataclass(slots=True)
class _LedgerSums:
    """The sums of a ledger line: staged dead letters of one partition of one generation."""

    batch_id: UUID = field(default_factory=ledger.new_batch_id)
    start_offset: int = -1
    end_offset: int = -1
    rows: int = 0
    tombstones: int = 0
    bytes: int = 0
    first_record_at: datetime | None = None
    last_record_at: datetime | None = None
    elements: Counter[str] = field(default_factory=Counter)

    def add(self, batch: Batch) -> None:
        """Count the staged rows of a batch."""
        offsets = [record.offset for record in batch.accepted]
        if not self.rows:
            self.start_offset = offsets[0]
        self.end_offset = offsets[-1] + 1
        self.rows += len(offsets)
        self.tombstones += batch.tombstones
        self.elements.update(batch.element_counts or {})
        self.bytes += sum(len(record.key or b"") + len(record.value or b"") for record in batch.accepted)
        times = [at for record in batch.accepted if (at := record_time(record.timestamp)) is not None]
        if times:
            self.first_record_at = min([*times, *filter(None, (self.first_record_at,))])
            self.last_record_at = max([*times, *filter(None, (self.last_record_at,))])

    def line(self, dataset: Dataset, generation: int, partition: int, elapsed_s: float, run: RunContext) -> LedgerLine:
        """The ledger line of the partition."""
        return LedgerLine(
            batch_id=self.batch_id,
            dataset=dataset.name,
            generation=generation,
            partition=partition,
            start_offset=self.start_offset,
            end_offset=self.end_offset,
            kind=LedgerKind.REPLAY,
            elapsed_s=elapsed_s,
            staged=self.rows - self.tombstones,
            tombstones=self.tombstones,
            elements=dict(self.elements) if dataset.children else None,
            bytes=self.bytes,
            first_record_at=self.first_record_at,
            last_record_at=self.last_record_at,
            run=run,
        )


def replay(
    deployment: Deployment,
    dataset: Dataset,
    *,
    reason: str | None = None,
    dry_run: bool = False,
    options: RepairOptions = DEFAULT_OPTIONS,
) -> ReplayResult:
    """Stage the dead letters, of one reason or of all, that today's contract accepts; in one transaction.

    Each becomes a row, its dead letter names the batch that replayed it, and each partition that gained rows gets a
    ledger line of kind `replay`. Checkpoints do not move, and dead letters that are still rejected do not change.
    Drains of the dataset wait until it ends. dry_run: the same, rolled back.
    """
    result = ReplayResult(dataset.name, reason, dry_run)
    selection = DeadLetterSelection(dataset=dataset.name, reason=reason, unreplayed=True)
    settings = deployment.settings
    began = time.monotonic()
    with exclusive(deployment, dataset, "replay") as connection:
        total = count(connection, selection)
        if not total:
            result.reason_counts = count_reasons(connection, dataset.name)
            return result
        check_masking_key(connection, dataset)
        staging.ensure_table(connection, dataset)  # today's contract may have a new column
        staging.lock_tables(connection, dataset)
        staging.check_table(connection, dataset)
        lines: dict[GenerationPartition, _LedgerSums] = {}
        rows, max_bytes = min(settings.batch_rows, PAGE_ROWS), min(settings.batch_bytes, PAGE_BYTES)
        for page in pages(connection, selection, rows=rows, max_bytes=max_bytes):
            for generation_partition, dead_letters in groupby(
                page, key=lambda dead_letter: (dead_letter.generation, dead_letter.partition)
            ):
                line = lines.setdefault(generation_partition, _LedgerSums())
                _replay_dead_letters(connection, dataset, generation_partition, list(dead_letters), line, result)
            options.on_progress(result.records, total)
        options.barrier("staged")
        for (generation, partition), sums in lines.items():
            if sums.rows:
                elapsed_s = time.monotonic() - began
                ledger.append_line(connection, sums.line(dataset, generation, partition, elapsed_s, options.run))
                result.batches += 1
        options.barrier("before_commit")
        if dry_run:
            raise Rollback
    return result


def _replay_dead_letters(
    connection: Connection[Any],
    dataset: Dataset,
    generation_partition: GenerationPartition,
    dead_letters: Sequence[DeadLetter],
    line: _LedgerSums,
    result: ReplayResult,
) -> None:
    """Decode some dead letters of one partition again; stage and mark those that are accepted."""
    generation, partition = generation_partition
    batch = Batch(dataset, generation, partition, dead_letters[0].offset, batch_id=line.batch_id)
    for dead_letter in dead_letters:
        batch.add(dead_letter)
    if batch.rows:
        copy_in_savepoint(
            staging.copy_target(connection, dataset), batch
        )  # rows that Postgres rejects stay dead letters
    reasons = {dead_letter.offset: dead_letter.reason for dead_letter in dead_letters}
    for dead in batch.dead:
        old, new = reasons[dead[OFFSET]], dead[REASON]
        result.remaining[old] += 1
        if new != old:
            result.changed[old, new] += 1
    if not batch.rows:
        return
    result.staged += len(batch.rows) - batch.tombstones
    result.tombstones += batch.tombstones
    line.add(batch)
    _mark(connection, batch)


def _mark(connection: Connection[Any], batch: Batch) -> None:
    offsets = [record.offset for record in batch.accepted]
    marked = connection.execute(
        "update headrace.dead_letters set replayed_by = %s where dataset = %s and generation = %s and partition = %s "
        'and "offset" = any(%s) and replayed_by is null',
        (batch.batch_id, batch.dataset.name, batch.generation, batch.partition, offsets),
    ).rowcount
    if marked != len(offsets):
        raise DatabaseError(
            f"{batch.dataset.name}[{batch.partition}]: marked {marked} dead letters, expected {len(offsets)}: another "
            "session changed headrace.dead_letters; nothing was changed; run the replay again"
        )
