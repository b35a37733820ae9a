"""Events as JSON lines: some sent twice, some late, some invalid."""

import random
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from headrace.generate.clock import REMEMBERED, Clock, spread
from headrace.generate.defects import broken, line

FIRST_DAY = datetime(2026, 3, 1)
DAYS = 1
TYPES = ("page_view", "page_view", "page_view", "click", "click", "search", "signup", "purchase")
REPEATED = 0.03  # the share of records that send an earlier event again
LATE = 0.02  # the share of events that happened up to three hours before their neighbours


def generate_events(records: int, seed: int, bad_percent: float, clock: Clock | None = None) -> Iterator[bytes]:
    """Yield one JSON document per line: event_id, event_type, time, payload."""
    rng = random.Random(seed)
    earlier: deque[dict[str, Any]] = deque(maxlen=REMEMBERED if clock else None)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        if earlier and rng.random() < REPEATED:
            event = rng.choice(earlier)
        else:
            event = _event(rng, number, clock(number))
            earlier.append(event)
        yield broken(rng, event, number="event_id") if rng.random() * 100 < bad_percent else line(event)


def _event(rng: random.Random, number: int, at: datetime) -> dict[str, Any]:
    if rng.random() < LATE:
        at -= timedelta(seconds=rng.randrange(10_800))
    event_type = rng.choice(TYPES)
    payload: dict[str, Any] = {"user": rng.randrange(1, 5_000), "path": f"/item/{rng.randrange(300)}"}
    if event_type == "purchase":
        payload["amount"] = rng.randrange(100, 50_000) / 100
    return {
        "event_id": f"event-{number:09d}-{rng.randrange(16**8):08x}",
        "event_type": event_type,
        "time": at.isoformat(timespec="milliseconds") + "Z",
        "payload": payload,
    }
