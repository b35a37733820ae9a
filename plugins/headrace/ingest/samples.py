"""How long samples of lag are kept: those of each minute, then one an hour."""

from collections.abc import Collection
from typing import Any

from psycopg import Connection

KEEP = "8 days"  # the page's longest chart and a bucket before it
KEEP_MINUTES = "1 day"  # older samples are thinned to the last of each hour


def prune_samples(connection: Connection[Any], datasets: Collection[str]) -> None:
    """Delete the samples of datasets that no chart shows any more."""
    # only the hours that have just become old are thinned: looking at all of them would cost each plan milliseconds
    connection.execute(
        """
        delete from headrace.samples as s
        where
            s.dataset = any(%(datasets)s)
            and s.minute < now() - %(minutes)s::interval
            and (
                s.minute < now() - %(keep)s::interval
                or s.minute > now() - %(minutes)s::interval - interval '3 hours' and exists (
                    select from headrace.samples as later
                    where
                        later.dataset = s.dataset
                        and later.generation = s.generation
                        and later.partition = s.partition
                        and later.minute > s.minute
                        and later.minute < date_trunc('hour', s.minute) + interval '1 hour'
                )
            )
        """,
        {"datasets": list(datasets), "minutes": KEEP_MINUTES, "keep": KEEP},
    )
