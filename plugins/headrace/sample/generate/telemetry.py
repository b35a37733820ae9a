"""Readings of devices as fields of text: some above their threshold, some negative, some of no known zone or KPI."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

from headrace.sample.generate.clock import Clock, spread
from headrace.sample.generate.records import Defect, SampleRecord, broken, defects_of, dumped, having, without

FIRST_DAY = datetime(2026, 3, 1)
DAYS = 1
# per KPI the middle and the spread of its readings: now and then one is above the threshold
KPIS = {"temperature": (65.0, 8.0), "humidity": (50.0, 10.0), "pressure": (1013.0, 18.0), "vibration": (2.5, 1.2)}
ZONES = ("zone-a", "zone-b", "zone-c", "zone-d")
DEVICES = 40
# what devices send, rather than what becomes of JSON on its way: their entries are fields of text
DEFECTS: tuple[Defect, ...] = (
    having("out_of_range", "value", "-1.0"),
    having("unknown_zone", "zone", "zone-z"),
    having("unknown_kpi", "kpi", "radiation"),
    having("wrong_type", "value", "n/a"),
    without("value"),
    without("ts"),
)
ODD = 0.2  # the share of invalid records that are no fields of text at all
ODD_DEFECTS = defects_of("value")


def telemetry(records: int, seed: int, bad_percent: float, clock: Clock | None = None) -> Iterator[SampleRecord]:
    """Yield readings without a key: event_id, device_id, zone, ts, kpi, value, all of them text."""
    rng = random.Random(seed)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        reading = _reading(rng, clock(number))
        if rng.random() * 100 >= bad_percent:
            yield SampleRecord(None, dumped(reading))
        else:
            yield broken(rng, None, reading, ODD_DEFECTS if rng.random() < ODD else DEFECTS)


def _reading(rng: random.Random, at: datetime) -> dict[str, object]:
    device = rng.randrange(DEVICES)
    kpi = rng.choice(list(KPIS))
    middle, deviation = KPIS[kpi]
    return {
        "event_id": str(UUID(int=rng.getrandbits(128), version=4)),
        "device_id": f"device-{device:03d}",
        "zone": ZONES[device % len(ZONES)],
        "ts": f"{at.replace(tzinfo=UTC).timestamp():.4f}",
        "kpi": kpi,
        "value": f"{max(rng.gauss(middle, deviation), 0.0):.2f}",
    }
