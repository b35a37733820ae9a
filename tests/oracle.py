"""The case's answers by plain Python over the produced file: shares no code with what it judges."""

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

FIELDS = {
    "JOBCREATEDATE": str,
    "JOBDATE": str,
    "JOBIDENTIFIER": str,
    "JOBSTATUS": str,
    "LOCATION": str,
    "REVENUE": (int, Decimal),
    "SERVICENAME": str,
    "USERID": int,
}


def valid_jobs(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line's job, or None for one that breaks the contract."""
    with path.open("rb") as file:
        for line in file:
            key, _, payload = line.rstrip(b"\n").partition(b"|")
            try:
                yield decode_job(key.decode(), payload.decode())
            except (ValueError, RecursionError):
                yield None


def current_jobs(path: Path) -> dict[str, dict[str, Any]]:
    """The last valid record of each job: one key is one partition, so the file's order is the topic's."""
    return {job["JOBIDENTIFIER"]: job for job in valid_jobs(path) if job is not None}


def user_locations(path: Path) -> dict[int, str]:
    """Where each user of the users file lives."""
    with path.open() as file:
        return {row["USERID"]: row["LOCATION"] for row in map(json.loads, file)}


def top_users(jobs: dict[str, dict[str, Any]], locations: dict[int, str]) -> dict[str, list[tuple[int, Decimal]]]:
    """Per location the users from elsewhere who earned most there, the first five."""
    earned: dict[str, dict[int, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for job in jobs.values():
        own = locations.get(job["USERID"])
        if own is not None and own != job["LOCATION"] and job["JOBSTATUS"] == "SUCCESS":
            earned[job["LOCATION"]][job["USERID"]] += job["REVENUE"]
    return {
        location: sorted(((u, r) for u, r in users.items() if r > 0), key=lambda row: (-row[1], row[0]))[:5]
        for location, users in earned.items()
    }


def jobs_per_minute(jobs: dict[str, dict[str, Any]]) -> dict[str, tuple[int, Decimal]]:
    """Per minute of JOBCREATEDATE how many jobs there were and what they earned."""
    minutes: dict[str, tuple[int, Decimal]] = {}
    for job in jobs.values():
        minute = job["JOBCREATEDATE"][:16]
        count, revenue = minutes.get(minute, (0, Decimal(0)))
        minutes[minute] = (count + 1, revenue + (job["REVENUE"] if job["JOBSTATUS"] == "SUCCESS" else 0))
    return minutes


def decode_job(key: str, payload: str) -> dict[str, Any]:
    """The job of one record; raises ValueError or RecursionError where it breaks the contract."""
    job = json.loads(payload, parse_float=Decimal, parse_constant=_refuse, object_pairs_hook=_object)
    if not isinstance(job, dict):
        raise ValueError("no object")
    for field, kind in FIELDS.items():
        if not isinstance(job.get(field), kind) or isinstance(job[field], bool):
            raise ValueError(field)
    for value in job.values():
        if isinstance(value, str) and ("\0" in value or len(value) > 255):
            raise ValueError(value)
    for field in ("JOBCREATEDATE", "JOBDATE"):
        datetime.fromisoformat(job[field])
    if not 0 <= job["REVENUE"] < 10**13 or job["REVENUE"] != round(Decimal(job["REVENUE"]), 2):
        raise ValueError("REVENUE")
    if job["JOBSTATUS"] not in ("SUCCESS", "NO SUCCESS") or not -(2**63) <= job["USERID"] < 2**63:
        raise ValueError("JOBSTATUS or USERID")
    if job["JOBIDENTIFIER"] != key:
        raise ValueError("key")
    return dict(job)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def _refuse(text: str) -> None:
    raise ValueError(text)
