"""Events of users, keyed by user: some sent twice, some late, some invalid."""

import random
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from headrace.sample.generate.clock import REMEMBERED, Clock, spread
from headrace.sample.generate.records import SampleRecord, broken, defects_of, dumped, omit

FIRST_DAY = datetime(2026, 3, 1)
DAYS = 1
TYPES = ("page_view", "page_view", "page_view", "click", "click", "purchase")
USERS = 5_000
REPEATED = 0.03  # the share of records that send an earlier event again
LATE = 0.05  # the share of events that happened up to two minutes before their neighbours
LATE_S = 120
BARE = 0.05  # the share of events without what is optional: payload and schema_version
MALFORMED_VALUE = 0.5  # the share of invalid records that are no event at all; the others are events with a defect
DEFECTS = defects_of("event_id")


def events(records: int, seed: int, bad_percent: float, clock: Clock | None = None) -> Iterator[SampleRecord]:
    """Yield events; the key is the user's id, that of a record which is no event is `bad`."""
    rng = random.Random(seed)
    earlier: deque[dict[str, Any]] = deque(maxlen=REMEMBERED if clock else None)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        at = clock(number)
        if earlier and rng.random() < REPEATED:
            event = rng.choice(earlier)
        else:
            event = _event(rng, at)
            earlier.append(event)
        key = str(event["user_id"]).encode()
        if rng.random() * 100 >= bad_percent:
            yield SampleRecord(key, dumped(event))
        elif rng.random() < MALFORMED_VALUE:
            yield SampleRecord(b"bad", dumped({"oops": True, "event_time": _text(at)}), "missing_field")
        else:
            yield broken(rng, key, event, DEFECTS)


def _event(rng: random.Random, at: datetime) -> dict[str, Any]:
    if rng.random() < LATE:
        at -= timedelta(seconds=LATE_S) * rng.random()
    event = {
        "schema_version": 1,
        "event_id": str(UUID(int=rng.getrandbits(128), version=4)),
        "event_time": _text(at),
        "user_id": f"user_{rng.randrange(1, USERS)}",
        "event_type": rng.choice(TYPES),
        "payload": {"value": rng.randrange(100)},
    }
    return omit(event, "payload", "schema_version") if rng.random() < BARE else event


def _text(at: datetime) -> str:
    return at.replace(tzinfo=UTC).isoformat(timespec="microseconds")
