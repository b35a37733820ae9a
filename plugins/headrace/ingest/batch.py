"""A batch: a contiguous range of one partition, decoded into rows and dead letters."""

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from psycopg import Cursor

from headrace.contracts.children import Elements, ParentRow
from headrace.contracts.contract import Deletion, Row
from headrace.contracts.copy_cells import NULL, escaped
from headrace.contracts.rejection import Rejection
from headrace.dataset import Dataset
from headrace.postgres import ledger
from headrace.postgres.copy import CopyTarget, copy_lines, copy_rows, find_rejected, json_text
from headrace.postgres.dead_letters import dead_letter_row, headers_json
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.record import HEADER_BYTES, KafkaRecord, Record
from headrace.times import TimeTexts, record_time


@dataclass(slots=True)
class Batch:
    """Records of [start_offset, end_offset) of one partition, decoded, not yet committed.

    batch_id is chosen here, before the transaction: it later decides whether a commit in doubt happened. rows: each is
    a line of COPY text from the fast path, or a list of values. accepted: the records of the rows, in the same order;
    used if Postgres rejects rows. elements: likewise those of the rows, if the dataset has children. position: the
    source's own position of end_offset, if it has positions. size_bytes: memory of the batch: bytes of keys, values
    and headers.
    """

    dataset: Dataset
    generation: int
    partition: int
    start_offset: int
    end_offset: int = 0
    batch_id: UUID = field(default_factory=ledger.new_batch_id)
    rows: list[str | list[Any]] = field(default_factory=list)
    accepted: list[Record] = field(default_factory=list)
    elements: list[Elements] = field(default_factory=list)
    dead: list[Any] = field(default_factory=list)
    tombstones: int = 0
    ignored: int = 0
    bytes: int = 0
    size_bytes: int = 0
    position: str | None = None
    times: TimeTexts = field(default_factory=TimeTexts)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.end_offset = self.start_offset

    @property
    def records(self) -> int:
        """The number of rows (tombstones included), dead letters and ignored records."""
        return len(self.rows) + len(self.dead) + self.ignored

    @property
    def element_counts(self) -> dict[str, int] | None:
        """The number of elements by child; None for a dataset without children."""
        children = self.dataset.children
        if not children:
            return None
        return {child.name: sum(len(each[i]) for each in self.elements) for i, child in enumerate(children)}

    @property
    def first_record_at(self) -> datetime | None:
        """The earliest record time."""
        return self.times.first

    @property
    def last_record_at(self) -> datetime | None:
        """The latest record time."""
        return self.times.last

    def fill(self, records: Iterator[Record], rows: int, max_bytes: int, *, has_positions: bool = False) -> bool:
        """Add records until the batch has `rows` rows or max_bytes bytes; return whether it is full."""
        last = self._add(records, rows - self.records, max_bytes)
        if last is None:
            return False
        self.end_offset = last.offset + 1
        self.position = last.key.decode() if has_positions and last.key else None
        return True

    def add(self, record: Record) -> None:
        """Decode a record into a row or a dead letter."""
        self._add(iter((record,)), 2, sys.maxsize)

    def _add(self, records: Iterator[Record], room: int, max_bytes: int) -> Record | None:
        """Add records; return the one that fills the batch, or None if the records end first."""
        bind = self.dataset.copy_line_binder
        make_line = bind(self.generation, self.partition, self.batch_id) if bind else _no_line
        ignores = self.dataset.filter.ignores if self.dataset.filter is not None else None
        times, rows, accepted = self.times, self.rows, self.accepted
        value_bytes, held_bytes = self.bytes, self.size_bytes
        kind: type[Record] | None = None
        full: Record | None = None
        for record in records:
            if type(record) is not kind:
                kind = type(record)
                is_tuple, may_be_rejected = kind is KafkaRecord, hasattr(kind, "rejection")
            if is_tuple:  # unpacking takes half the time of five attributes
                offset, timestamp, key, value, headers = cast(KafkaRecord, record)
            else:
                offset, timestamp = record.offset, record.timestamp
                key, value, headers = record.key, record.value, record.headers
            if ignores is not None and not _is_judged(record) and ignores(key, value, headers):
                self.ignored += 1
                room -= 1
                if room <= 0:
                    full = record
                    break
                continue
            record_bytes = (len(key) if key else 0) + (len(value) if value else 0)
            value_bytes += record_bytes
            held_bytes += record_bytes
            headers_text = NULL
            if headers:
                held_bytes += sum(HEADER_BYTES + len(name) + (len(text) if text else 0) for name, text in headers)
                headers_text = escaped((headers_json(headers) or b"").decode())
            at = times[timestamp]
            is_rejected = may_be_rejected and (_rejection(record) or _masked(record))
            line = None if is_rejected else make_line(offset, at, key, value, headers_text)
            if line is None:
                self._decode(record)
            else:
                rows.append(line)
                accepted.append(record)
            room -= 1
            if room <= 0 or held_bytes >= max_bytes:
                full = record
                break
        self.bytes, self.size_bytes = value_bytes, held_bytes
        return full

    def _decode(self, record: Record) -> None:
        """Decode a record by the contract into a row or a dead letter."""
        contract, masked = self.dataset.compiled, _masked(record)
        decoded = _rejection(record) or contract.decode(record.key, record.value, record.headers)
        if masked is not None and _rejection(record) is None:  # a dead letter that holds masks for values
            decoded = self.dataset.decode_masked(record, _stored_rejection(record, masked))
        if isinstance(decoded, Rejection):
            self._reject_record(record, decoded)
            return
        extra = decoded.pop()
        for i in contract.json_columns:
            decoded[i] = json_text(decoded[i])
        deleted = isinstance(decoded, Deletion)
        self.tombstones += deleted
        decoded += (
            self.generation,
            self.partition,
            record.offset,
            record_time(record.timestamp),
            record.key if masked or contract.masks is None else contract.masks.key(record.key, record.headers),
            json_text(headers_json(record.headers)),
            deleted,
            json_text(extra),
            self.batch_id,
        )
        if self.dataset.format.has_schema_ids:
            decoded.append(self._schema_id(record))
        if contract.changes is not None:
            change = None if record.value is None else contract.changes.change(record.value, record.headers)
            position = None if change is None or change.position is None else list(change.position)
            decoded += (position, None if change is None else change.op)
        if contract.children is not None:
            self._add_elements(decoded, len(contract.children.each))
        self.rows.append(decoded)
        self.accepted.append(record)

    def _add_elements(self, row: Row, children: int) -> None:
        """Keep the elements of a row, and put their numbers behind it; a tombstone has none."""
        elements = row.elements if isinstance(row, ParentRow) else None
        self.elements.append(elements or [()] * children)
        row += [None] * children if elements is None else map(len, elements)

    def decode_by_contract(self) -> bool:
        """Decode the lines of the fast path again, by the contract, into rows of values; False if there are none."""
        accepted, used_fast_path = self.accepted, any(isinstance(row, str) for row in self.rows)
        self.rows, self.accepted, self.elements, self.tombstones = [], [], [], 0
        for record in accepted:
            self._decode(record)
        return used_fast_path

    def copy(self, cursor: Cursor[Any], target: CopyTarget) -> None:
        """COPY the rows into a table: first the text lines, then the rows of values."""
        lines = [row for row in self.rows if isinstance(row, str)]
        if lines:
            copy_lines(cursor, target.table, target.columns, lines)
        if len(lines) < len(self.rows):
            copy_rows(cursor, target.table, target.columns, [row for row in self.rows if not isinstance(row, str)])

    def copy_elements(self, cursor: Cursor[Any], target: CopyTarget) -> None:
        """COPY the elements of the rows into the tables of the children."""
        for number, (table, typed_columns) in enumerate(target.children):
            if elements := [row for _, row in element_rows(self, number)]:
                copy_rows(cursor, table, typed_columns, elements)

    def rejected_elements(self, target: CopyTarget) -> dict[int, Rejection]:
        """Rows, by index, of whose elements Postgres refuses one."""
        found: dict[int, Rejection] = {}
        for number, (table, typed_columns) in enumerate(target.children):
            elements = list(element_rows(self, number))
            rejections = find_rejected(target.connection, table, typed_columns, [row for _, row in elements])
            for index, rejection in rejections.items():
                found.setdefault(elements[index][0], rejection)
        return found

    def reject(self, rejections: Mapping[int, Rejection]) -> None:
        """Turn rows that Postgres rejected, by index, into dead letters; all rows are rows of values by then."""
        for index, rejection in rejections.items():
            self.tombstones -= isinstance(self.rows[index], Deletion)
            self._reject_record(self.accepted[index], rejection)
        self.rows = [row for index, row in enumerate(self.rows) if index not in rejections]
        self.elements = [elements for index, elements in enumerate(self.elements) if index not in rejections]
        self.accepted = [record for index, record in enumerate(self.accepted) if index not in rejections]

    def _schema_id(self, record: Record) -> int | None:
        return None if record.value is None else self.dataset.compiled.decoder.schema_id(record.value, record.headers)

    def _reject_record(self, record: Record, rejection: Rejection) -> None:
        if self.dataset.format.has_schema_ids:
            rejection = replace(rejection, schema_id=self._schema_id(record))
        masked, masks = _masked(record), self.dataset.compiled.masks
        if masked is not None:
            rejection = replace(rejection, masked=masked)
        elif masks is not None:
            record, rejection = masks.record(record, rejection)
        self.dead.append(
            dead_letter_row(self.dataset.name, self.generation, self.partition, record, rejection, self.batch_id)
        )

    def line(self, kind: LedgerKind, run: RunContext) -> LedgerLine:
        """The batch's ledger line."""
        return LedgerLine(
            batch_id=self.batch_id,
            dataset=self.dataset.name,
            generation=self.generation,
            partition=self.partition,
            start_offset=self.start_offset,
            end_offset=self.end_offset,
            kind=kind,
            elapsed_s=time.monotonic() - self.began,
            staged=len(self.rows) - self.tombstones,
            dead=len(self.dead),
            tombstones=self.tombstones,
            empty=self.end_offset - self.start_offset - self.records,
            elements=self.element_counts,
            ignored=self.ignored,
            bytes=self.bytes,
            first_record_at=self.first_record_at,
            last_record_at=self.last_record_at,
            position=self.position,
            run=run,
        )


