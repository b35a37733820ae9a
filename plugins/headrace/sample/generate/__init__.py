"""Repeatable sample data, as the four original pipelines' own producers send it: the same seed gives the same bytes."""

import json
from collections.abc import Iterator
from pathlib import Path

from headrace.exceptions import FileSourceError
from headrace.sample.generate.clock import Clock, now
from headrace.sample.generate.events import events
from headrace.sample.generate.jobs import SampleUser, jobs
from headrace.sample.generate.records import SampleRecord
from headrace.sample.generate.rides import rides
from headrace.sample.generate.telemetry import telemetry

__all__ = ["DATASETS", "SampleRecord", "generate", "generate_jobs", "generate_records", "now", "read_users"]

_GENERATORS = {"events": events, "rides": rides, "telemetry": telemetry}
DATASETS = ("jobs", *_GENERATORS)  # datasets with sample data


def generate(
    dataset: str, records: int, seed: int, bad_percent: float, data_dir: Path, clock: Clock | None = None
) -> Iterator[bytes]:
    """The lines of one of DATASETS, `key|value` or values; jobs are about the users of data_dir/users.ndjson."""
    return (record.line for record in generate_records(dataset, records, seed, bad_percent, data_dir, clock))


def generate_records(
    dataset: str, records: int, seed: int, bad_percent: float, data_dir: Path, clock: Clock | None = None
) -> Iterator[SampleRecord]:
    """The records of one of DATASETS, each with the reason for which it must become a dead letter, if it must."""
    if dataset == "jobs":
        return jobs(records, seed, bad_percent, read_users(data_dir / "users.ndjson"), clock)
    return _GENERATORS[dataset](records, seed, bad_percent, clock)


def generate_jobs(
    records: int, seed: int, bad_percent: float, users_file: Path, *, is_plain: bool = False
) -> Iterator[bytes]:
    """`jobid|{JSON}` lines about the users of users_file; is_plain: all with the same fields, written the same way."""
    users = read_users(users_file)
    return (record.line for record in jobs(records, seed, bad_percent, users, is_plain=is_plain))


def read_users(users_file: Path) -> list[SampleUser]:
    """Id and location of each user of the users file; raises FileSourceError for a file of another kind."""
    try:
        with users_file.open("rb") as file:
            rows = [json.loads(line) for line in file]
        return [(row["USERID"], row["LOCATION"]) for row in rows]
    except OSError as error:
        raise FileSourceError(f"{users_file}: cannot be read: {error.strerror}; expected the users file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FileSourceError(f"{users_file}: found {error}, expected lines of LOCATION and USERID") from error
