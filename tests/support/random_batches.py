"""Random batches of all datasets: everything that can happen to a key, repeatable by seed."""

import random
from datetime import timedelta
from decimal import Decimal
from typing import Any

from tests.support.mart_rows import COLUMNS, START, Coordinate, event, job, reading, ride
from tests.support.marts_oracle import Version


class RandomBatches:
    """Batches of everything that can happen to a key, repeatable by seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._next = {"jobs": [0, 0, 0], "users": [0], "events": [0, 0, 0], "rides": [0, 0, 0], "telemetry": [0]}
        self._held_back: dict[str, list[Coordinate]] = {dataset: [] for dataset in COLUMNS}
        self._written: dict[str, list[Coordinate]] = {dataset: [] for dataset in COLUMNS}
        self._generation = dict.fromkeys(COLUMNS, 1)
        self._entities = {
            "jobs": self._job,
            "users": self._user,
            "events": self._event,
            "rides": self._ride,
            "telemetry": self._reading,
        }

    def batch(self, dataset: str) -> tuple[list[Version], list[Coordinate]]:
        """New keys, changed and moved ones, tombstones, late rows, replayed offsets, reloads, new generations.

        The second list holds the places of which a reload left nothing.
        """
        rng = self._random
        if rng.random() < 0.05:
            self._generation[dataset] += 1
            self._next[dataset] = [0] * len(self._next[dataset])
        versions: dict[Coordinate, Version] = {}
        for _ in range(rng.randint(0, 6)):
            coordinate = self._coordinate(dataset)
            late = rng.choice([0, 0, 0, 10_000])
            timestamp = START + timedelta(seconds=rng.randint(0, 300) - late) if rng.random() < 0.95 else None
            versions[coordinate] = Version(*coordinate, timestamp, *self._entities[dataset]())
        left = [coordinate for coordinate in self._written[dataset] if coordinate not in versions]
        gone = [rng.choice(left)] if left and rng.random() < 0.1 else []
        self._written[dataset] = [coordinate for coordinate in left if coordinate not in gone] + list(versions)
        return list(versions.values()), gone

    def _coordinate(self, dataset: str) -> Coordinate:
        rng = self._random
        if self._held_back[dataset] and rng.random() < 0.3:  # a dead letter that is replayed
            return self._held_back[dataset].pop(rng.randrange(len(self._held_back[dataset])))
        if self._written[dataset] and rng.random() < 0.1:  # a reload
            return rng.choice(self._written[dataset])
        partition = rng.randrange(len(self._next[dataset]))
        offset = self._next[dataset][partition]
        self._next[dataset][partition] += 1
        coordinate = (self._generation[dataset], partition, offset)
        if rng.random() < 0.2:
            self._held_back[dataset].append(coordinate)
            return self._coordinate(dataset)
        return coordinate

    def _minute(self) -> float:
        rng = self._random
        if rng.random() < 0.5:  # on its own: no later batch corrects by accident what a build has missed
            return rng.randint(3, 5_000)
        return rng.choice([0, 0.999999, 1, 1.5, 2, rng.randint(0, 10), -10_000])

    def _job(self) -> tuple[int, dict[str, Any] | None]:
        rng = self._random
        key = rng.randrange(40)
        if rng.random() < 0.12:
            return key, None
        return key, job(
            location=rng.choice("ABCDEF"),
            userid=rng.randrange(20),
            revenue=rng.choice([None, "71.30000000000001", *[str(Decimal(rng.randint(0, 500)) / 100)] * 8]),
            minute=self._minute() if rng.random() < 0.9 else None,
            status=rng.choice(["SUCCESS", "SUCCESS", "NO SUCCESS"]),
            service=rng.choice(["Driver", "Courier"]),
        )

    def _user(self) -> tuple[int, dict[str, Any] | None]:
        rng = self._random
        return rng.randrange(20), None if rng.random() < 0.15 else {"location": rng.choice("ABCDEF")}

    def _event(self) -> tuple[str | None, dict[str, Any] | None]:
        rng = self._random
        if rng.random() < 0.1:
            return None, None  # nothing in an unkeyed tombstone says whose it is
        return f"E{rng.randrange(30)}", event(rng.choice(["click", "view"]), self._minute(), rng.randrange(3))

    def _ride(self) -> tuple[None, dict[str, Any] | None]:
        rng = self._random
        if rng.random() < 0.1:
            return None, None
        amount, distance = Decimal(rng.randint(-200, 900)) / 100, Decimal(rng.randint(0, 900)) / 100
        return None, ride(str(amount), rng.choice([0, 0.999999, 1, 2.5, -720]), str(distance))

    def _reading(self) -> tuple[str, dict[str, Any]]:
        rng = self._random
        kpi, value = rng.choice(["humidity", "light"]), rng.choice([0.0, 0.1, 69.9, 70.0, 70.1, rng.uniform(0, 1e6)])
        return f"R{rng.randrange(30)}", reading(value, kpi, self._minute(), rng.choice(["zone-a", "zone-b"]))
