"""The drain: read pinned ranges, decode, and commit batch by batch."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from headrace.callbacks import Barrier, no_barrier
from headrace.dataset import Dataset
from headrace.exceptions import CodecMissing, HeadraceError, SourceChanged, SourceError
from headrace.ingest.batch import Batch
from headrace.ingest.commit import Committer
from headrace.ingest.commit_thread import CommitThread
from headrace.ingest.plan import Plan
from headrace.ingest.rate_limit import RateLimit
from headrace.postgres.dead_letters import REASON
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.sources.base import Chunk, Source


@dataclass(slots=True)
class DrainResult:
    """What a drain committed."""

    dataset: str
    batches: int = 0
    staged: int = 0
    dead: int = 0
    tombstones: int = 0
    empty: int = 0
    ignored: int = 0
    bytes: int = 0
    elements: Counter[str] = field(default_factory=Counter)  # staged, by child
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)  # of the dead letters
    next_offsets: dict[int, int] = field(default_factory=dict)
    positions: dict[int, str | None] = field(default_factory=dict)

    @property
    def records(self) -> int:
        """The number of records that were staged, tombstoned or rejected."""
        return self.staged + self.dead + self.tombstones

    @property
    def offsets(self) -> int:
        """The number of offsets that are behind the drain."""
        return self.records + self.empty + self.ignored

    def count(self, line: LedgerLine, dead_letters: Iterable[Sequence[Any]]) -> None:
        """Count a committed batch, as its ledger line has it. dead_letters: its rows of headrace.dead_letters."""
        self.batches += 1
        self._add_counts(line)
        self.reasons.update(row[REASON] for row in dead_letters)
        self.next_offsets[line.partition] = line.end_offset
        self.positions[line.partition] = line.position

    def add(self, other: "DrainResult") -> None:
        """Add the counts of another process of the same drain."""
        self.batches += other.batches
        self._add_counts(other)
        self.seconds = max(self.seconds, other.seconds)
        self.reasons += other.reasons
        self.next_offsets |= other.next_offsets

    def _add_counts(self, counted: "LedgerLine | DrainResult") -> None:
        self.staged += counted.staged
        self.dead += counted.dead
        self.tombstones += counted.tombstones
        self.empty += counted.empty
        self.ignored += counted.ignored
        self.bytes += counted.bytes
        self.elements.update(counted.elements or {})

    def summary(self, plan: Plan) -> str:
        """The result in one line."""
        waiting = f"; {plan.waiting} offsets wait behind an open transaction" if plan.waiting else ""
        if not self.batches:
            return f"{self.dataset}: nothing new{waiting}"
        return (
            f"{self.dataset}: {self.records} records in {self._pace}, {self.batches} batches: "
            f"{self.staged} staged, {self.dead} dead, {self.tombstones} tombstones, {self.empty} empty{self._others}; "
            f"next offsets {self._ends(plan)}{waiting}"
        )

    def document(self, plan: Plan) -> dict[str, Any]:
        """The result as JSON types. waiting: offsets behind an open transaction."""
        return {
            "dataset": self.dataset,
            "generation": plan.generation,
            "source": plan.topic,
            "batches": self.batches,
            "staged": self.staged,
            "dead": self.dead,
            "tombstones": self.tombstones,
            "ignored": self.ignored,
            "empty": self.empty,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
            "reasons": dict(self.reasons.most_common()),
            "next_offsets": {str(partition): offset for partition, offset in sorted(self.next_offsets.items())},
            "waiting": plan.waiting,
        }

    def log_lines(self, plan: Plan) -> list[str]:
        """The result in five lines for a task's log: range, rows, dead letters by reason, seconds, next offsets."""
        ranges = ", ".join(
            f"{plan.label(p)} {bounds.start} to {bounds.end}" for p, bounds in sorted(plan.ranges.items())
        )
        reasons = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common())
        return [
            f"{self.dataset}: generation {plan.generation} of {plan.topic}, offsets {ranges or 'none'}",
            f"staged {self.staged}, tombstones {self.tombstones}, empty {self.empty}{self._others}",
            f"dead letters {self.dead}{': ' if reasons else ''}{reasons}",
            f"{self.batches} batches in {self._pace}",
            f"next offsets {self._ends(plan) or 'unchanged'}",
        ]

    @property
    def _others(self) -> str:
        ignored = f", {self.ignored} ignored" if self.ignored else ""
        return ignored + "".join(f", {number} {child}" for child, number in self.elements.items())

    @property
    def _pace(self) -> str:
        rate = f"{self.records / self.seconds:,.0f}" if self.seconds else "-"
        return f"{self.seconds:.1f} s ({rate}/s)"

    def _ends(self, plan: Plan) -> str:
        return ", ".join(f"{plan.label(partition)} {offset}" for partition, offset in sorted(self.next_offsets.items()))


