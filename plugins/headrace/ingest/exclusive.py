"""A transaction that excludes the commits of one dataset."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.connection import database
from headrace.postgres.lock_watchdog import watch_locks


@contextmanager
def exclusive(deployment: Deployment, dataset: Dataset, purpose: str) -> Iterator[Connection[Any]]:
    """A transaction that holds the dataset's checkpoints; it waits for commits, and ends a drain that is frozen."""
    name = f"headrace {purpose} {dataset.name}"
    connect = deployment.connect(name)
    with (
        database(connect) as connection,
        connection.transaction(),
        watch_locks(connection, connect, dataset.name, deployment.lock_timeouts, name),
    ):
        Checkpoints(connection, dataset.name).hold()
        yield connection
