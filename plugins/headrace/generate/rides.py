"""Rides as JSON lines, like the real ones of data-files/rides.ndjson; some arrive hours late, some are invalid."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from headrace.generate.clock import Clock, spread
from headrace.generate.defects import broken, line

FIRST_DAY = datetime(2019, 4, 1)  # the real ones end with March
DAYS = 7
LATE = 0.02
ZONES = 265


def generate_rides(records: int, seed: int, bad_percent: float, clock: Clock | None = None) -> Iterator[bytes]:
    """Yield one JSON document per line, with the real rides' fields."""
    rng = random.Random(seed)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        at = clock(number).replace(tzinfo=UTC)
        if rng.random() < LATE:
            at -= timedelta(seconds=rng.randrange(7_200, 172_800))
        distance = round(min(rng.expovariate(1 / 2.9), 60), 2)
        ride = {
            "PULocationID": rng.randrange(1, ZONES + 1),
            "DOLocationID": rng.randrange(1, ZONES + 1),
            "trip_distance": distance,
            "total_amount": round(3.3 + 2.5 * distance + rng.randrange(0, 500) / 100, 2),
            "tpep_pickup_datetime": int(at.timestamp() * 1000),
        }
        yield broken(rng, ride, number="total_amount") if rng.random() * 100 < bad_percent else line(ride)
