"""Jobs of the real users, keyed by their id: `jobid|{JSON}` where a file holds them."""

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from headrace.sample.generate.clock import REMEMBERED, Clock, spread
from headrace.sample.generate.records import Defect, Document, SampleRecord, broken, dumped, having, omit, without

FIRST_DAY = datetime(2019, 3, 1)
DAYS = 7
SERVICES = [f"SERVICE_{number:02d}" for number in range(1, 41)]
MIDDLE_ID = 1_000_001  # ids of six and of seven digits: as text they would sort otherwise than as numbers
OWN_LOCATION = 0.7  # the share of jobs that run where their user lives
UPDATE = 0.05  # the share of records that change an earlier job
LATE = 0.02  # the share of jobs that were created up to a day before their neighbours
NO_SUCCESS = 0.15
EXTRA_FIELD = 0.01
TEXT_ID = 0.02  # the share of records that write a whole number as text
OTHER_TIME = 0.06  # the share of times that are not written as most are, or not at all
NO_DATE = 0.01  # the share of records without one of their dates, and of those whose JOBDATE is a day
NO_REVENUE = 0.2  # the share of records of jobs without success whose revenue is null or absent
LONG_REVENUE = 0.02  # the share of revenues with all the digits of a double

SampleUser = tuple[int, str]  # id and location


@dataclass(slots=True)
class _Job:
    """A job as its source knows it; a record is what it says of it at one time."""

    identifier: int
    done: datetime
    document: Document


