"""A slice of `make fuzz`: fuzzed payloads through a real broker into a real Postgres."""

from dataclasses import replace

import pytest

from headrace.ingest.prepare import initialise
from tests.support.fuzz_drain import TARGETS, FuzzTarget, run
from tests.support.stage import Stage

SEED = 20_261_121


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_drain_of_fuzzed_payloads_stages_or_dead_letters_each_as_the_oracle_says(
    stage: Stage, topic: str, target: FuzzTarget
) -> None:
    fuzzed_topic = f"{topic}-fuzzed"
    target.declare(stage.deployment.settings.datasets_dir, fuzzed_topic)
    deployment = replace(stage.deployment, settings=replace(stage.deployment.settings, batch_rows=2_000))
    initialise(deployment)
    account = run(deployment, target, fuzzed_topic, SEED, 10_000)
    assert account.staged > 2_000
    assert account.dead > 4_000
    assert len(account.reasons) >= 10
