"""Which trial is which: a deck of every kind at every step, shuffled by the seed and dealt again and again.

A trial's name (drain-137) and the seed say all about it; so one trial can be repeated alone.
"""

import random
from collections.abc import Iterator
from itertools import count, islice

from tests.faults.trials import HOLDING, STEPS, Trial

Card = tuple[str, str, int]  # kind, step, nth

MODELS = (
    *("users", "jobs", "jobs_per_minute", "visitor_revenues", "top_users_by_location"),
    *("latest_jobs_by_location", "latest_jobs_by_service"),
)


def _drain_cards() -> list[Card]:
    cards: list[Card] = [("kill", "planned", 1)]
    cards += [("kill", step, nth) for step in STEPS for nth in (1, 2, 3) if step != "copying_dead" or nth < 3]
    cards += [("kill_twice", step, 1) for step in STEPS]
    cards += [("kill_anywhen", "", nth) for nth in range(1, 13)]
    cards += [("interrupt", step, 2) for step in STEPS]
    cards += [("terminate", step, nth) for step in STEPS for nth in (1, 2) if (step, nth) != ("fetched", 1)]
    cards += [("cancel", step, nth) for step in ("copying", "copying_dead") for nth in (1, 2)]
    cards += [("cut", how, nth) for how in ("before", "after", "doubt", "copy") for nth in (1, 2, 3, 4)]
    cards += [("silence", "", nth) for nth in (1, 2, 3)]
    cards += [("zombie", step, nth) for step in STEPS for nth in (1, 2) if step != "copying_dead" or nth == 1]
    cards += [("two_at_once", "", nth) for nth in (1, 2, 3, 4)]
    cards += [("retried", step, 1) for step in STEPS]
    cards += [("slow_beside_fast", "", nth) for nth in (1, 2, 3)]
    cards += [("adopted_meanwhile", step, nth) for step, nth in (("fetched", 1), ("committed", 2), ("staged", 1))]
    cards += [("adopted_under_it", "fetched", 1)]
    cards += [("open_transaction", step, 1) for step in ("fetched", *HOLDING[:2], "committed")]
    cards += [("large_records", step, nth) for step, nth in (("fetched", 3), ("copying", 2), ("committed", 2))]
    cards += [("growing", step, nth) for step, nth in (("fetched", 1), ("before_commit", 1), ("committed", 2))]
    cards += [("recreated", step, nth) for step, nth in (("planned", 1), ("fetched", 1), ("committed", 2))]
    cards += [("retention", "", nth) for nth in (1, 2)]
    cards += [("new_partition", "staged", 2)]
    return cards


def _outage_cards(*, with_broker: bool) -> list[Card]:
    cards: list[Card] = [("postgres_killed", step, nth) for step in STEPS for nth in (1, 2) if step != "copying_dead"]
    cards += [("postgres_restarted", step, 2) for step in ("fetched", "copying", "before_commit", "committed")]
    cards += [("postgres_crashed", step, nth) for step in HOLDING for nth in (1, 2)]
    if with_broker:
        cards += [("broker_killed", step, 2) for step in ("fetched", "staged", "before_commit", "committed")]
        cards += [("broker_frozen", step, 1) for step in ("fetched", "committed", "planned")]
    return cards


def _build_cards() -> list[Card]:
    gated = [("build_killed", model, 1) for model in MODELS]
    return gated + [("build_killed", model, nth) for model in MODELS[:4] for nth in (2, 3)]


DECKS = {
    "drain": _drain_cards(),
    "outage": _outage_cards(with_broker=True),
    "postgres": _outage_cards(with_broker=False),  # for a lane that shares its broker
    "build": _build_cards(),
}
# as slow as the real time limits are, and so not in the deck: the first cards of the drain lanes
SLOW_CARDS: list[Card] = [("zombie_defaults", "copying", 2), ("zombie_defaults", "before_commit", 1)]


def trials(deck: str, seed: int) -> Iterator[Trial]:
    """The trials of a deck, endlessly; each round of it in another order."""
    numbers = count(1)
    if deck == "drain":
        for kind, step, nth in SLOW_CARDS:
            yield Trial(f"{deck}-{next(numbers)}", kind, step, nth)
    for turn in count():
        cards = list(DECKS[deck])
        random.Random(f"{seed}/{deck}/{turn}").shuffle(cards)
        for kind, step, nth in cards:
            yield Trial(f"{deck}-{next(numbers)}", kind, step, nth)


def find(name: str, seed: int) -> Trial:
    """The trial of this name, drain-137."""
    deck, _, number = name.rpartition("-")
    if deck not in DECKS or not number.isdigit() or int(number) < 1:
        raise ValueError(f"TRIAL: found {name!r}, expected one of {', '.join(DECKS)}, a hyphen and a number: drain-137")
    return next(islice(trials(deck, seed), int(number) - 1, None))
