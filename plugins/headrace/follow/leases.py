"""Leases: which follower drains a dataset.

A lease saves work and protects nothing: a follower that wakes after its lease lapsed cannot write twice, because of the
checkpoint's compare-and-set, like any other run.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import psycopg
from psycopg import Connection

from headrace.postgres.connection import Connect, database

if TYPE_CHECKING:
    from headrace.deployment import Deployment

LEASE_S = 15.0  # a killed follower keeps others away until then
RENEW_S = 4.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that has not lapsed."""

    dataset: str
    holder_name: str
    lapses_at: datetime


def held_lease(deployment: "Deployment", dataset: str) -> Lease | None:
    """The lease of a dataset that has not lapsed, or None."""
    return held_leases(deployment, [dataset]).get(dataset)


def held_leases(deployment: "Deployment", datasets: Collection[str]) -> dict[str, Lease]:
    """The leases that have not lapsed, by dataset."""
    with database(deployment.connect("headrace plan")) as connection:
        rows = connection.execute(
            "select dataset, holder_name, lapses_at from headrace.leases where dataset = any(%s) "
            "and lapses_at > clock_timestamp()",
            (list(datasets),),
        ).fetchall()
    return {row[0]: Lease(*row) for row in rows}


class Leases:
    """The leases of one follower, renewed by a thread; a context manager that deletes them at the end."""

    def __init__(self, connect: Connect, name: str) -> None:
        self._connect, self._name = connect, name
        self._holder: UUID = uuid4()
        self._held: set[str] = set()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="leases", daemon=True)

    def __enter__(self) -> Self:
        self._renewer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None) -> None:
        self._ended.set()
        self._renewer.join(RENEW_S)
        try:
            with self._connect() as connection:
                connection.execute("delete from headrace.leases where holder = %s", (self._holder,))
        except psycopg.Error:
            pass  # they lapse by themselves

    def take(self, connection: Connection[Any], datasets: Collection[str]) -> set[str]:
        """Take or renew the leases that no other follower holds; return the datasets that this follower now holds."""
        rows = connection.execute(
            """
            insert into headrace.leases as leases (dataset, holder, holder_name, lapses_at)
            select dataset, %(holder)s, %(name)s, clock_timestamp() + make_interval(secs => %(seconds)s)
            from unnest(%(datasets)s::text[]) as wanted (dataset)
            order by dataset
            on conflict (dataset) do update set
                holder = excluded.holder,
                holder_name = excluded.holder_name,
                taken_at = case when leases.holder = excluded.holder then leases.taken_at else excluded.taken_at end,
                renewed_at = excluded.renewed_at,
                lapses_at = excluded.lapses_at
            where leases.holder = excluded.holder or leases.lapses_at <= clock_timestamp()
            returning dataset
            """,
            {"holder": self._holder, "name": self._name, "seconds": LEASE_S, "datasets": list(datasets)},
        ).fetchall()
        taken = {dataset for (dataset,) in rows}
        with self._lock:
            self._held = taken
        return taken

    def give_back(self, connection: Connection[Any], datasets: Collection[str]) -> None:
        """Delete this follower's leases of datasets that it no longer follows."""
        with self._lock:
            self._held -= set(datasets)
        connection.execute(
            "delete from headrace.leases where holder = %s and dataset = any(%s)", (self._holder, list(datasets))
        )

    def _renew(self) -> None:
        # a thread, because a first build takes longer than a lease; a frozen or killed process does not renew
        while not self._ended.wait(RENEW_S):
            with self._lock:
                held = sorted(self._held)
            if not held:
                continue
            try:
                with self._connect() as connection:
                    connection.execute(
                        "update headrace.leases set renewed_at = clock_timestamp(), "
                        "lapses_at = clock_timestamp() + make_interval(secs => %s) "
                        "where holder = %s and dataset = any(%s)",
                        (LEASE_S, self._holder, held),
                    )
            except psycopg.Error:
                continue  # the follower itself reports that Postgres is unreachable
