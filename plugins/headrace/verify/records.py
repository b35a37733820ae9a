"""The deep check: every visible record, read again, is compared with its row or dead letter."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from psycopg import ServerCursor
from psycopg.sql import SQL, Identifier

from headrace.contracts.columns import NUL
from headrace.contracts.rejection import NOT_KEPT
from headrace.postgres.staged_tables import child_tables
from headrace.verify.canonical import CanonicalRow, canonical_cursor, digest, shown
from headrace.verify.elements import stored_elements
from headrace.verify.readers import RecordReader, VisibleRecord
from headrace.verify.report import DatasetReport
from headrace.verify.snapshot import Snapshot

PROGRESS_RECORDS = 2_000
NOTES_MAX = 5

DEAD_LETTER_COLUMNS = ("key", "value", "headers", "timestamp")


@dataclass(frozen=True, slots=True)
class GenerationRange:
    """The range that is compared: [start, end) of a partition in a generation."""

    generation: int
    partition: int
    start: int
    end: int


@dataclass(slots=True)
class RecordCounts:
    """What a deep check of a dataset counted."""

    records: int = 0
    equal: int = 0
    compacted: int = 0
    older_contract: int = 0
    rejected_today: int = 0
    masked_otherwise: int = 0
    examples: dict[str, list[str]] = field(default_factory=dict)

    def example(self, kind: str, text: str) -> None:
        """Remember a place for a note."""
        kept = self.examples.setdefault(kind, [])
        if len(kept) < NOTES_MAX:
            kept.append(text)


class RecordCheck:
    """Compares the source with staged rows, dead letters and ledger, in one pass in offset order.

    `records`: each visible record is a staged row or a dead letter, and nothing else is. `hashes`: what is stored is
    what the source holds. `empty`: the offsets of a batch without a record are those that its line counts.
    Memory holds a few thousand rows, however long the range.
    """

    def __init__(
        self, snapshot: Snapshot, canonical: CanonicalRow, report: DatasetReport, is_compacted: Callable[[int], bool]
    ) -> None:
        self.counts = RecordCounts()
        self._snapshot = snapshot
        self._canonical = canonical
        self._report = report
        self._is_compacted = is_compacted  # asked only where a record is missing at the source
        self._restage_record = snapshot.subject.restage_record
        declared = snapshot.subject.declared
        self._children = child_tables(declared) if declared is not None else []

    def compare(self, part: GenerationRange, reader: RecordReader) -> Iterator[int]:
        """Compare one range; yields now and then how many of its offsets are done."""
        with ExitStack() as stack:
            rows = _Stream(stack.enter_context(self._staged(part)))
            dead = _Stream(stack.enter_context(self._dead_letters(part)))
            batches = _EmptyOffsets(self, part, stack.enter_context(self._lines(part)))
            bounds = (part.generation, part.partition, part.start, part.end)
            cursors = [stored_elements(self._snapshot, child, bounds) for child in self._children]
            children = [_Stream(stack.enter_context(cursor)) for cursor in cursors]
            offset = part.start - 1
            with closing(_generator(reader.visible_records(part.partition, part.start, part.end))) as records:
                for record in records:
                    if record[0] <= offset:
                        self._wrong("records", part, record[0], "the record again", f"one behind {offset}")
                        continue
                    offset = record[0]
                    self._lost(part, rows, dead, offset)
                    row, dead_letter = rows.take(offset), dead.take(offset)
                    is_ignored = row is None and dead_letter is None and self._canonical.is_ignored(record)
                    batches.saw(offset, is_ignored=is_ignored)
                    elements = [child.take_all(offset) for child in children]
                    if not is_ignored:
                        self._compare_record(part, record, _Stored(row, elements), dead_letter)
                    if self.counts.records % PROGRESS_RECORDS == 0:
                        yield offset - part.start
            self._lost(part, rows, dead, part.end)
            batches.finish()
        yield part.end - part.start

    def _compare_record(
        self, part: GenerationRange, record: VisibleRecord, stored: "_Stored", dead_letter: Any
    ) -> None:
        self.counts.records += 1
        row = stored.row
        if dead_letter is not None:
            self._compare_dead_letter(part, record, dead_letter)
            is_replayed = dead_letter[-1]
            if not is_replayed and row is None:
                return
            if not is_replayed:
                self._wrong("records", part, record[0], "a staged row and a dead letter", "one of the two")
        if row is None:
            _, key, value, headers, _ = record
            key = self._canonical.stored_key(key, headers)
            size = "a tombstone" if value is None else f"a record of {len(value)} bytes"
            self._wrong(
                "records",
                part,
                record[0],
                f"{size}, key {key!r:.60}, neither staged nor dead",
                "the row or the dead letter",
            )
            return
        self._compare_row(part, record, stored)

    def _compare_row(self, part: GenerationRange, record: VisibleRecord, held: "_Stored") -> None:
        expected = self._canonical.of_record(record)
        if isinstance(expected, str):
            self.counts.rejected_today += 1
            self.counts.example("rejected", f"[{part.partition}] {record[0]} ({expected:.80})")
            return
        stored = self._canonical.of_stored(held.row[1:], held.elements)
        if stored == expected:
            self.counts.equal += 1
            return
        names = self._canonical.titles
        differing = [i for i, value in enumerate(expected) if value != stored[i]]
        if self._is_older_contract(record, stored, expected, differing):
            self.counts.older_contract += 1
            self.counts.example("older", f"[{part.partition}] {record[0]}")
            return
        found = ", ".join(f"{names[i]} {shown(stored[i])}" for i in differing[:3])
        wanted = ", ".join(f"{names[i]} {shown(expected[i])}" for i in differing[:3])
        self._wrong("hashes", part, record[0], f"{digest(stored)} ({found})", f"{digest(expected)} ({wanted})")

    def _is_older_contract(
        self, record: VisibleRecord, stored: list[Any], expected: list[Any], differing: list[int]
    ) -> bool:
        # A field that the contract has named since is null in its column. Where the record has it, _extra keeps it as
        # the record has it; where it has not, today's contract would store the field's default.
        if self._canonical.is_before_children(stored, differing):
            return True
        names = self._canonical.titles
        fields = {self._canonical.fields.get(names[i]) for i in differing if names[i] != "_extra"}
        at = names.index("_extra")
        extra, value = stored[at] or {}, record[2]
        if value is None or not isinstance(extra, dict) or None in fields or not fields:
            return False
        document = self._canonical.document(record)
        if not isinstance(document, dict):
            return False
        if any(name is not None and name.startswith(NUL) for name in fields):  # it was inside another one before
            return all(stored[i] is None for i in differing if names[i] != "_extra")
        kept = {name for name in fields if name in document}
        newer = expected[at] or {}
        return (
            all(stored[i] is None for i in differing if names[i] != "_extra")
            and extra.keys() == newer.keys() | kept
            and all(extra[name] == (document[name] if name in kept else newer[name]) for name in extra)
        )

    def _compare_dead_letter(self, part: GenerationRange, record: VisibleRecord, dead_letter: Any) -> None:
        masked = dead_letter[-3]
        is_masked_otherwise = masked != self._canonical.masked
        self.counts.masked_otherwise += is_masked_otherwise
        expected = self._canonical.of_dead_letter(record, is_masked=masked is not None)
        stored = self._canonical.of_stored_dead_letter(dead_letter[1:-3])
        if dead_letter[-2] or hasattr(record[3], "rejection"):  # its bytes are not kept, or not read again
            stored[:3] = expected[:3]
        if is_masked_otherwise and masked is not None:  # by masks that the contract of today cannot repeat
            stored[:2] = expected[:2]
        if stored == expected:
            self.counts.equal += not dead_letter[-1]  # a replayed one is counted with its row
            return
        differing = [name for i, name in enumerate(DEAD_LETTER_COLUMNS) if stored[i] != expected[i]]
        what = f"a dead letter with another {' and '.join(differing)}"
        self._wrong("hashes", part, record[0], f"{digest(stored)}, {what}", digest(expected))

    def _lost(self, part: GenerationRange, rows: "_Stream", dead: "_Stream", offset: int) -> None:
        # what is stored below the next record has none
        for stream, what in ((rows, "a staged row"), (dead, "a dead letter")):
            for row in stream.below(offset):
                if what == "a dead letter" and row[-1]:
                    continue  # replayed: its row is reported
                if self._is_compacted(part.partition):
                    self.counts.compacted += 1
                else:
                    self._wrong("records", part, row[0], f"{what} without a visible record", "none")

    def _wrong(self, check: str, part: GenerationRange, offset: int, found: str, expected: str) -> None:
        self._report.add(
            check,
            generation=part.generation,
            partition=part.partition,
            offset=offset,
            found=found,
            expected=expected,
            remedy=self._restage_record(part.partition, offset),
        )

    def wrong_ignored_count(self, part: GenerationRange, line: Any, ignored: int) -> None:
        """A batch's line counts other ignored records than the source has; compaction takes some."""
        start, end, _, expected = line
        if ignored == expected or (ignored < expected and self._is_compacted(part.partition)):
            return
        self._wrong(
            "empty", part, start, f"{expected} ignored in the line [{start}, {end})", f"{ignored}, as at the source"
        )

    def wrong_empty_count(self, part: GenerationRange, line: Any, empty: int) -> None:
        """A batch's line counts other empty offsets than the source has; compaction adds some, never takes."""
        start, end, expected, _ = line
        if empty == expected or (empty > expected and self._is_compacted(part.partition)):
            return
        self._wrong(
            "empty", part, start, f"{expected} empty offsets in the line [{start}, {end})", f"{empty}, as at the source"
        )

    @contextmanager
    def _staged(self, part: GenerationRange) -> Iterator[ServerCursor[Any]]:
        names = SQL(", ").join(Identifier(name) for name in ("_offset", *self._canonical.names))
        with canonical_cursor(self._snapshot.connection, "verified_rows") as cursor:
            yield cursor.execute(
                SQL(
                    "select {} from {} where _generation = %s and _partition = %s and _offset >= %s and _offset < %s "
                    "order by _offset"
                ).format(names, self._snapshot.subject.staging),
                (part.generation, part.partition, part.start, part.end),
            )

    @contextmanager
    def _dead_letters(self, part: GenerationRange) -> Iterator[ServerCursor[Any]]:
        with canonical_cursor(self._snapshot.connection, "verified_letters") as cursor:
            yield cursor.execute(
                'select "offset", key, value, headers, "timestamp", masked, '
                "reason = 'too_large' and value is null and position(%s in detail) > 0, replayed_by is not null from "
                "headrace.dead_letters "
                'where dataset = %s and generation = %s and partition = %s and "offset" >= %s and "offset" < %s '
                'order by "offset"',
                (NOT_KEPT, self._snapshot.subject.name, part.generation, part.partition, part.start, part.end),
            )

    @contextmanager
    def _lines(self, part: GenerationRange) -> Iterator[ServerCursor[Any]]:
        # a line that begins below the range was read in part only: nothing can be said of its empty offsets
        with canonical_cursor(self._snapshot.connection, "verified_lines") as cursor:
            yield cursor.execute(
                "select start_offset, end_offset, empty, ignored from headrace.batches "
                "where dataset = %s and generation = %s and partition = %s and start_offset >= %s and end_offset <= %s "
                "and kind in ('drain', 'load', 'replace') order by start_offset, end_offset",
                (self._snapshot.subject.name, part.generation, part.partition, part.start, part.end),
            )


