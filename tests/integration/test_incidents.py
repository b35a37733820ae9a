"""One cause, one card: incidents of several datasets and models show as one problem, which ends with the repair.

The incidents of one dataset are in test_runbook.py, those of Airflow in tests/unit/test_airflow_health.py.
"""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.deployment import Deployment
from headrace.exceptions import BuildError, RegistryUnavailable, SourceUnavailable
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.ingest.runner import plan
from headrace.marts.build import build
from headrace.monitor.problem import Problem
from headrace.monitor.problems import find_problems
from headrace.monitor.status import read_status
from headrace.postgres.ledger import RunContext
from headrace.settings import ROOT, Settings
from tests.support import streams, topics
from tests.support.jobs import send_jobs, servers, topic_of
from tests.support.registry_site import NOT_FOUND, Site, served
from tests.support.schemas import wire
from tests.support.stage import Stage, offline_stage

RUN = RunContext("ingest_jobs", "scheduled__1", "plan", 1, -1)


def cards(stage: Stage) -> list[Problem]:
    """What the page shows."""
    settings = stage.deployment.settings
    return list(find_problems(read_status(stage.deployment.connect("test")), settings).problems)


def test_broker_that_is_down_is_one_card_which_ends_for_all_datasets_with_the_first_that_is_read(
    stage: Stage, closed_port: int
) -> None:
    send_jobs(stage, 3)
    for name in ("events", "rides"):
        text = (Settings().datasets_dir / f"{name}.py").read_text()
        (stage.deployment.settings.datasets_dir / f"{name}.py").write_text(text)
    address = f"127.0.0.1:{closed_port}"
    down = replace(stage.deployment, kafka=lambda: {"bootstrap_servers": address, "bootstrap_timeout_ms": 100})
    for _ in range(2):  # every minute
        for name in ("events", "jobs", "rides"):
            with pytest.raises(SourceUnavailable):
                plan(down, down.dataset(name), run=RUN)
        (card,) = cards(stage)
        assert card.line().startswith(f"Kafka at {address} does not answer: 3 datasets (events, jobs, rides): kafka: ")
        assert (str(card.command), card.run) == ("headrace up", RUN)
        assert card.since is not None
    began = card.since
    assert began == stage.value("select min(error_since) from headrace.observations")
    plan(stage.deployment, stage.deployment.dataset("jobs"), run=RUN)
    assert cards(stage) == []  # although nothing has read the others


def test_redis_that_is_down_is_one_card_which_ends_with_the_next_run(telemetry: Stage, closed_port: int) -> None:
    streams.send(telemetry, 3)
    settings = replace(telemetry.deployment.settings, redis_url=f"redis://127.0.0.1:{closed_port}/0")
    down = Deployment.from_settings(settings)
    with pytest.raises(SourceUnavailable):
        plan(down, down.dataset("telemetry"), run=RUN)
    (card,) = cards(telemetry)
    assert card.cause == f"Redis at 127.0.0.1:{closed_port} does not answer"
    assert card.runbook == "docs/runbook.md#a-service-does-not-answer"
    plan(telemetry.deployment, telemetry.deployment.dataset("telemetry"), run=RUN)
    assert cards(telemetry) == []


def test_registry_that_is_down_is_one_card_until_a_dataset_is_drained(stage: Stage, closed_port: int) -> None:
    declared = stage.deployment.settings.datasets_dir / "jobs.py"
    text = declared.read_text().replace("KeyedJson", "Avro")
    declared.write_text(text)
    (declared.parent / "others.py").write_text(text.replace('name="jobs"', 'name="others"'))
    topics.send(servers(stage), topic_of(stage), [(n, b"%d" % n, wire(1, bytes([2 * n]))) for n in range(3)])
    url = f"http://127.0.0.1:{closed_port}/api"
    deployment = Deployment.from_settings(replace(stage.deployment.settings, registry_url=url))
    initialise(deployment)
    for _ in range(2):  # every minute; a plan asks no registry, and ends nothing
        for name in ("jobs", "others"):
            plan(deployment, deployment.dataset(name), run=RUN)
            with pytest.raises(RegistryUnavailable):
                drain_dataset(deployment, name)
        (card,) = cards(stage)
        assert card.line().startswith(f"the schema registry at {url} does not answer: 2 datasets (jobs, others)")
        assert card.runbook == "docs/runbook.md#a-service-does-not-answer"
    site = Site()
    site.answers["/api/schemas/ids/1"] = NOT_FOUND
    with served(site, port=closed_port):
        _, result = drain_dataset(deployment, "others")
    assert (result.staged, result.dead) == (0, 3)
    plan(deployment, deployment.dataset("others"), run=RUN)  # of the next minute
    assert {card.kind for card in cards(stage)} == {"dead_letters"}


def test_failed_model_and_failed_test_are_one_card_with_the_model_behind_until_the_build(
    database: str, tmp_path: Path
) -> None:
    folder = tmp_path / "dbt"
    (folder / "models").mkdir(parents=True)
    (folder / "dbt_project.yml").write_text(
        "name: small\nversion: 1.0.0\nconfig-version: 2\nprofile: headrace\nmodels: {+materialized: table}\n"
        "flags: {send_anonymous_usage_stats: false}\n"
    )
    (folder / "profiles.yml").write_text((ROOT / "dbt" / "profiles.yml").read_text())
    (folder / "models" / "behind.sql").write_text("select * from {{ ref('first') }}\n")
    (folder / "models" / "first.yml").write_text(
        "models: [{name: first, columns: [{name: n, data_tests: [not_null]}]}]\n"
    )
    stage = offline_stage(database, tmp_path / "home")
    settings = replace(stage.deployment.settings, dbt_dir=folder)

    def cards_after(sql: str) -> list[Problem]:
        (folder / "models" / "first.sql").write_text(sql)
        with suppress(BuildError):
            build(settings, run=RUN)
        return cards(stage)

    (card,) = cards_after("select 1 / (select 0) as n")
    assert (card.kind, card.about, card.run) == ("model", "marts.first", RUN)
    assert "division by zero" in card.text
    assert list(card.models) == ["marts.first", "marts.behind"]
    assert str(card.command) == "headrace build --select first+"
    began = card.since

    (card,) = cards_after("select 2 / (select 0) as n")
    assert card.since == began

    (card,) = cards_after("select null::int as n")
    assert (card.kind, list(card.models)) == ("tests", ["marts.first", "marts.behind"])
    assert "not_null_first_n: 1 rows" in card.text

    assert cards_after("select 1 as n") == []
