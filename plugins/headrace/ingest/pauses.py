"""Pausing and resuming the reading of datasets; `postgres.pauses` has the rows."""

import getpass
import socket
from collections.abc import Mapping
from contextlib import suppress

from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError
from headrace.postgres import pauses
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.connection import database
from headrace.postgres.pauses import Pause


def pause_dataset(deployment: Deployment, name: str, why: str) -> tuple[Pause, bool]:
    """Pause a dataset; return its pause, and whether it began now. Waits for no batch and ends none.

    The declaration is not read: a dataset may be paused because it is broken.
    """
    with database(deployment.connect("headrace pause")) as connection, connection.transaction():
        Checkpoints(connection, name).register()  # so that `status` shows one that was never drained
        return pauses.pause(connection, name, by=actor(), why=why)


def resume_dataset(deployment: Deployment, name: str) -> Pause | None:
    """End the pause of a dataset and return it; None if it is not paused."""
    with database(deployment.connect("headrace resume")) as connection:
        return pauses.resume(connection, name, by=actor())


def known_pauses(deployment: Deployment) -> Mapping[str, Pause] | None:
    """The pauses of all datasets, for commands that need no service; None if Postgres cannot be asked."""
    with suppress(HeadraceError), database(deployment.connect("headrace datasets")) as connection:
        return pauses.open_pauses(connection)
    return None


def actor() -> str:
    """The user of this process and its host, for people."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers; KeyError before Python 3.13
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
