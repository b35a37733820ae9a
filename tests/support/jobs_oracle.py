"""The case's answers by plain Python over the produced file: shares no code with what it judges.

It knows the records as the original producers write them; fuzz_oracle.py knows everything else that a contract accepts.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

REQUIRED = ("JOBIDENTIFIER", "JOBSTATUS", "LOCATION", "SERVICENAME", "USERID")


def valid_jobs(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line's job, or None for one that breaks the contract."""
    with path.open("rb") as file:
        for line in file:
            key, _, payload = line.rstrip(b"\n").partition(b"|")
            try:
                yield decode_job(key.decode(), payload.decode())
            except (ValueError, RecursionError):
                yield None


def current_jobs(path: Path) -> dict[int, dict[str, Any]]:
    """The last valid record of each job: one key is one partition, so the file's order is the topic's."""
    return {job["JOBIDENTIFIER"]: job for job in valid_jobs(path) if job is not None}


def user_locations(path: Path) -> dict[int, str]:
    """Where each user of the users file lives."""
    with path.open() as file:
        return {row["USERID"]: row["LOCATION"] for row in map(json.loads, file)}


def revenue(job: dict[str, Any]) -> Decimal:
    """What a job earned: nothing without success, nor where its source names no revenue."""
    return (job["REVENUE"] or Decimal(0)) if job["JOBSTATUS"] == "SUCCESS" else Decimal(0)


def top_users(jobs: dict[int, dict[str, Any]], locations: dict[int, str]) -> dict[str, list[tuple[int, Decimal]]]:
    """Per location the users from elsewhere who earned most there, the first five."""
    earned: dict[str, dict[int, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for job in jobs.values():
        own = locations.get(job["USERID"])
        if own is not None and own != job["LOCATION"]:
            earned[job["LOCATION"]][job["USERID"]] += revenue(job)
    return {
        location: sorted(((u, r) for u, r in users.items() if r > 0), key=lambda row: (-row[1], row[0]))[:5]
        for location, users in earned.items()
    }


def jobs_per_minute(jobs: dict[int, dict[str, Any]]) -> dict[datetime, tuple[int, Decimal]]:
    """Per minute of JOBCREATEDATE how many jobs there were and what they earned; jobs without one are in none."""
    minutes: dict[datetime, tuple[int, Decimal]] = {}
    for job in jobs.values():
        if job["JOBCREATEDATE"] is None:
            continue
        minute = job["JOBCREATEDATE"].replace(second=0, microsecond=0)
        count, earned = minutes.get(minute, (0, Decimal(0)))
        minutes[minute] = (count + 1, earned + revenue(job))
    return minutes


def decode_job(key: str, payload: str) -> dict[str, Any]:
    """The job of one record, its values as Python has them; raises ValueError or RecursionError for an invalid one."""
    job = json.loads(payload, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_object)
    if not isinstance(job, dict):
        raise ValueError("no object")
    for field in REQUIRED:
        if job.get(field) is None:
            raise ValueError(field)
    for field in ("JOBIDENTIFIER", "USERID"):
        job[field] = _whole(job[field])
    for field in ("JOBSTATUS", "LOCATION", "SERVICENAME"):
        if not isinstance(job[field], str) or len(job[field]) > 255:
            raise ValueError(field)
    for value in job.values():
        if isinstance(value, str) and "\0" in value:
            raise ValueError(value)
    for field in ("JOBCREATEDATE", "JOBDATE"):
        job[field] = _time(job.get(field))
    job["REVENUE"] = _revenue(job.get("REVENUE"))
    if job["JOBSTATUS"] not in ("SUCCESS", "NO SUCCESS"):
        raise ValueError("JOBSTATUS")
    if key != str(job["JOBIDENTIFIER"]):
        raise ValueError("key")
    return job


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"-?\d+", str(value)):
        raise ValueError(value)
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(value)
    return int(value)


def _revenue(value: object) -> Decimal | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value < 10**30:
        raise ValueError(value)
    return Decimal(value)


def _time(value: object) -> datetime | None:
    """A time in UTC: what names no zone is UTC; empty text and null are none."""
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(value)
    at = datetime.fromisoformat(value.replace(" UTC", "Z"))
    return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(text: str) -> None:
    raise ValueError(text)
