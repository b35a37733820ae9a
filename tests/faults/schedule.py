"""The schedule: every kind of trial at every step, in an order that the seed determines, repeated without end.

The seed and a trial's name (drain-137) determine a trial completely, so one trial can be repeated alone.
"""

import random
from collections.abc import Iterator
from itertools import count, islice

from tests.faults.trials import LOCKING_STEPS, STEPS, Trial

Case = tuple[str, str, int]  # kind, step, nth

MODELS = (
    *("users", "jobs", "jobs_per_minute", "visitor_revenues", "top_users_by_location"),
    *("latest_jobs_by_location", "latest_jobs_by_service"),
)


def _drain_cases() -> list[Case]:
    cases: list[Case] = [("kill", "planned", 1)]
    cases += [("kill", step, nth) for step in STEPS for nth in (1, 2, 3) if step != "copying_dead" or nth < 3]
    cases += [("kill_twice", step, 1) for step in STEPS]
    cases += [("kill_anywhen", "", nth) for nth in range(1, 13)]
    cases += [("interrupt", step, 2) for step in STEPS]
    cases += [("terminate", step, nth) for step in STEPS for nth in (1, 2) if (step, nth) != ("fetched", 1)]
    cases += [("cancel", step, nth) for step in ("copying", "copying_dead") for nth in (1, 2)]
    cases += [("cut", how, nth) for how in ("before", "after", "doubt", "copy") for nth in (1, 2, 3, 4)]
    cases += [("silence", "", nth) for nth in (1, 2, 3)]
    cases += [("zombie", step, nth) for step in STEPS for nth in (1, 2) if step != "copying_dead" or nth == 1]
    cases += [("two_at_once", "", nth) for nth in (1, 2, 3, 4)]
    cases += [("retried", step, 1) for step in STEPS]
    cases += [("slow_beside_fast", "", nth) for nth in (1, 2, 3)]
    cases += [("adopted_meanwhile", step, nth) for step, nth in (("fetched", 1), ("committed", 2), ("staged", 1))]
    cases += [("adopted_under_it", "fetched", 1)]
    cases += [("open_transaction", step, 1) for step in ("fetched", *LOCKING_STEPS[:2], "committed")]
    cases += [("large_records", step, nth) for step, nth in (("fetched", 3), ("copying", 2), ("committed", 2))]
    cases += [("growing", step, nth) for step, nth in (("fetched", 1), ("before_commit", 1), ("committed", 2))]
    cases += [("recreated", step, nth) for step, nth in (("planned", 1), ("fetched", 1), ("committed", 2))]
    cases += [("retention", "", nth) for nth in (1, 2)]
    cases += [("new_partition", "staged", 2)]
    return cases


def _outage_cases(*, with_broker: bool) -> list[Case]:
    cases: list[Case] = [("postgres_killed", step, nth) for step in STEPS for nth in (1, 2) if step != "copying_dead"]
    cases += [("postgres_restarted", step, 2) for step in ("fetched", "copying", "before_commit", "committed")]
    cases += [("postgres_crashed", step, nth) for step in LOCKING_STEPS for nth in (1, 2)]
    if with_broker:
        cases += [("broker_killed", step, 2) for step in ("fetched", "staged", "before_commit", "committed")]
        cases += [("broker_frozen", step, 1) for step in ("fetched", "committed", "planned")]
    return cases


def _build_cases() -> list[Case]:
    gated = [("build_killed", model, 1) for model in MODELS]
    return gated + [("build_killed", model, nth) for model in MODELS[:4] for nth in (2, 3)]


SCHEDULES = {
    "drain": _drain_cases(),
    "outage": _outage_cases(with_broker=True),
    "postgres": _outage_cases(with_broker=False),  # for a sandbox with a shared broker
    "build": _build_cases(),
}
# these use the default time limits and are slow, so they are not in the schedule: drain sandboxes run them first
SLOW_CASES: list[Case] = [("zombie_defaults", "copying", 2), ("zombie_defaults", "before_commit", 1)]


def trials(schedule: str, seed: int) -> Iterator[Trial]:
    """Yield the trials of a schedule for ever, each round in another order."""
    numbers = count(1)
    if schedule == "drain":
        for kind, step, nth in SLOW_CASES:
            yield Trial(f"{schedule}-{next(numbers)}", kind, step, nth)
    for round_number in count():
        cases = list(SCHEDULES[schedule])
        random.Random(f"{seed}/{schedule}/{round_number}").shuffle(cases)
        for kind, step, nth in cases:
            yield Trial(f"{schedule}-{next(numbers)}", kind, step, nth)


def find(name: str, seed: int) -> Trial:
    """The trial of this name, drain-137."""
    schedule, _, number = name.rpartition("-")
    if schedule not in SCHEDULES or not number.isdigit() or int(number) < 1:
        raise ValueError(
            f"TRIAL: found {name!r}, expected one of {', '.join(SCHEDULES)}, a hyphen and a number: drain-137"
        )
    return next(islice(trials(schedule, seed), int(number) - 1, None))
