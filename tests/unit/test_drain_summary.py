"""What a drain says of itself."""

from collections import Counter

from headrace.ingest.drain import DrainResult
from headrace.ingest.plan import Plan
from headrace.sources.base import Range

PLAN = Plan("jobs", 2, "jobs", "id", {0: Range(10, 20), 2: Range(0, 5)})


def test_drain_logs_five_lines() -> None:
    result = DrainResult(
        "jobs",
        2,
        staged=11,
        dead=3,
        empty=1,
        seconds=0.5,
        reasons=Counter({"a": 1, "b": 2}),
        next_offsets={2: 5, 0: 20},
    )
    assert result.log_lines(PLAN) == [
        "jobs: generation 2 of jobs, offsets [0] 10 to 20, [2] 0 to 5",
        "staged 11, tombstones 0, empty 1",
        "dead letters 3: b 2, a 1",
        "2 batches in 0.5 s (28/s)",
        "next offsets [0] 20, [2] 5",
    ]


def test_drain_that_did_nothing_says_so() -> None:
    assert DrainResult("jobs").summary(PLAN) == "jobs: nothing new"
    assert DrainResult("jobs").log_lines(PLAN)[-1] == "next offsets unchanged"


def test_drains_of_several_processes_add_up() -> None:
    total = DrainResult("jobs", 1, staged=2, reasons=Counter(a=1), next_offsets={0: 3}, seconds=2)
    total.add(DrainResult("jobs", 2, staged=5, dead=1, reasons=Counter(a=1, b=1), next_offsets={1: 9}, seconds=1))
    assert (total.batches, total.staged, total.dead, total.seconds) == (3, 7, 1, 2)
    assert (total.reasons, total.next_offsets) == (Counter(a=2, b=1), {0: 3, 1: 9})
