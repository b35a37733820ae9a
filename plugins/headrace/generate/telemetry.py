"""Telemetry as JSON lines: readings of devices, some above their threshold, some negative, some invalid."""

import random
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from headrace.generate.clock import Clock, spread
from headrace.generate.defects import broken, line

FIRST_DAY = datetime(2026, 3, 1)
DAYS = 1
# per KPI the middle and the spread of its readings: now and then one is above the threshold
KPIS = {"temperature": (65.0, 8.0), "humidity": (50.0, 10.0), "pressure": (1013.0, 18.0), "vibration": (2.5, 1.2)}
ZONES = ("north", "south", "east", "west")
DEVICES = 40


def generate_telemetry(records: int, seed: int, bad_percent: float, clock: Clock | None = None) -> Iterator[bytes]:
    """Yield one JSON document per line: event_id, device_id, zone, ts, kpi, value."""
    rng = random.Random(seed)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        reading = _reading(rng, number, clock(number))
        if rng.random() * 100 >= bad_percent:
            yield line(reading)
        elif rng.random() < 0.5:
            yield line({**reading, "value": -1.0})  # the business rule: no reading is negative
        else:
            yield broken(rng, reading, number="value")


def _reading(rng: random.Random, number: int, at: datetime) -> dict[str, Any]:
    device = rng.randrange(DEVICES)
    kpi = rng.choice(list(KPIS))
    middle, spread = KPIS[kpi]
    return {
        "event_id": f"reading-{number:09d}-{rng.randrange(16**8):08x}",
        "device_id": f"device-{device:03d}",
        "zone": ZONES[device % len(ZONES)],
        "ts": at.isoformat(timespec="milliseconds") + "Z",
        "kpi": kpi,
        "value": round(max(rng.gauss(middle, spread), 0.0), 3),
    }
