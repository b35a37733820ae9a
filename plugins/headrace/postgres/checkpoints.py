"""Checkpoints and generations: up to which offset each partition of a dataset was read.

Nothing here begins or ends a transaction; the caller's covers it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from headrace.command import Command
from headrace.exceptions import CheckpointMoved, DatasetError, Where
from headrace.postgres.ledger import LedgerLine


@dataclass(frozen=True, slots=True)
class Generation:
    """One identity of a dataset's source: a topic by its id and its cluster's, or a file by its sha256.

    cluster_id: None where the source has none, and for topics that were last read before it was stored.
    """

    dataset: str
    generation: int
    topic: str
    topic_id: str
    next_offsets: Mapping[int, int] = field(default_factory=dict)
    positions: Mapping[int, str | None] = field(default_factory=dict)
    cluster_id: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The generations of one dataset and their checkpoints, over one connection.

    masking_key_id: the id of the key that this process has for the dataset's masks; None if no mask needs one.
    """

    connection: Connection[Any]
    dataset: str
    masking_key_id: str | None = None

    def register(self) -> None:
        """Insert the dataset's row if there is none; waits for no lock.

        `on conflict` alone would wait for a batch that has locked the row and not committed: for ever, if it is frozen.
        """
        self.connection.execute(
            "insert into headrace.datasets (dataset) select %(dataset)s "
            "where not exists (select from headrace.datasets where dataset = %(dataset)s) on conflict do nothing",
            {"dataset": self.dataset},
        )

    def check_masking_key(self) -> None:
        """Raise DatasetError for another key of the dataset's masks than that of what is staged.

        Equal values would have two masks. The first key is remembered by its id. Nothing was staged in this transaction
        yet.
        """
        key_id = self.masking_key_id
        if key_id is None:
            return
        self.connection.execute(
            "update headrace.datasets set masking_key_id = %s where dataset = %s and masking_key_id is null",
            (key_id, self.dataset),
        )
        row = self.connection.execute(
            "select masking_key_id from headrace.datasets where dataset = %s", (self.dataset,)
        ).fetchone()
        if row is not None and row[0] != key_id:
            reset = Command("reset", self.dataset)
            raise DatasetError(
                f"{self.dataset}: HEADRACE_MASKING_KEY is the key {key_id}, what is staged was masked by {row[0]}: "
                f"equal values would have two masks; nothing was changed; restore the key, or `{reset}` forgets what "
                "was staged and the next run reads the source from its start",
                command=reset,
            )

    def lock(self) -> None:
        """Lock the dataset's row until the transaction ends: a first contact excludes commits."""
        self.register()
        self.connection.execute("select 1 from headrace.datasets where dataset = %s for update", (self.dataset,))

    def hold(self) -> None:
        """Insert the dataset's row if there is none; lock its checkpoints and its row until the transaction ends.

        A batch locks its checkpoint first and the dataset's row last. This locks them in the same order, so
        that it waits for batches that are under way instead of meeting them in a deadlock.
        """
        self.connection.execute(
            "select 1 from headrace.checkpoints where dataset = %s order by generation, partition for update",
            (self.dataset,),
        )
        self.lock()

    def open_generation(self) -> Generation | None:
        """The open generation with its checkpoints, or None before the first contact."""
        found = self.connection.execute(
            "select generation, topic, topic_id, cluster_id from headrace.generations where dataset = %s and is_open",
            (self.dataset,),
        ).fetchone()
        if found is None:
            return None
        generation, topic, topic_id, cluster_id = found
        checkpoints = self.connection.execute(
            "select partition, next_offset, source_position from headrace.checkpoints "
            "where dataset = %s and generation = %s",
            (self.dataset, generation),
        ).fetchall()
        next_offsets = {partition: next_offset for partition, next_offset, _ in checkpoints}
        positions = {partition: position for partition, _, position in checkpoints}
        return Generation(self.dataset, generation, topic, topic_id, next_offsets, positions, cluster_id)

    def start_generation(self, topic: str, topic_id: str, cluster_id: str | None = None) -> int:
        """Close the open generation, if any, and open the next; return its number."""
        self.connection.execute(
            "update headrace.generations set is_open = false, closed_at = clock_timestamp() "
            "where dataset = %s and is_open",
            (self.dataset,),
        )
        row = self.connection.execute(
            """
            insert into headrace.generations (dataset, generation, topic, topic_id, cluster_id)
            select %(dataset)s, coalesce(max(generation), 0) + 1, %(topic)s, %(topic_id)s, %(cluster_id)s
            from headrace.generations
            where dataset = %(dataset)s
            returning generation
            """,
            {"dataset": self.dataset, "topic": topic, "topic_id": topic_id, "cluster_id": cluster_id},
        ).fetchone()
        assert row is not None
        return int(row[0])

    def start_partition(self, generation: int, partition: int, next_offset: int, position: str | None = None) -> None:
        """Give a partition its first checkpoint, unless another run was first."""
        self.connection.execute(
            "insert into headrace.checkpoints (dataset, generation, partition, next_offset, source_position) "
            "values (%s, %s, %s, %s, %s) on conflict do nothing",
            (self.dataset, generation, partition, next_offset, position),
        )

    def store_cluster_id(self, generation: int, cluster_id: str) -> None:
        """Store the cluster of a generation that was begun before clusters were told apart."""
        self.connection.execute(
            "update headrace.generations set cluster_id = %s "
            "where dataset = %s and generation = %s and cluster_id is null",
            (cluster_id, self.dataset, generation),
        )


def advance(connection: Connection[Any], line: LedgerLine) -> None:
    """Move the checkpoint from the line's start to its end by compare-and-set: the fence of a batch.

    Raises CheckpointMoved when another run was first, or the generation is no longer open. It must be the transaction's
    first statement.
    """
    where = _where(line)
    moved = connection.execute(
        """
        update headrace.checkpoints
        set
            next_offset = %(end)s,
            source_position = coalesce(%(position)s, source_position),
            updated_at = clock_timestamp()
        where
            dataset = %(dataset)s
            and generation = %(generation)s
            and partition = %(partition)s
            and next_offset = %(start)s
        """,
        {**where, "start": line.start_offset, "end": line.end_offset, "position": line.position},
    ).rowcount
    # A statement of its own, with a snapshot from after the wait for the row: a join in the update would still see the
    # generation open when what it waited for was the adoption that closed it.
    found = connection.execute(
        """
        select c.next_offset, g.is_open
        from headrace.checkpoints as c
        inner join headrace.generations as g on g.dataset = c.dataset and g.generation = c.generation
        where c.dataset = %s and c.generation = %s and c.partition = %s
        """,
        (line.dataset, line.generation, line.partition),
    ).fetchone()
    subject = f"{line.dataset}[{line.partition}]"
    if found is None or not found[1]:
        raise CheckpointMoved(
            f"{subject}: generation {line.generation} is closed or gone, this batch belongs to it: the dataset was "
            "adopted or reset meanwhile; run the drain again",
            **where,
        )
    if moved != 1:
        raise CheckpointMoved(
            f"{subject}: checkpoint is {found[0]}, this batch starts at {line.start_offset}: another run committed "
            "first; retry the task",
            **where,
        )


def _where(line: LedgerLine) -> Where:
    return {
        "dataset": line.dataset,
        "generation": line.generation,
        "partition": line.partition,
        "offset": line.start_offset,
    }
