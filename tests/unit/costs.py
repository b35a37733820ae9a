"""Measuring how a cost grows with its input: in ratios, because machines and their load differ."""

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
ATTEMPTS = 4  # a busy machine only ever adds to a cost
REPEATS = (2, 1, 1)  # at each size
ROUNDS = 3


def assert_linear(
    make: Callable[[int], Any], run: Callable[[Any], object], *, byte_cost_max: float = BYTE_COST_MAX
) -> None:
    """Fail where the cost of `run`, given what `make` gives of about so many bytes, grows faster than its input.

    Measured again from the start where it seems so: a machine may get slower between the unit and the cost.
    """
    for _ in range(ROUNDS - 1):
        if _excess(make, run, byte_cost_max) is None:
            return
        _unit.cache_clear()
    excess = _excess(make, run, byte_cost_max)
    assert excess is None, excess


def _excess(make: Callable[[int], Any], run: Callable[[Any], object], byte_cost_max: float) -> str | None:
    """What was measured, if it is more than allowed."""
    costs: list[float] = []
    with _no_garbage_collection():
        for size, repeats in zip(SIZES, REPEATS, strict=True):
            given, unit = make(size), _unit() * size / SIZES[-1]
            allowed = unit * byte_cost_max
            if costs:
                allowed = min(allowed, GROWTH_MAX * max(costs[-1], BYTE_COST_FLOOR * unit / 10))
            cost = min(_seconds(run, given) for _ in range(repeats))
            for _ in range(ATTEMPTS - 1):
                if cost <= allowed:
                    break
                cost = min(cost, _seconds(run, given))
            costs.append(cost)
            shown = ", ".join(f"{cost * 1e3:.3f}" for cost in costs)
            if cost > allowed:
                return f"{shown} ms for {SIZES[: len(costs)]} bytes, expected at most {allowed * 1e3:.3f}"
    return None


def _seconds(run: Callable[[Any], object], given: Any) -> float:
    began = time.thread_time()  # not process_time: other tests may have left threads
    run(given)
    return time.thread_time() - began


@cache
def _unit() -> float:
    """What Python's JSON parser takes for the largest size, full of small numbers."""
    text = f"[{','.join('1' * (SIZES[-1] // 2))}]"
    return min(_seconds(json.loads, text) for _ in range(5))


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    # its full passes look at all that a test run has loaded, not at what is measured
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
