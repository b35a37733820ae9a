"""The totals of the ledger, so that `status` need not sum all of its lines."""

from collections.abc import Collection
from typing import Any

from psycopg import Connection

TOTALS_EVERY_LINES = 200  # that many are summed in a millisecond


def update_totals(connection: Connection[Any], datasets: Collection[str], lines: int = TOTALS_EVERY_LINES) -> None:
    """Add a dataset's ledger lines to headrace.totals if more than `lines` are new."""
    connection.execute(
        """
        insert into headrace.totals (dataset, generation, partition, to_seq, staged, dead, tombstones, ignored)
        select
            c.dataset,
            c.generation,
            c.partition,
            d.last_seq,
            coalesce(t.staged, 0) + coalesce(sum(b.staged), 0),
            coalesce(t.dead, 0) + coalesce(sum(b.dead), 0),
            coalesce(t.tombstones, 0) + coalesce(sum(b.tombstones), 0),
            coalesce(t.ignored, 0) + coalesce(sum(b.ignored), 0)
        from headrace.checkpoints as c
        inner join headrace.datasets as d on d.dataset = c.dataset
        inner join headrace.generations as g on g.dataset = c.dataset and g.generation = c.generation and g.is_open
        left join headrace.totals as t
            on t.dataset = c.dataset and t.generation = c.generation and t.partition = c.partition
        left join headrace.batches as b
            on b.dataset = c.dataset and b.generation = c.generation and b.partition = c.partition
            and b.seq > coalesce(t.to_seq, 0) and b.seq <= d.last_seq and b.kind in ('drain', 'load', 'replace')
        where c.dataset = any(%(datasets)s) and d.last_seq > coalesce(t.to_seq, 0) + %(lines)s
        group by c.dataset, c.generation, c.partition, d.last_seq, t.staged, t.dead, t.tombstones, t.ignored
        order by c.dataset, c.partition
        on conflict (dataset, generation, partition) do update set
            to_seq = excluded.to_seq,
            staged = excluded.staged,
            dead = excluded.dead,
            tombstones = excluded.tombstones,
            ignored = excluded.ignored
        where totals.to_seq < excluded.to_seq
        """,
        {"datasets": list(datasets), "lines": lines},
    )
