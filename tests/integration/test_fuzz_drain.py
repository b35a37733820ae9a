"""A slice of `make fuzz`: fuzzed payloads of every format through a real broker into a real Postgres."""

from dataclasses import replace

import pytest

from headrace.deployment import Deployment
from headrace.ingest.prepare import initialise
from headrace.local import services
from headrace.settings import Settings
from tests.support.fuzz_drain import run
from tests.support.fuzz_targets import FORMATS, PLAIN_FORMATS, targets
from tests.support.stage import Stage

SEED = 20_261_121


@pytest.fixture(scope="session")
def registry_url(local_settings: Settings) -> str:
    """The address of a real schema registry."""
    return str(services.up(local_settings, only=("registry",), print_line=lambda _line: None)["registry"]["address"])


@pytest.mark.parametrize("format", FORMATS)
def test_drain_of_fuzzed_payloads_stages_or_dead_letters_each_as_the_oracle_says(
    stage: Stage, topic: str, format: str, request: pytest.FixtureRequest
) -> None:
    has_schemas = format not in PLAIN_FORMATS
    url = request.getfixturevalue("registry_url") if has_schemas else None
    settings = replace(stage.deployment.settings, batch_rows=2_000, registry_url=url)
    (target,) = targets(format, url)
    target.declare(settings.datasets_dir, f"{topic}-fuzzed")
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    records = 1_000 if has_schemas or format == "text" else 10_000
    account = run(deployment, target, f"{topic}-fuzzed", SEED, records)
    assert account.staged > records // 5
    assert account.dead > records // 5
    assert account.undecided < records // 20
    assert len(account.reasons) >= {"json": 10, "keyed_json": 10, "text": 4}.get(format, 5)
