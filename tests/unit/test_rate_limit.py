"""The rate limit of a dataset, with a clock of the test's own."""

import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from headrace.ingest import rate_limit
from headrace.ingest.plan import Plan
from headrace.ingest.rate_limit import RateLimit
from headrace.record import KafkaRecord
from headrace.sources.base import Chunk, Range


class Clock:
    """Passes only by sleeping, and by what the test adds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    return clock


def chunks(randomness: random.Random, records: int) -> Iterator[Chunk]:
    """Records with gaps in chunks of any length, empty ones among them; positions are in the keys, as a stream's."""
    offset = 0
    while records:
        size = min(randomness.choice([0, 1, 2, 9, 10, 11, 20, 57, 400]), records)
        found = []
        for _ in range(size):
            offset += randomness.choice([1, 1, 1, 5])
            found.append(KafkaRecord(offset, None, b"p%d" % offset, b"x", ()))
        records -= size
        offset += 1
        yield Chunk(0, found, offset, f"p{found[-1].offset}" if found else None)


@pytest.mark.parametrize("per_s", [0.25, 1.0, 10.0, 33.3, 1e9])
def test_run_reads_all_records_in_order_and_never_more_than_its_rate_and_a_burst(clock: Clock, per_s: float) -> None:
    randomness = random.Random(7)
    given = list(chunks(randomness, 700))
    limit = RateLimit(per_s)
    read: list[tuple[float, int]] = []
    parts = []
    for part in limit.paced(given, lambda: False):
        parts.append(part)
        read.append((clock.now, len(part.records)))
        clock.now += randomness.choice([0.0, 0.01, 3.0])  # decoding and committing, an outage
    assert [record for part in parts for record in part.records] == [r for chunk in given for r in chunk.records]
    assert all(len(part.records) <= limit.burst for part in parts)
    assert parts[-1].next_offset == given[-1].next_offset
    assert all(before.next_offset <= after.next_offset for before, after in pairwise(parts))
    assert all(part.position == part.records[-1].key.decode() for part in parts if part.records)  # type: ignore[union-attr]
    for first in range(0, len(read), 7):
        for last in range(first, len(read), 5):
            records = sum(count for _, count in read[first : last + 1])
            assert records <= (read[last][0] - read[first][0]) * per_s + limit.burst + 1e-6


def test_run_that_is_over_ends_in_its_rest(clock: Clock) -> None:
    (whole,) = [Chunk(0, [KafkaRecord(n, None, None, b"x", ()) for n in range(10)], 10)]
    read = list(RateLimit(2.0).paced([whole, whole], lambda: clock.now >= 1001.5))
    assert [part.next_offset for part in read] == [2, 4]
    assert 1001.5 <= clock.now < 1001.7


def test_shares_of_a_plan_have_its_rate_together_by_their_offsets() -> None:
    plan = Plan("jobs", 1, "jobs", "id", {0: Range(0, 600), 1: Range(0, 100), 2: Range(5, 105)})
    shares = plan.split(2)
    assert sorted(share.part for share in shares) == pytest.approx([0.25, 0.75])
    passed = Plan.from_dict(shares[0].to_dict())
    assert (passed.part, passed.remaining({0: 500}, {}).part) == (0.75, 0.75)
    values = plan.to_dict()
    del values["part"]  # planned by an older version
    assert Plan.from_dict(values).part == 1.0
