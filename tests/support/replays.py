"""Replays, and jobs that a contract refuses at first."""

from typing import Any

from headrace.repair.replay import ReplayResult, replay
from tests.support.jobs import job
from tests.support.stage import Stage

HEADERS = [
    ("trace", b"a"),
    ("trace", b"b"),
    ("binary", b"\x00\xff"),
    ("nul\0", b"a\0b"),
    ("é", "ü".encode()),
    ("", b""),
]


def refund(identifier: int, **fields: Any) -> bytes:
    return job(identifier, REVENUE=-1.5, **fields)


def replayed(stage: Stage, **arguments: Any) -> ReplayResult:
    return replay(stage.deployment, stage.deployment.dataset("jobs"), **arguments)