def element_rows(batch: Batch, number: int) -> Iterator[tuple[int, Row]]:
    """The rows of one child's table, each with the index of its record's row in the batch."""
    children = batch.dataset.compiled.children
    json_columns = children.each[number].contract.json_columns if children is not None else ()
    for at, (record, elements) in enumerate(zip(batch.accepted, batch.elements, strict=True)):
        for index, (*values, extra) in enumerate(elements[number]):
            for i in json_columns:
                values[i] = json_text(values[i])
            yield at, [*values, batch.generation, batch.partition, record.offset, index, json_text(extra)]


def _no_line(*_: Any) -> None:
    """Replace the fast path of a contract that has none."""


def _is_judged(record: Record) -> bool:
    """Whether a record was found to belong to the dataset, or not to be one: a dead letter, or a broken line."""
    return hasattr(record, "masked") or _rejection(record) is not None


def _stored_rejection(record: Any, masked: list[str]) -> Rejection:
    return Rejection(record.reason, record.detail, record.json_path or "$", masked=masked)


def _masked(record: Record) -> list[str] | None:
    """What is masked in a dead letter that is replayed; None for what a source yields."""
    masked: list[str] | None = getattr(record, "masked", None)
    return masked


def _rejection(record: Record) -> Rejection | None:
    """The rejection of a file's line that broke the file's own format; None for a record."""
    rejection: Rejection | None = getattr(record, "rejection", None)
    return rejection
