"""The one transaction that commits a batch: checkpoint, rows, dead letters, ledger line."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import psycopg
from psycopg import Connection

from headrace.callbacks import Barrier, no_barrier
from headrace.ingest.batch import Batch
from headrace.postgres import checkpoints, ledger
from headrace.postgres.connection import Connect, is_retriable
from headrace.postgres.copy import CopyTarget, copy_accepted
from headrace.postgres.dead_letters import copy_dead_letters
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.lock_watchdog import LockTimeouts, drain_name, watch_locks
from headrace.postgres.staging import check_table, copy_target
from headrace.retries import Retries


class Committer:
    """Commits batches over one connection, which it opens again when it is lost."""

    def __init__(
        self, connect: Connect, retries: Retries, *, limits: LockTimeouts, barrier: Barrier = no_barrier
    ) -> None:
        self._connect = connect
        self._retries = retries
        self._limits = limits
        self._barrier = barrier
        self._connection: Connection[Any] | None = None

    def commit(self, batch: Batch, kind: LedgerKind, run: RunContext) -> tuple[LedgerLine, int]:
        """Commit the batch's rows, dead letters, checkpoint and ledger line together, or raise and change nothing.

        Returns the line and its seq. Deadlocks, serialization failures and lost connections are tried again; after a
        connection lost at COMMIT the ledger decides whether it happened. Rows that the server does not store become
        dead letters. Raises CheckpointMoved when another run was first, and psycopg's error when it is not
        retriable or the retries are used up.
        """
        seq = None
        in_doubt = False
        while seq is None:
            line = batch.line(kind, run)
            try:
                connection = self.connection()
                if in_doubt and (seq := self._committed_seq(connection, line)):
                    break
                in_doubt = False
                line, seq = self._store(connection, batch, kind, run)
            except psycopg.Error as error:
                lost = self._connection is None or self._connection.closed or self._connection.broken
                # a connection that was lost may have been lost at COMMIT, after the server did it
                in_doubt = in_doubt or lost
                if lost:
                    self.close()
                if not is_retriable(error) or not self._retries.wait_to_retry(error):
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
        with connection.transaction(), self._watch_locks(connection, line.dataset):
            return ledger.committed_seq(connection, line)

    def _store(
        self, connection: Connection[Any], batch: Batch, kind: LedgerKind, run: RunContext
    ) -> tuple[LedgerLine, int]:
        """Commit the batch; a second time, without the rows that Postgres does not store, where it rejects any."""
        line = batch.line(kind, run)
        where = f"{line.dataset}[{line.partition}] [{line.start_offset}, {line.end_offset})"
        target = copy_target(connection, batch.dataset, all_rejected=where)

        def commit() -> tuple[LedgerLine, int]:
            line = batch.line(kind, run)
            return line, self._run_transaction(target, batch, line)

        return copy_accepted(target, batch, commit, partial(self._bisecting, connection, batch, line))

    def _run_transaction(self, target: CopyTarget, batch: Batch, line: LedgerLine) -> int:
        connection = target.connection
        # psycopg does not check COMMIT's command tag, so no error may be swallowed in here
        with connection.transaction():
            with self._watch_locks(connection, line.dataset):
                checkpoints.advance(connection, line)
            self._barrier("advanced")
            with connection.cursor() as cursor:
                if batch.rows:
                    batch.copy(cursor, target)
                if target.children:
                    self._barrier("rows_copied")
                    batch.copy_elements(cursor, target)
                # the table is locked by now, so its columns stay until this commits
                check_table(connection, batch.dataset)
                self._barrier("staged")
                if batch.dead:
                    copy_dead_letters(cursor, batch.dead)
            self._barrier("dead_lettered")
            with self._watch_locks(connection, line.dataset):
                seq = ledger.append_line(connection, line)
            self._barrier("before_commit")
        self._barrier("committed")
        return seq

    @contextmanager
    def _bisecting(self, connection: Connection[Any], batch: Batch, line: LedgerLine) -> Iterator[None]:
        """A transaction with the commit's fence, which is rolled back.

        Raises DatasetError when the table no longer has the contract's columns.
        """
        with connection.transaction(force_rollback=True):
            with self._watch_locks(connection, line.dataset):
                checkpoints.advance(connection, line)
            yield
            check_table(connection, batch.dataset)

    def _watch_locks(self, connection: Connection[Any], dataset: str) -> AbstractContextManager[None]:
        return watch_locks(connection, self._connect, dataset, self._limits, drain_name(dataset))
