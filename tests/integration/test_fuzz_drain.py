"""A slice of `make fuzz`: fuzzed payloads through a real broker into a real Postgres.

That of the formats with a registry is in test_format_conformance.py, whose worker has one.
"""

from dataclasses import replace

import pytest

from headrace.ingest.prepare import initialise
from tests.support.fuzz_drain import run
from tests.support.fuzz_targets import PLAIN_TARGETS, FuzzTarget
from tests.support.stage import Stage

SEED = 20_261_121


@pytest.mark.parametrize("target", PLAIN_TARGETS, ids=lambda target: target.format)
def test_drain_of_fuzzed_payloads_stages_or_dead_letters_each_as_the_oracle_says(
    stage: Stage, topic: str, target: FuzzTarget
) -> None:
    fuzzed_topic = f"{topic}-fuzzed"
    target.declare(stage.deployment.settings.datasets_dir, fuzzed_topic)
    deployment = replace(stage.deployment, settings=replace(stage.deployment.settings, batch_rows=2_000))
    initialise(deployment)
    records = 1_000 if target.format == "text" else 10_000
    account = run(deployment, target, fuzzed_topic, SEED, records)
    assert account.staged + account.tombstones > records // 5
    assert account.dead > records // 5
    assert len(account.reasons) >= (4 if target.format == "text" else 10)
