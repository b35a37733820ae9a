"""Pauses: datasets that are neither planned nor drained until they are resumed, with who, when and why.

Rows of headrace.pauses stay after the end of a pause. A pause does not interrupt a batch: the next plan sees it, and a
drain looks for one between batches (`PauseWatch`). Nothing here begins or ends a transaction.
"""

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from headrace.command import Command
from headrace.exceptions import DatasetPaused, HeadraceError, UsageError
from headrace.output import shown
from headrace.postgres.connection import Connect, database

WHY_LENGTH_MAX = 1000  # as the table's constraint
WATCH_S = 5.0  # between looks of a drain that takes longer: one connection in that time

_COLUMNS = b"dataset, paused_at, paused_by, paused_login, why"


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause that has not ended. paused_by: user and host of the command; paused_login: its login of Postgres."""

    dataset: str
    paused_at: datetime
    paused_by: str
    paused_login: str
    why: str

    def text(self) -> str:
        """Who, since when and why."""
        return f"paused by {self.paused_by} since {self.paused_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC: {self.why}"

    def document(self) -> dict[str, Any]:
        """The pause as JSON types."""
        return {
            "dataset": self.dataset,
            "paused_at": self.paused_at.isoformat(timespec="milliseconds"),
            "paused_by": self.paused_by,
            "paused_login": self.paused_login,
            "why": self.why,
        }

    def error(self) -> DatasetPaused:
        """The error of a run that would read the dataset."""
        resume = Command("resume", self.dataset)
        return DatasetPaused(
            f"{self.dataset}: {self.text()}; nothing was read; `{resume}` ends the pause",
            command=resume,
            dataset=self.dataset,
        )


def open_pauses(connection: Connection[Any], datasets: Iterable[str] | None = None) -> dict[str, Pause]:
    """The pauses that have not ended, by dataset; of these datasets, or of all."""
    rows = connection.execute(
        b"select " + _COLUMNS + b" from headrace.pauses "
        b"where resumed_at is null and (%(all)s or dataset = any(%(datasets)s)) order by dataset",
        {"all": datasets is None, "datasets": list(datasets or ())},
    ).fetchall()
    return {row[0]: Pause(*row) for row in rows}


def refuse_paused(connection: Connection[Any], dataset: str) -> None:
    """Raise DatasetPaused for a dataset that is paused."""
    if pause := open_pauses(connection, [dataset]).get(dataset):
        raise pause.error()


def pause(connection: Connection[Any], dataset: str, *, by: str, why: str) -> tuple[Pause, bool]:
    """Pause a dataset; return its pause, and whether it began now: one that is paused keeps its pause.

    Raises UsageError for a reason that is blank or longer than WHY_LENGTH_MAX characters.
    """
    why = shown(" ".join(why.split()))  # without secrets: what is stored is shown as it is
    if not why:
        raise UsageError("--why: found a blank text, expected why the dataset is paused: `status` shows it")
    if len(why) > WHY_LENGTH_MAX:
        raise UsageError(f"--why: found {len(why)} characters, expected at most {WHY_LENGTH_MAX}")
    while True:  # again if another command ended the pause in between
        row = connection.execute(
            b"insert into headrace.pauses (dataset, paused_by, why) values (%s, %s, %s) "
            b"on conflict (dataset) where resumed_at is null do nothing returning " + _COLUMNS,
            (dataset, by, why),
        ).fetchone()
        if row is not None:
            return Pause(*row), True
        if found := open_pauses(connection, [dataset]).get(dataset):
            return found, False


def resume(connection: Connection[Any], dataset: str, *, by: str) -> Pause | None:
    """End the pause of a dataset and return it; None if it is not paused."""
    row = connection.execute(
        b"update headrace.pauses "
        b"set resumed_at = clock_timestamp(), resumed_by = %s, resumed_login = session_user "
        b"where dataset = %s and resumed_at is null returning " + _COLUMNS,
        (by, dataset),
    ).fetchone()
    return None if row is None else Pause(*row)


class PauseWatch:
    """Tells a drain, between batches, that its dataset was paused since. pause: the pause that it found."""

    def __init__(self, connect: Connect, dataset: str) -> None:
        self._connect, self._dataset = connect, dataset
        self._next_at = time.monotonic() + WATCH_S
        self.pause: Pause | None = None

    def is_paused(self) -> bool:
        """Whether the dataset is paused; asks every WATCH_S. A database that does not answer fails the commit."""
        if self.pause is None and time.monotonic() >= self._next_at:
            with suppress(HeadraceError), database(self._connect) as connection:
                self.pause = open_pauses(connection, [self._dataset]).get(self._dataset)
            self._next_at = time.monotonic() + WATCH_S
        return self.pause is not None
