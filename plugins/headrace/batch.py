"""A batch: a contiguous range of one partition, decoded, and the one transaction that commits it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection

from headrace import checkpoints
from headrace.checkpoints import Kind, LedgerLine, RunContext
from headrace.contract import Rejection
from headrace.database import Connect, is_retriable
from headrace.dataset import Dataset
from headrace.dead_letters import copy_dead_letters, dead_letter_row, headers_json
from headrace.exceptions import DatabaseError
from headrace.fence import Patience, drain_name, patience
from headrace.rejects import find_rejected, may_be_a_records_fault
from headrace.retries import Retries
from headrace.source import Record
from headrace.staging import BOOKKEEPING_COLUMNS, check_table, columns, copy_rows, json_text, table
from headrace.times import record_time

DELETED = [name for name, _, _ in BOOKKEEPING_COLUMNS].index("_deleted")  # behind the contract's columns

Barrier = Callable[[str], None]


def no_barrier(_step: str) -> None:
    """Tests stop a drain at named steps; nobody else does."""


@dataclass(slots=True)
class Batch:
    """Records of [start_offset, end_offset) of one partition, decoded, not yet committed.

    batch_id is chosen here, before the transaction: it decides later whether a commit in doubt happened. accepted:
    the rows' records, in the same order, for what Postgres turns out not to store. position: where end_offset is, for
    sources with positions of their own. weight: bytes of keys, values and
    headers, what the batch costs to hold.
    """

    dataset: Dataset
    generation: int
    partition: int
    start_offset: int
    end_offset: int = 0
    batch_id: UUID = field(default_factory=uuid4)
    rows: list[list[Any]] = field(default_factory=list)
    accepted: list[Record] = field(default_factory=list)
    dead: list[Any] = field(default_factory=list)
    tombstones: int = 0
    bytes: int = 0
    weight: int = 0
    position: str | None = None
    first_record_at: datetime | None = None
    last_record_at: datetime | None = None
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.end_offset = self.start_offset

    @property
    def records(self) -> int:
        """Rows, tombstones included, and dead letters."""
        return len(self.rows) + len(self.dead)

    def fill(self, records: Iterator[Record], rows: int, weight: int, *, has_positions: bool = False) -> bool:
        """Take records until the batch holds so many or weighs so much; False when they ran out before."""
        rows -= self.records
        for record in records:
            self.add(record)
            rows -= 1
            if rows <= 0 or self.weight >= weight:
                self.end_offset = record.offset + 1
                self.position = record.key.decode() if has_positions and record.key else None
                return True
        return False

    def add(self, record: Record) -> None:
        """Decode a record into a row or a dead letter."""
        key, value, headers = record.key, record.value, record.headers
        at = record_time(record.timestamp)
        size = (len(key) if key else 0) + (len(value) if value else 0)
        self.bytes += size
        self.weight += size
        if headers:
            self.weight += sum(len(name) + (len(text) if text else 0) for name, text in headers)
        if at is not None:
            if self.first_record_at is None or at < self.first_record_at:
                self.first_record_at = at
            if self.last_record_at is None or at > self.last_record_at:
                self.last_record_at = at
        rejection: Rejection | None = getattr(record, "rejection", None)  # a file's: its row is none
        decoded = rejection or self.dataset.compiled.decode(key, value)
        if isinstance(decoded, Rejection):
            self._bury(record, decoded)
            return
        extra = decoded.pop()
        for i in self.dataset.compiled.json_columns:
            decoded[i] = json_text(decoded[i])
        deleted = value is None
        self.tombstones += deleted
        decoded += (
            self.generation,
            self.partition,
            record.offset,
            at,
            key,
            json_text(headers_json(headers)),
            deleted,
            json_text(extra),
            self.batch_id,
        )
        self.rows.append(decoded)
        self.accepted.append(record)

    def reject(self, rejections: Mapping[int, Rejection]) -> None:
        """Make dead letters of rows, by their index, which Postgres did not take."""
        deleted = len(self.dataset.compiled.columns) + DELETED
        for index, rejection in rejections.items():
            self.tombstones -= self.rows[index][deleted]
            self._bury(self.accepted[index], rejection)
        self.rows = [row for index, row in enumerate(self.rows) if index not in rejections]
        self.accepted = [record for index, record in enumerate(self.accepted) if index not in rejections]

    def _bury(self, record: Record, rejection: Rejection) -> None:
        self.dead.append(
            dead_letter_row(self.dataset.name, self.generation, self.partition, record, rejection, self.batch_id)
        )

    def line(self, kind: Kind, run: RunContext) -> LedgerLine:
        """The batch as the ledger writes it down."""
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
            bytes=self.bytes,
            first_record_at=self.first_record_at,
            last_record_at=self.last_record_at,
            position=self.position,
            run=run,
        )


class Committer:
    """Commits batches over one connection, which it opens anew when it is lost."""

    def __init__(self, connect: Connect, retries: Retries, *, limits: Patience, barrier: Barrier = no_barrier) -> None:
        self._connect = connect
        self._retries = retries
        self._limits = limits
        self._barrier = barrier
        self._connection: Connection[Any] | None = None

    def commit(self, batch: Batch, kind: Kind, run: RunContext) -> tuple[LedgerLine, int]:
        """Commit the batch's rows, dead letters, checkpoint and ledger line together, or raise and change nothing.

        Returns the line and its seq. Deadlocks, serialization failures and lost connections are tried again; after a
        connection lost at COMMIT the ledger decides whether it happened. Rows that the server does not store become
        dead letters. Raises CheckpointMoved when another run was first, and psycopg's errors for all that trying again
        does not mend.
        """
        line, seq = batch.line(kind, run), None
        in_doubt = False
        while seq is None:
            try:
                connection = self.connection()
                if in_doubt and (seq := self._committed_seq(connection, line)):
                    break
                in_doubt = False
                try:
                    seq = self._run_transaction(connection, batch, line)
                except Exception as error:
                    if not may_be_a_records_fault(error):
                        raise
                    self._reject_rows(connection, batch, line, error)
                    line = batch.line(kind, run)
                    seq = self._run_transaction(connection, batch, line)
            except psycopg.Error as error:
                lost = self._connection is None or self._connection.closed or self._connection.broken
                # a connection that was lost may have been lost at COMMIT, after the server did it
                in_doubt = in_doubt or lost
                if lost:
                    self.close()
                if not is_retriable(error) or not self._retries.again(error):
                    raise
        self._retries.reset()
        return line, seq

    def connection(self) -> Connection[Any]:
        """The connection, opened if need be."""
        if self._connection is None:
            self._connection = self._connect()
            self._connection.autocommit = True
        return self._connection

    def close(self) -> None:
        """Close the connection; a transaction that is open on it is rolled back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _committed_seq(self, connection: Connection[Any], line: LedgerLine) -> int | None:
        with connection.transaction(), self._patience(connection, line.dataset):
            return checkpoints.committed_seq(connection, line)

    def _run_transaction(self, connection: Connection[Any], batch: Batch, line: LedgerLine) -> int:
        # psycopg does not check COMMIT's answer, so nothing in here may swallow an error
        with connection.transaction():
            with self._patience(connection, line.dataset):
                checkpoints.advance(connection, line)
            self._barrier("advanced")
            with connection.cursor() as cursor:
                if batch.rows:
                    copy_rows(cursor, table(batch.dataset), columns(batch.dataset), batch.rows)
                check_table(connection, batch.dataset)  # locked by now: nobody changes it before this commits
                self._barrier("staged")
                if batch.dead:
                    copy_dead_letters(cursor, batch.dead)
            self._barrier("dead_lettered")
            with self._patience(connection, line.dataset):
                seq = checkpoints.append_line(connection, line)
            self._barrier("before_commit")
        self._barrier("committed")
        return seq

    def _reject_rows(self, connection: Connection[Any], batch: Batch, line: LedgerLine, error: Exception) -> None:
        """Find the rows that Postgres does not store and make dead letters of them.

        Fenced like the commit, and rolled back. Raises `error` when no row is to blame, DatasetError when the table
        is no longer the contract's, and DatabaseError when not one of several rows is taken: that is no record's fault.
        """
        with connection.transaction(force_rollback=True):
            with self._patience(connection, line.dataset):
                checkpoints.advance(connection, line)
            rejections = find_rejected(connection, table(batch.dataset), columns(batch.dataset), batch.rows)
            check_table(connection, batch.dataset)
        if not rejections:
            raise error
        if len(rejections) == len(batch.rows) > 1:
            where = f"{line.dataset}[{line.partition}] [{line.start_offset}, {line.end_offset})"
            raise DatabaseError(
                f"{where}: postgres took none of {len(batch.rows)} rows: {rejections[0].detail}; expected some to be "
                f"stored: the table or the server is at fault; nothing was changed; repair it and run the same command "
                "again"
            ) from error
        batch.reject(rejections)

    def _patience(self, connection: Connection[Any], dataset: str) -> AbstractContextManager[None]:
        return patience(connection, self._connect, dataset, self._limits, drain_name(dataset))
