"""Checkpoints and generations: up to which offset each partition of a dataset was read.

Nothing here begins or ends a transaction; the caller's covers it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from headrace.command import Command
from headrace.exceptions import CheckpointMoved, DatasetError, Where
from headrace.origin import Origin
from headrace.postgres.ledger import LedgerLine

# The topic_id of a generation that reads several topics: each has its own id, beside its checkpoints
SEVERAL_TOPICS = "several topics"


@dataclass(frozen=True, slots=True)
class Generation:
    """One identity of a dataset's source: a topic by its id and its cluster's, or a file by its sha256.

    cluster_id: None where the source has none, and for topics that were last read before it was stored.
    origins: of a generation of several topics, where each partition is. A topic that was replaced has closed
    partitions: they are neither here nor among the offsets, and their numbers, which are below first_free, are not used
    again.
    """

    dataset: str
    generation: int
    topic: str
    topic_id: str
    next_offsets: Mapping[int, int] = field(default_factory=dict)
    positions: Mapping[int, str | None] = field(default_factory=dict)
    cluster_id: str | None = None
    origins: Mapping[int, Origin] = field(default_factory=dict)
    first_free: int = 0

    @property
    def has_several_topics(self) -> bool:
        """Whether each partition says which topic it is of."""
        return self.topic_id == SEVERAL_TOPICS

    def where(self, partition: int) -> str:
        """A partition for messages: `orders[3]`, of several topics `orders[3] (orders_eu[1])`."""
        origin = self.origins.get(partition)
        return f"{self.dataset}[{partition}]{f' ({origin})' if origin else ''}"


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """The generations of one dataset and their checkpoints, over one connection.

    masking_key_id: the id of the key that this process has for the dataset's masks; None if no mask needs one.
    """

    connection: Connection[Any]
    dataset: str
    masking_key_id: str | None = None

    def register(self) -> None:
        """Insert the dataset's row if there is none; see `register`."""
        register(self.connection, [self.dataset])

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
        return open_generations(self.connection, [self.dataset]).get(self.dataset)

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

    def start_partition(
        self,
        generation: int,
        partition: int,
        next_offset: int,
        position: str | None = None,
        origin: Origin | None = None,
    ) -> None:
        """Give a partition its first checkpoint, unless another run was first."""
        self.connection.execute(
            "insert into headrace.checkpoints (dataset, generation, partition, next_offset, source_position, topic, "
            "topic_id, topic_partition) values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing",
            (self.dataset, generation, partition, next_offset, position, *(origin or (None, None, None))),
        )

    def close_partitions(self, generation: int, partitions: Collection[int]) -> None:
        """End partitions of a topic that was replaced: no batch of theirs commits from now on."""
        self.connection.execute(
            "update headrace.checkpoints set is_closed = true, updated_at = clock_timestamp() "
            "where dataset = %s and generation = %s and partition = any(%s)",
            (self.dataset, generation, list(partitions)),
        )

    def store_topic(self, generation: int, topic: str) -> None:
        """Store how a declaration now names its several topics."""
        self.connection.execute(
            "update headrace.generations set topic = %s where dataset = %s and generation = %s",
            (topic, self.dataset, generation),
        )

    def store_cluster_id(self, generation: int, cluster_id: str) -> None:
        """Store the cluster of a generation that was begun before clusters were told apart."""
        self.connection.execute(
            "update headrace.generations set cluster_id = %s "
            "where dataset = %s and generation = %s and cluster_id is null",
            (cluster_id, self.dataset, generation),
        )


def register(connection: Connection[Any], datasets: Collection[str]) -> None:
    """Insert the rows of datasets that have none; waits for no lock.

    `on conflict` alone would wait for a batch that has locked a row and not committed: for ever, if it is frozen.
    """
    connection.execute(
        "insert into headrace.datasets (dataset) select named.dataset from unnest(%s::text[]) as named (dataset) "
        "where not exists (select from headrace.datasets as d where d.dataset = named.dataset) on conflict do nothing",
        (sorted(datasets),),
    )


def open_generations(connection: Connection[Any], datasets: Collection[str]) -> dict[str, Generation]:
    """The open generations of several datasets with their checkpoints; without those before their first contact."""
    names = list(datasets)
    found = connection.execute(
        "select dataset, generation, topic, topic_id, cluster_id from headrace.generations "
        "where dataset = any(%s) and is_open",
        (names,),
    ).fetchall()
    numbers = {dataset: generation for dataset, generation, *_ in found}
    checkpoints: dict[str, list[tuple[Any, ...]]] = {dataset: [] for dataset in numbers}
    for dataset, *row in connection.execute(
        "select dataset, partition, next_offset, source_position, topic, topic_id, topic_partition, is_closed "
        "from headrace.checkpoints where (dataset, generation) in (select * from unnest(%s::text[], %s::integer[]))",
        (list(numbers), list(numbers.values())),
    ):
        checkpoints[dataset].append(tuple(row))
    return {
        dataset: _generation(dataset, number, topic, topic_id, cluster_id, checkpoints[dataset])
        for dataset, number, topic, topic_id, cluster_id in found
    }


def _generation(
    dataset: str, number: int, topic: str, topic_id: str, cluster_id: str | None, checkpoints: list[tuple[Any, ...]]
) -> Generation:
    open_ones = [row[:-1] for row in checkpoints if not row[-1]]
    return Generation(
        dataset,
        number,
        topic,
        topic_id,
        next_offsets={partition: next_offset for partition, next_offset, *_ in open_ones},
        positions={partition: position for partition, _, position, *_ in open_ones},
        cluster_id=cluster_id,
        origins={partition: Origin(*origin) for partition, _, _, *origin in open_ones if origin[0] is not None},
        first_free=max((row[0] for row in checkpoints), default=-1) + 1,
    )


def origin_texts(connection: Connection[Any], dataset: str) -> dict[tuple[int, int], str]:
    """Of a dataset of several topics, as `orders_eu[1]` by generation and partition; closed partitions included."""
    found = connection.execute(
        "select generation, partition, topic, topic_id, topic_partition from headrace.checkpoints "
        "where dataset = %s and topic is not null",
        (dataset,),
    ).fetchall()
    return {(generation, partition): str(Origin(*origin)) for generation, partition, *origin in found}


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
        select c.next_offset, g.is_open and not c.is_closed, c.is_closed
        from headrace.checkpoints as c
        inner join headrace.generations as g on g.dataset = c.dataset and g.generation = c.generation
        where c.dataset = %s and c.generation = %s and c.partition = %s
        """,
        (line.dataset, line.generation, line.partition),
    ).fetchone()
    subject = f"{line.dataset}[{line.partition}]"
    if found is None or not found[1]:
        what = "the partition" if found and found[2] else f"generation {line.generation}"
        raise CheckpointMoved(
            f"{subject}: {what} is closed or gone, this batch belongs to it: the dataset was adopted or reset "
            "meanwhile; run the drain again",
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