DrainCallback = Callable[[DrainResult], None]
CommitCallback = Callable[[LedgerLine, int, float], None]  # a batch's line, its seq, its duration in seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOptions:
    """The limits of batches and of a drain, and the callbacks of its commits.

    batch_rows, batch_bytes (of keys, values and headers): the record that reaches either one ends its batch; they also
    limit the open batches of all partitions together. max_seconds: after it the drain commits what it has read and
    ends; None: no limit. rate_limit: the drain rests between reads, outside of transactions; None: no limit. stop:
    the drain ends in the same way once it returns true. run: the committing run, for the ledger. on_progress,
    on_commit: called after each commit. barrier: called at named steps, for tests.
    """

    batch_rows: int
    batch_bytes: int
    max_seconds: float | None = None
    rate_limit: RateLimit | None = None
    stop: Callable[[], bool] = lambda: False
    run: RunContext | None = None
    on_progress: DrainCallback = lambda _: None
    on_commit: CommitCallback = lambda _line, _seq, _seconds: None
    barrier: Barrier = no_barrier


def drain(
    dataset: Dataset, source: Source, plan: Plan, committer: Committer, options: DrainOptions, result: DrainResult
) -> DrainResult:
    """Read the plan's ranges and commit them in batches; while one commits, the next is read. Return the result.

    result: the result of an earlier attempt, or an empty one; commits are added to it, also if this raises.
    Every batch is one transaction, so after an error the checkpoint is where the next run continues.
    Raises CheckpointMoved if another run was first, SourceChanged if the source was replaced meanwhile.
    """
    began = time.monotonic() - result.seconds
    kind = LedgerKind.LOAD if dataset.source.is_file else LedgerKind.DRAIN
    open_batches: dict[int, Batch] = {}
    next_offsets = dict(result.next_offsets)  # after the records read so far, committed or not

    def close(batch: Batch) -> None:
        open_batches.pop(batch.partition, None)
        next_offsets[batch.partition] = batch.end_offset
        commits.wait()
        _check_source(source, plan)  # in the reading thread: the commit thread uses only Postgres
        commits.run(partial(_commit, committer, batch, kind, options.run or RunContext()))

    is_over = partial(_is_out_of_time, options, began)
    failures: list[HeadraceError] = []
    with CommitThread(partial(_settle, result, options, began)) as commits, closing(source.read(plan.ranges)) as chunks:
        paced = chunks if options.rate_limit is None else options.rate_limit.paced(chunks, is_over)
        for chunk in _until_unreadable(paced, failures):
            options.barrier("fetched")
            partition, records = chunk.partition, iter(chunk.records)
            start = next_offsets.get(partition, plan.ranges[partition].start)
            has_positions = chunk.position is not None
            batch = open_batches.get(partition) or Batch(dataset, plan.generation, partition, start)
            while batch.fill(records, options.batch_rows, options.batch_bytes, has_positions=has_positions):
                close(batch)
                batch = Batch(dataset, plan.generation, partition, batch.end_offset)
            batch.end_offset = chunk.next_offset
            batch.position = chunk.position
            if batch.end_offset > batch.start_offset:
                open_batches[partition] = batch
            del batch, records, chunk  # frees their memory while the next chunk is fetched
            out_of_time = is_over()
            for batch in _due(open_batches, plan, options, out_of_time):
                close(batch)
            if out_of_time:
                break
        for batch in list(open_batches.values()):  # complete up to where the source failed
            close(batch)
    result.seconds = time.monotonic() - began
    if failures:
        raise failures[0]
    return result


Committed = tuple[Batch, LedgerLine, int]


def _commit(committer: Committer, batch: Batch, kind: LedgerKind, run: RunContext) -> Committed:
    return batch, *committer.commit(batch, kind, run)


def _settle(result: DrainResult, options: DrainOptions, began: float, committed: Committed) -> None:
    batch, line, seq = committed
    result.count(line, batch.dead)
    options.on_commit(line, seq, time.monotonic() - batch.began)
    result.seconds = time.monotonic() - began
    options.on_progress(result)


def _is_out_of_time(options: DrainOptions, began: float) -> bool:
    is_late = options.max_seconds is not None and time.monotonic() - began >= options.max_seconds
    return is_late or options.stop()


def _until_unreadable(chunks: Iterable[Chunk], failures: list[HeadraceError]) -> Iterator[Chunk]:
    """Yield chunks up to the first unreadable record; append its error to `failures`: earlier records commit."""
    try:
        yield from chunks
    except (SourceError, CodecMissing) as error:
        failures.append(error)


def _due(open_batches: Mapping[int, Batch], plan: Plan, options: DrainOptions, out_of_time: bool) -> list[Batch]:
    """Batches to close: all that reached the plan's end, and the largest ones while all together exceed the limits."""
    due: list[Batch] = []
    rows = size_bytes = 0
    for batch in sorted(open_batches.values(), key=lambda batch: batch.size_bytes):
        rows, size_bytes = rows + batch.records, size_bytes + batch.size_bytes
        is_complete = batch.end_offset == plan.ranges[batch.partition].end
        if out_of_time or is_complete or rows >= options.batch_rows or size_bytes >= options.batch_bytes:
            due.append(batch)
    return due


def _check_source(source: Source, plan: Plan) -> None:
    # A topic that was created again while it was read has other records under the same offsets. The id is compared
    # after the batch was fetched and before it is committed, so all of its records are from the planned topic.
    found = source.topic_id()
    if found != plan.topic_id:
        raise SourceChanged(
            f"{plan.dataset}: {plan.topic} has id {found}, expected {plan.topic_id}: the source was replaced "
            "while it was read; nothing of this batch was stored; run the drain again",
            dataset=plan.dataset,
            generation=plan.generation,
        )
