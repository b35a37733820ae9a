"""What a plan leaves behind for those who look: samples of the lag, sums of the ledger, and why it failed."""

from contextlib import suppress
from typing import Any

from psycopg import Connection

from headrace.checkpoints import open_generation, register
from headrace.database import Connect, database
from headrace.exceptions import DatabaseError, DatabaseUnavailable, HeadraceError, TopicMissing

KEEP = "1 day"
FOLD_LINES = 200  # so many ledger lines are summed up in a millisecond: no need to write more often


def note(connection: Connection[Any], dataset: str) -> None:
    """Sample what the plan saw, and fold the ledger's new lines; once a minute, and when there is much to fold."""
    with connection.transaction():
        # of a minute the worst is kept: a follower looks every second, and finds nothing most of the time
        sampled = connection.execute(
            """
            insert into headrace.samples (
                dataset, generation, partition, minute, end_offset, next_offset, observed_at
            )
            select
                c.dataset, c.generation, c.partition, date_trunc('minute', o.observed_at), o.end_offset,
                c.next_offset, o.observed_at
            from headrace.checkpoints as c
            inner join headrace.generations as g
                on g.dataset = c.dataset and g.generation = c.generation and g.is_open
            inner join headrace.observations as o on o.dataset = c.dataset and o.partition = c.partition
            where c.dataset = %(dataset)s and o.end_offset is not null
            order by c.partition
            on conflict (dataset, generation, partition, minute) do update set
                end_offset = excluded.end_offset,
                next_offset = excluded.next_offset,
                observed_at = excluded.observed_at
            where samples.end_offset - samples.next_offset < excluded.end_offset - excluded.next_offset
            returning xmax = 0 as is_new
            """,
            {"dataset": dataset},
        ).fetchall()
        if any(is_new for (is_new,) in sampled):
            connection.execute(
                "delete from headrace.samples where dataset = %s and minute < now() - %s::interval", (dataset, KEEP)
            )
        fold(connection, dataset)


def fold(connection: Connection[Any], dataset: str, lines: int = FOLD_LINES) -> None:
    """Add the ledger's lines to headrace.totals once there are more than so many new ones."""
    connection.execute(
        """
        insert into headrace.totals (dataset, generation, partition, to_seq, staged, dead, tombstones)
        select
            c.dataset,
            c.generation,
            c.partition,
            d.last_seq,
            coalesce(t.staged, 0) + coalesce(sum(b.staged), 0),
            coalesce(t.dead, 0) + coalesce(sum(b.dead), 0),
            coalesce(t.tombstones, 0) + coalesce(sum(b.tombstones), 0)
        from headrace.checkpoints as c
        inner join headrace.datasets as d on d.dataset = c.dataset
        inner join headrace.generations as g on g.dataset = c.dataset and g.generation = c.generation and g.is_open
        left join headrace.totals as t
            on t.dataset = c.dataset and t.generation = c.generation and t.partition = c.partition
        left join headrace.batches as b
            on b.dataset = c.dataset and b.generation = c.generation and b.partition = c.partition
            and b.seq > coalesce(t.to_seq, 0) and b.seq <= d.last_seq and b.kind in ('drain', 'load')
        where c.dataset = %(dataset)s and d.last_seq > coalesce(t.to_seq, 0) + %(lines)s
        group by c.dataset, c.generation, c.partition, d.last_seq, t.staged, t.dead, t.tombstones
        order by c.partition
        on conflict (dataset, generation, partition) do update set
            to_seq = excluded.to_seq,
            staged = excluded.staged,
            dead = excluded.dead,
            tombstones = excluded.tombstones
        where totals.to_seq < excluded.to_seq
        """,
        {"dataset": dataset, "lines": lines},
    )


def note_failure(connect: Connect, dataset: str, error: HeadraceError) -> None:
    """Write down why a plan failed; silent where Postgres itself is the reason, or cannot be reached either.

    A topic that is missing before anything was ever read of it is no failure: nobody has produced yet.
    """
    if isinstance(error, DatabaseUnavailable | DatabaseError):
        return
    with suppress(HeadraceError), database(connect) as connection:
        if isinstance(error, TopicMissing) and open_generation(connection, dataset) is None:
            return
        note_error(connection, dataset, error)


def note_error(connection: Connection[Any], dataset: str, error: Exception) -> None:
    """Write down why a plan failed, until the next one succeeds; a dataset without partitions gets its first.

    What was last seen at the source stays, and so does when: nobody has seen anything newer.
    """
    text = " ".join(str(error).split())
    with connection.transaction():
        register(connection, dataset)
        noted = connection.execute(
            "update headrace.observations set error = %s where dataset = %s", (text, dataset)
        ).rowcount
        if not noted:
            connection.execute(
                "insert into headrace.observations (dataset, partition, error) values (%s, 0, %s) "
                "on conflict (dataset, partition) do update set error = excluded.error",
                (dataset, text),
            )
