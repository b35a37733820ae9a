"""Every mart equals a plain-Python oracle and its full refresh, after rounds of anything that can happen to builds.

make rounds                            fifty rounds, with a new seed
make rounds SEED=5 ROUNDS=20           the first twenty of another one
make rounds SEED=5 ROUND=17            what was staged before its seventeenth round, and then that round
"""

import os
import random
import time
from itertools import islice

import pytest

from tests.support import build_rounds
from tests.support.build_rounds import Round
from tests.support.warehouse import Warehouse

SEED = int(os.environ.get("MARTS_SEED") or random.randrange(100_000))
ROUND = int(os.environ.get("MARTS_ROUND") or 0)
SLICE = 2  # so many deal every kind of incident once
ROUNDS = int(os.environ.get("MARTS_ROUNDS") or SLICE)


def test_marts_after_every_round_equal_oracle_and_full_refresh(
    warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nrounds: seed {SEED}, {f'round {ROUND} alone' if ROUND else f'{ROUNDS} rounds'}", flush=True)
    script = build_rounds.rounds(SEED)
    for earlier in islice(script, max(ROUND - 1, 0)):
        build_rounds.stage(warehouse, earlier.batches)
    warehouse.build()
    filled: set[str] = set()
    for played in islice(script, 1 if ROUND else ROUNDS):
        began = time.monotonic()
        try:
            build_rounds.play(warehouse, played)
            _assert_right(warehouse)
        except Exception as error:
            error.add_note(f"{played}\nagain: make rounds SEED={SEED} ROUND={played.number}, or ROUNDS={played.number}")
            raise
        filled |= {name for name, rows in warehouse.marts().items() if rows}
        if ROUNDS > SLICE:
            with capsys.disabled():
                print(f"{played} ({time.monotonic() - began:.1f} s)", flush=True)
    empty = warehouse.marts().keys() - filled
    # a few rounds may leave out a dataset, or tombstone all of it
    assert len(empty) <= (0 if ROUNDS > SLICE else len(filled)), f"nothing was compared in {sorted(empty)}"


def _assert_right(warehouse: Warehouse) -> None:
    warehouse.assert_right()
    newest = dict(warehouse.query("select dataset, last_seq from headrace.datasets"))
    assert warehouse.claims() == {(model, dataset): newest[dataset] for model, dataset in warehouse.claims()}
    assert warehouse.refreshed_marts() == warehouse.marts()


def test_round_is_drawn_again_from_its_seed() -> None:
    def first(seed: int) -> list[Round]:
        return list(islice(build_rounds.rounds(seed), 6))

    assert first(7) == first(7)
    assert first(7) != first(8)
    dealt = [incident.kind for played in first(7)[:SLICE] for incident in played.incidents]
    assert set(dealt) == set(build_rounds.PLAYS)
