"""Acknowledge dead letters: who knows of them, since when and why. They are kept, and can be replayed as before."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from psycopg import Connection
from psycopg.rows import class_row

from headrace.command import Command
from headrace.exceptions import DatasetError, UsageError
from headrace.output import shown

WHY_LENGTH_MAX = 500


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Dead letters that were acknowledged together; reason: only those of it, None for any."""

    dataset: str
    reason: str | None
    dead_letters: int
    why: str
    acknowledged_by: str
    acknowledged_at: datetime


def acknowledge(
    connection: Connection[Any], dataset: str, *, reason: str | None, why: str, actor: str
) -> Acknowledgement:
    """Acknowledge the dead letters of a dataset, or those of one reason, that were neither replayed nor acknowledged.

    Later dead letters are not. Raises DatasetError if there is none, and UsageError without a `why`.
    """
    text = shown(" ".join(why.split()))
    if not 0 < len(text) <= WHY_LENGTH_MAX:
        raise UsageError(
            f"--why: found {len(text)} characters, expected 1 to {WHY_LENGTH_MAX} that say why they need no remedy"
        )
    with connection.cursor(row_factory=class_row(Acknowledgement)) as cursor:
        found = cursor.execute(
            """
            with known as (
                update headrace.dead_letters
                set acknowledgement_id = %(id)s
                where
                    dataset = %(dataset)s
                    and replayed_by is null
                    and acknowledgement_id is null
                    and (%(reason)s::text is null or reason = %(reason)s)
                returning 1
            )
            insert into headrace.acknowledgements (
                acknowledgement_id, dataset, reason, dead_letters, why, acknowledged_by
            )
            select %(id)s, %(dataset)s, %(reason)s, count(*), %(why)s, %(actor)s
            from known
            having count(*) > 0
            returning dataset, reason, dead_letters, why, acknowledged_by, acknowledged_at
            """,
            {"id": uuid4(), "dataset": dataset, "reason": reason, "why": text, "actor": shown(actor)},
        ).fetchone()
    if found is None:
        of_reason = "" if reason is None else f" of reason {reason}"
        listed = Command("dead-letters", dataset)
        raise DatasetError(
            f"{dataset}: found no dead letter{of_reason} that is neither replayed nor acknowledged, expected one; "
            f"`{listed}` counts them",
            command=listed,
        )
    return found


def acknowledgements(connection: Connection[Any], dataset: str, limit: int) -> list[Acknowledgement]:
    """The newest acknowledgements of a dataset."""
    with connection.cursor(row_factory=class_row(Acknowledgement)) as cursor:
        return cursor.execute(
            "select dataset, reason, dead_letters, why, acknowledged_by, acknowledged_at "
            "from headrace.acknowledgements where dataset = %s order by acknowledged_at desc limit %s",
            (dataset, limit),
        ).fetchall()
