"""Replays, and jobs that a contract refuses at first."""

from typing import Any

from headrace.repair.options import RepairOptions
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


def replayed(stage: Stage, *, reason: str | None = None, dry_run: bool = False, **options: Any) -> ReplayResult:
    jobs = stage.deployment.dataset("jobs")
    return replay(stage.deployment, jobs, reason=reason, dry_run=dry_run, options=RepairOptions(**options))
