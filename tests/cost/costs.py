"""Measuring how a cost grows with its input: in ratios, because machines and their load differ.

Load adds to every measurement, and to long ones more surely than to short ones. So short runs are repeated until they
take as long as others, and a cost that seems too high is measured again in turns with what it is compared with: a
machine that gets slower slows all of them. The least of the rounds counts.
"""

import gc
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

SIZES = (10_000, 100_000, 1_000_000)  # bytes
# Ten times as many bytes: 10 where the cost is linear, 13 where it is n log n, 100 where it is quadratic
GROWTH_MAX = 30
# A cost a byte, in those of Python's own JSON parser for small numbers: finds what is linear only beyond 4 kB
BYTE_COST_MAX = 70
# How anything cheaper a byte grows is not looked at: of large inputs the memory is new to a process, of small ones not
BYTE_COST_FLOOR = 1
ROUNDS = 24  # as many as confirm that a cost is too high; one within the limit ends them
HOPELESS = 10  # two rounds are enough for a cost of so many times its limit
MEASURED_S, MEASURED_AGAIN_S = 0.0005, 0.005  # at least; a shorter run is repeated


def assert_linear(
    make: Callable[[int], Any], run: Callable[[Any], object], *, byte_cost_max: float = BYTE_COST_MAX
) -> None:
    """Fail where the cost of `run`, given what `make` gives of about so many bytes, grows faster than its input."""
    costs: list[Cost] = []
    with _no_garbage_collection():
        for size in SIZES:
            costs.append(Cost(run, make(size), size))
            excess = _excess(costs, byte_cost_max)
            for done in range(ROUNDS):
                if excess <= 1 or (excess > HOPELESS and done == 2):
                    break
                for cost in (_unit(), *costs[-2:]):
                    cost.measure_again()
                excess = _excess(costs, byte_cost_max)
            shown = ", ".join(f"{cost.seconds * 1e3:.3f}" for cost in costs)
            assert excess <= 1, (
                f"{shown} ms for {SIZES[: len(costs)]} bytes, expected at most {costs[-1].seconds / excess * 1e3:.3f}"
            )


class Cost:
    """Thread time of a run with an input of so many bytes: the least of its measurements."""

    def __init__(self, run: Callable[[Any], object], given: Any, size: int) -> None:
        self._run, self._given, self.size = run, given, size
        self.seconds = self._mean(1)
        if self.seconds < MEASURED_S:
            self.seconds = self._mean(self._times(MEASURED_S))

    def measure_again(self) -> None:
        self.seconds = min(self.seconds, self._mean(self._times(MEASURED_AGAIN_S)))

    def _times(self, at_least_s: float) -> int:
        return 1 + int(at_least_s / max(self.seconds, 1e-6))

    def _mean(self, times: int) -> float:
        began = time.thread_time()  # not process_time: other tests may have left threads
        for _ in range(times):
            self._run(self._given)
        return (time.thread_time() - began) / times


def _excess(costs: list[Cost], byte_cost_max: float) -> float:
    """How many times its limit the last cost is: a cost a byte, and a growth since the size before it."""
    last, unit = costs[-1], _unit().seconds / _unit().size
    limit = byte_cost_max * unit * last.size
    if len(costs) > 1:
        before = costs[-2]
        limit = min(limit, GROWTH_MAX * max(before.seconds, BYTE_COST_FLOOR * unit * before.size))
    return last.seconds / limit


@cache
def _unit() -> Cost:
    """What Python's JSON parser takes for the largest size, full of small numbers."""
    unit = Cost(json.loads, f"[{','.join('1' * (SIZES[-1] // 2))}]", SIZES[-1])
    for _ in range(4):
        unit.measure_again()
    return unit


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # its full passes look at all that a test run has loaded, not at what is measured
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
