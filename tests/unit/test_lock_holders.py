"""Whom a refused `headrace init` names: clients that hold locks, and autovacuum only when there is no other."""

from typing import Any, cast

import pytest

from headrace.postgres.migrations import _holders

# as pg_stat_activity shows them; a role without pg_read_all_stats sees no kind of others' processes
DASHBOARD = (21293, "analyst", "a dashboard", "client backend")
WORKER, UNSEEN = (21313, None, "", "autovacuum worker"), (21313, None, "", None)


class Locked:
    """A connection whose query finds these sessions."""

    def __init__(self, sessions: list[tuple[Any, ...]]) -> None:
        self.sessions = sessions

    def execute(self, _: str) -> "Locked":
        """The query."""
        return self

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Its rows."""
        return self.sessions


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        ([DASHBOARD, WORKER], "pid 21293, user analyst, application 'a dashboard'"),
        ([WORKER], "pid 21313, autovacuum worker"),
        ([UNSEEN], "pid 21313, a process of the server"),
        ([DASHBOARD] * 4, "; ".join(["pid 21293, user analyst, application 'a dashboard'"] * 3)),
        ([], "no session that holds one was found"),
    ],
)
def test_holders_of_locks_are_clients_before_autovacuum(sessions: list[tuple[Any, ...]], expected: str) -> None:
    assert _holders(cast("Any", Locked(sessions))) == expected
