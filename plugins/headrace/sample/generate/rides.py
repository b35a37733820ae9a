"""Rides without a key, like the real ones of data-files/rides.ndjson; some arrive hours late, some are invalid."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from headrace.sample.generate.clock import Clock, spread
from headrace.sample.generate.records import SampleRecord, broken, defects_of, dumped

FIRST_DAY = datetime(2019, 4, 1)  # the real ones end with March
DAYS = 7
LATE = 0.02
REFUND = 0.01
ZONES = 265
DEFECTS = defects_of("total_amount")


def rides(records: int, seed: int, bad_percent: float, clock: Clock | None = None) -> Iterator[SampleRecord]:
    """Yield rides with the real ones' fields; amounts and distances are doubles, as they come."""
    rng = random.Random(seed)
    clock = clock or spread(records, FIRST_DAY, DAYS)
    for number in range(records):
        at = clock(number).replace(tzinfo=UTC)
        if rng.random() < LATE:
            at -= timedelta(seconds=rng.randrange(7_200, 172_800))
        distance = round(min(rng.expovariate(1 / 2.9), 60), 2)
        # a sum of doubles has as many digits as it has: 17.310000000000002
        amount = 3.3 + 2.5 * distance + rng.randrange(0, 500) / 100
        ride = {
            "PULocationID": rng.randrange(1, ZONES + 1),
            "DOLocationID": rng.randrange(1, ZONES + 1),
            "trip_distance": distance,
            "total_amount": -amount if rng.random() < REFUND else amount,
            "tpep_pickup_datetime": int(at.timestamp() * 1000),
        }
        yield broken(rng, None, ride, DEFECTS) if rng.random() * 100 < bad_percent else SampleRecord(None, dumped(ride))
