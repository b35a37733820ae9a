"""Random models equal their full recomputation, after rounds of anything that can happen to builds.

make rounds                            rounds of the project's marts, then of random models
make rounds ONLY=models ROUNDS=200     random models alone
make rounds SEED=5 ROUND=17            the rounds of one project, up to the seventeenth
"""

import os
import random
import time

import psycopg
import pytest

from tests.support.random_models import Model, draw_models
from tests.support.random_project import RandomProject
from tests.support.random_rounds import RandomRounds
from tests.support.random_truth import broken_promises

SEED = int(os.environ.get("MARTS_SEED") or random.randrange(100_000))
ROUND = int(os.environ.get("MARTS_ROUND") or 0)
SLICE = 3
ROUNDS = int(os.environ.get("MARTS_ROUNDS") or SLICE)
ROUNDS_EACH = 10  # of a project of models, then others are drawn
MODELS = 14  # the four that read datasets among them


@pytest.mark.parametrize("number", range(0, max(ROUND, ROUNDS), ROUNDS_EACH))
def test_random_models_after_every_round_equal_their_selects(
    project: RandomProject, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    if ROUND and number != (ROUND - 1) // ROUNDS_EACH * ROUNDS_EACH:
        pytest.skip(f"round {ROUND} is asked for")
    seed = SEED * 1_000 + number
    project.models = draw_models(seed, MODELS)
    rounds = RandomRounds(project, str(seed))
    rounds.start()
    for played in range(number + 1, min(number + ROUNDS_EACH, ROUND or ROUNDS) + 1):
        began = time.monotonic()
        try:
            rounds.play()
        except Exception as error:
            error.add_note(f"round {played}: {', '.join(rounds.told)}\nagain: make rounds SEED={SEED} ROUND={played}")
            raise
        if ROUNDS > SLICE:
            with capsys.disabled():
                print(f"random round {played}: {', '.join(rounds.told)} ({time.monotonic() - began:.1f} s)", flush=True)


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_drawn_grains_cover_every_changed_row(database: str, seed: int) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        assert broken_promises(connection, draw_models(seed, 24), seed, 4) == []


def test_grain_that_is_wrong_breaks_its_promise(database: str) -> None:
    select = "select jobidentifier, count(*) over (partition by location) as peers, location from {{ ref('jobs') }}"
    columns = {"jobidentifier": "int", "peers": "int", "location": "text"}
    models = [*draw_models(1, 2)]
    for column in ("jobidentifier", "location"):
        grain = {column: {"jobs": column}}
        models.append(Model(f"by_{column}", select, columns, ("jobidentifier",), 40, grain))
    with psycopg.connect(database, autocommit=True) as connection:
        broken = broken_promises(connection, models, 1, 6)
    assert {line.partition(":")[0] for line in broken} == {"by_jobidentifier"}
