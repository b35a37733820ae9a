"""Jobs of the real users, as `jobid|{JSON}` lines."""

import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.exceptions import FileSourceError
from headrace.generate.clock import REMEMBERED, Clock, spread

FIRST_DAY = datetime(2019, 3, 1)
DAYS = 7
SERVICES = [f"SERVICE_{number:02d}" for number in range(1, 41)]
OWN_LOCATION = 0.7  # the share of jobs that run where their user lives
UPDATE = 0.05  # the share of records that change an earlier job
LATE = 0.02  # the share of jobs that were created up to a day before their neighbours
NO_SUCCESS = 0.15
EXTRA_FIELD = 0.01


def generate_jobs(
    records: int, seed: int, bad_percent: float, users_file: Path, clock: Clock | None = None
) -> Iterator[bytes]:
    """Yield `jobid|{JSON}` lines about the users of users_file.

    Jobs run mostly where their user lives; some did not succeed and yet carry a revenue; some records change an
    earlier job, some are late, and bad_percent of them are invalid in one of many ways.
    """
    rng = random.Random(seed)
    users = _users(users_file)
    earlier: deque[dict[str, Any]] = deque(maxlen=REMEMBERED if clock else None)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        if earlier and rng.random() < UPDATE:
            job = _changed(rng, rng.choice(earlier))
        else:
            job = _new_job(rng, number, clock(number), users)
            earlier.append(job)
        if rng.random() * 100 < bad_percent:
            yield rng.choice(DEFECTS)(job) + b"\n"
        else:
            yield _line(job) + b"\n"


def _users(users_file: Path) -> list[tuple[int, str]]:
    try:
        with users_file.open("rb") as file:
            rows = [json.loads(line) for line in file]
        return [(row["USERID"], row["LOCATION"]) for row in rows]
    except OSError as error:
        raise FileSourceError(f"{users_file}: cannot be read: {error.strerror}; expected the users file") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FileSourceError(f"{users_file}: found {error}, expected lines of LOCATION and USERID") from error


def _new_job(rng: random.Random, number: int, at: datetime, users: list[tuple[int, str]]) -> dict[str, Any]:
    userid, own = rng.choice(users)
    location = own if rng.random() < OWN_LOCATION else rng.choice(users)[1]
    created = at + timedelta(seconds=rng.randrange(60))
    if rng.random() < LATE:
        created -= timedelta(seconds=rng.randrange(86_400))
    succeeded = rng.random() >= NO_SUCCESS
    job = {
        "JOBCREATEDATE": created.isoformat(sep=" ", timespec="seconds"),
        "JOBDATE": (created + timedelta(seconds=rng.randrange(7_200))).isoformat(sep=" ", timespec="seconds"),
        "JOBIDENTIFIER": f"job-{number:09d}-{rng.randrange(16**8):08x}",
        "JOBSTATUS": "SUCCESS" if succeeded else "NO SUCCESS",
        "LOCATION": location,
        "REVENUE": rng.randrange(50_000) / 100 if succeeded or rng.random() < 0.5 else 0,
        "SERVICENAME": rng.choice(SERVICES),
        "USERID": userid,
    }
    if rng.random() < EXTRA_FIELD:
        job["CHANNEL"] = rng.choice(["web", "phone", "partner"])
    return job


def _changed(rng: random.Random, job: dict[str, Any]) -> dict[str, Any]:
    job["JOBSTATUS"] = rng.choice(["SUCCESS", "NO SUCCESS"])
    job["REVENUE"] = rng.randrange(50_000) / 100
    finished = datetime.fromisoformat(job["JOBDATE"]) + timedelta(seconds=rng.randrange(3_600))
    job["JOBDATE"] = finished.isoformat(sep=" ", timespec="seconds")
    return dict(job)


def _line(job: dict[str, Any], *, key: str | None = None) -> bytes:
    return _with_payload(job, json.dumps(job, separators=(",", ":")).encode(), key=key)


def _with_payload(job: dict[str, Any], payload: bytes, *, key: str | None = None) -> bytes:
    return (key or job["JOBIDENTIFIER"]).encode() + b"|" + payload


def _with(**fields: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda job: _line({**job, **fields})


def _replaced(old: bytes, new: bytes) -> Callable[[dict[str, Any]], bytes]:
    return lambda job: _line(job).replace(old, new, 1)


def _without(field: str) -> Callable[[dict[str, Any]], bytes]:
    return lambda job: _line({name: value for name, value in job.items() if name != field})


# each makes a record that no repair of the transport can make valid
DEFECTS: list[Callable[[dict[str, Any]], bytes]] = [
    _without("USERID"),
    _without("JOBCREATEDATE"),
    _with(USERID="98770148834"),
    _with(USERID=True),
    _with(USERID=2**63),
    _with(REVENUE=-1),
    _with(REVENUE="12.50"),
    _with(REVENUE=1.005),
    _with(REVENUE=10**14),
    _with(JOBSTATUS="MAYBE"),
    _with(LOCATION=None),
    _with(LOCATION="LOC_\0"),
    _with(SERVICENAME="S" * 300),
    _with(JOBDATE="2019-02-30 10:00:00"),
    _with(JOBDATE=1551434400),
    _replaced(b'"REVENUE":', b'"REVENUE":NaN,"WAS":'),
    _replaced(b'"JOBSTATUS":"', b'"JOBSTATUS":"\xff'),
    _replaced(b'"USERID":', b'"USERID":1,"USERID":'),
    _replaced(b"}", b""),
    lambda job: _line(job, key=f"{job['JOBIDENTIFIER']}-other"),
    lambda job: _with_payload(job, b""),
    lambda job: _with_payload(job, b"[]"),
    lambda job: _with_payload(job, b"not JSON at all"),
    lambda job: _with_payload(job, b"[" * 5_000),
]