class _Stored(NamedTuple):
    """A staged row, if there is one, and the elements of each child at its coordinate."""

    row: Any
    elements: list[list[Any]]


class _Stream:
    """Rows in offset order, looked at one ahead."""

    def __init__(self, rows: ServerCursor[Any]) -> None:
        self._rows = iter(rows)
        self._next = next(self._rows, None)

    def below(self, offset: int) -> Iterator[Any]:
        while self._next is not None and self._next[0] < offset:
            row, self._next = self._next, next(self._rows, None)
            yield row

    def take(self, offset: int) -> Any:
        row = self._next
        if row is None or row[0] != offset:
            return None
        self._next = next(self._rows, None)
        return row

    def take_all(self, offset: int) -> list[Any]:
        """The values behind the offset of all rows at it; rows below are passed over."""
        for _ in self.below(offset):
            pass
        return [row[1:] for row in self.below(offset + 1)]


class _EmptyOffsets:
    """Counts the records of each line's range."""

    def __init__(self, check: RecordCheck, part: GenerationRange, lines: ServerCursor[Any]) -> None:
        self._check = check
        self._part = part
        self._lines = iter(lines)
        self._line = next(self._lines, None)
        self._records = self._ignored = 0

    def saw(self, offset: int, *, is_ignored: bool) -> None:
        while self._line is not None and offset >= self._line[1]:
            self._close()
        if self._line is not None and offset >= self._line[0]:
            self._records += 1
            self._ignored += is_ignored

    def finish(self) -> None:
        while self._line is not None:
            self._close()

    def _close(self) -> None:
        assert self._line is not None
        start, end, *_ = self._line
        self._check.wrong_empty_count(self._part, self._line, end - start - self._records)
        self._check.wrong_ignored_count(self._part, self._line, self._ignored)
        self._records = self._ignored = 0
        self._line = next(self._lines, None)


def _generator(records: Iterator[VisibleRecord]) -> Any:
    # closes a reader's iterator that is left early
    yield from records
