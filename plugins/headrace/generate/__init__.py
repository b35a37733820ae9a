"""Repeatable sample data: the same seed gives the same bytes."""

from collections.abc import Iterator
from pathlib import Path

from headrace.generate.clock import Clock, now
from headrace.generate.events import generate_events
from headrace.generate.jobs import DEFECTS, generate_jobs
from headrace.generate.rides import generate_rides
from headrace.generate.telemetry import generate_telemetry

__all__ = [
    "DATASETS",
    "DEFECTS",
    "generate",
    "generate_events",
    "generate_jobs",
    "generate_rides",
    "generate_telemetry",
    "now",
]

_GENERATORS = {"events": generate_events, "rides": generate_rides, "telemetry": generate_telemetry}
DATASETS = ("jobs", *_GENERATORS)  # of which there is sample data


def generate(
    dataset: str, records: int, seed: int, bad_percent: float, data_dir: Path, clock: Clock | None = None
) -> Iterator[bytes]:
    """The lines of one of DATASETS; jobs are about the users of data_dir/users.ndjson."""
    if dataset == "jobs":
        return generate_jobs(records, seed, bad_percent, data_dir / "users.ndjson", clock)
    return _GENERATORS[dataset](records, seed, bad_percent, clock)