def jobs(
    records: int,
    seed: int,
    bad_percent: float,
    users: Sequence[SampleUser],
    clock: Clock | None = None,
    *,
    is_plain: bool = False,
) -> Iterator[SampleRecord]:
    """Yield jobs of these users.

    Jobs run mostly where their user lives; some did not succeed and yet have a revenue, or none; some records change an
    earlier job, some are late, and bad_percent of them are invalid in one of many ways. Dates are written in several
    ways, and some are null, empty or absent; is_plain leaves that variety out. With a clock, ids begin at a random
    number, so that the jobs of one run are not those of another.
    """
    rng = random.Random(seed)
    earlier: deque[_Job] = deque(maxlen=REMEMBERED if clock else None)
    first_id = rng.randrange(10**7, 10**12) if clock else max(MIDDLE_ID - records // 2, 1)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        if earlier and rng.random() < UPDATE:
            job = rng.choice(earlier)
            job.done += timedelta(seconds=rng.randrange(3_600))
            document = _document(rng, job, succeeded=rng.random() < 0.5, is_plain=is_plain)
        else:
            job = _new_job(rng, first_id + number, clock(number), users, is_plain)
            earlier.append(job)
            document = _document(rng, job, succeeded=rng.random() >= NO_SUCCESS, is_plain=is_plain)
        key = b"%d" % job.identifier
        if rng.random() * 100 >= bad_percent:
            yield SampleRecord(key, dumped(document))
        elif rng.random() < 1 / (len(DEFECTS) + 1):
            yield SampleRecord(key + b"0", dumped(document), "key_mismatch")
        else:
            yield broken(rng, key, document, DEFECTS)


def _new_job(rng: random.Random, identifier: int, at: datetime, users: Sequence[SampleUser], is_plain: bool) -> _Job:
    userid, own = rng.choice(users)
    created = at + timedelta(seconds=rng.randrange(60))
    if rng.random() < LATE:
        created -= timedelta(seconds=rng.randrange(86_400))
    done = created + timedelta(seconds=rng.randrange(7_200))
    document = {
        "JOBCREATEDATE": _time(rng, created, is_plain),
        "JOBDATE": None,
        "JOBIDENTIFIER": identifier if is_plain or rng.random() >= TEXT_ID else str(identifier),
        "JOBSTATUS": None,
        "LOCATION": own if rng.random() < OWN_LOCATION else rng.choice(users)[1],
        "REVENUE": None,
        "SERVICENAME": rng.choice(SERVICES),
        "USERID": userid if is_plain or rng.random() >= TEXT_ID else str(userid),
    }
    if rng.random() < EXTRA_FIELD and not is_plain:
        document["CHANNEL"] = rng.choice(["web", "phone", "partner"])
    return _Job(identifier, done, document)


def _document(rng: random.Random, job: _Job, *, succeeded: bool, is_plain: bool) -> Document:
    document = {
        **job.document,
        "JOBDATE": _time(rng, job.done, is_plain),
        "JOBSTATUS": "SUCCESS" if succeeded else "NO SUCCESS",
        "REVENUE": rng.randrange(50_000) / 100 if succeeded or rng.random() < 0.5 else 0,
    }
    if is_plain:
        return document
    if rng.random() < LONG_REVENUE:
        document["REVENUE"] = rng.random() * 500
    if rng.random() < NO_DATE:
        document["JOBDATE"] = job.done.date().isoformat()
    if not succeeded and rng.random() < NO_REVENUE:
        document["REVENUE"] = None
        return omit(document, "REVENUE") if rng.random() < 0.5 else document
    return omit(document, "JOBDATE") if rng.random() < NO_DATE / 3 else document


def _time(rng: random.Random, at: datetime, is_plain: bool) -> str | None:
    """The time, mostly as the case's own files write it; rarely in another way, or none."""
    chance = 1.0 if is_plain else rng.random()
    if chance < NO_DATE:
        return rng.choice((None, ""))
    if chance > OTHER_TIME:
        return at.isoformat(sep=" ", timespec="seconds")
    return rng.choice(TIME_FORMATS)(at)


TIME_FORMATS: tuple[Callable[[datetime], str], ...] = (
    lambda at: at.isoformat(timespec="seconds") + "Z",
    lambda at: at.isoformat(sep=" ", timespec="milliseconds") + " UTC",
    lambda at: (at + timedelta(hours=3)).isoformat(sep=" ", timespec="seconds") + "+03:00",
    lambda at: (at - timedelta(hours=5)).isoformat(timespec="seconds") + "-0500",
)


def _replaced(reason: str, path: str, old: bytes, new: bytes) -> Defect:
    return Defect(reason, path, lambda job: dumped(_whole(job)).replace(old, new, 1))


def _whole(job: Document) -> dict[str, Any]:
    """The job with all of its optional fields."""
    return {"REVENUE": 1.5, **job}


def _payload(reason: str, payload: bytes) -> Defect:
    return Defect(reason, "$", lambda _job: payload)


# each makes a record that no repair of the transport can make valid
DEFECTS: tuple[Defect, ...] = (
    without("USERID"),
    without("JOBSTATUS"),
    having("wrong_type", "USERID", "98770148834.5"),
    having("wrong_type", "USERID", True),
    having("wrong_type", "USERID", 98770148834.5),
    having("out_of_range", "USERID", 2**63),
    having("wrong_type", "REVENUE", "much"),
    having("wrong_type", "REVENUE", False),
    having("out_of_range", "REVENUE", -1),
    having("out_of_range", "REVENUE", 10**30),
    having("invalid_value", "JOBSTATUS", "MAYBE"),
    having("wrong_type", "LOCATION", None),
    having("nul_character", "LOCATION", "LOC_\0"),
    having("too_large", "SERVICENAME", "S" * 300),
    having("invalid_timestamp", "JOBDATE", "2019-02-30 10:00:00"),
    having("wrong_type", "JOBDATE", 1551434400),
    _replaced("out_of_range", "$.REVENUE", b'"REVENUE":', b'"REVENUE":NaN,"WAS":'),
    _replaced("invalid_utf8", "$", b'"JOBSTATUS":"', b'"JOBSTATUS":"\xff'),
    _replaced("duplicate_key", "$..USERID", b'"USERID":', b'"USERID":1,"USERID":'),
    _replaced("invalid_json", "$", b"}", b""),
    _payload("empty_payload", b""),
    _payload("wrong_type", b"[]"),
    _payload("invalid_json", b"not JSON at all"),
    _payload("too_deep", b"[" * 5_000),
)
