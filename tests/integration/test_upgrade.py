"""An upgrade of a deployment with rows of former contracts."""

import json
import re
from pathlib import Path

import psycopg
import pytest

from headrace.exceptions import DatasetError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.repair.generations import reset
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.jobs import job, servers, topic_of
from tests.support.stage import Stage

DECLARATION = """
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from headrace.contract import EpochMilliseconds, Identifier, Integer, Money, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Record(BaseModel):
    model_config = CONTRACT_CONFIG

    {fields}


DATASET = Dataset(name="{name}", contract=Record, source=KafkaTopic(topic="{topic}"), {options})
"""
# what the declarations said before
FORMER = {
    "jobs": (
        "JOBCREATEDATE: Timestamp; JOBDATE: Timestamp; JOBIDENTIFIER: Identifier; "
        'JOBSTATUS: Literal["SUCCESS", "NO SUCCESS"]; LOCATION: Text; REVENUE: Annotated[Money, Field(ge=0)]; '
        "SERVICENAME: Text; USERID: Integer",
        'key="JOBIDENTIFIER"',
    ),
    "events": (
        "event_id: Identifier; event_type: Text; time: Timestamp; payload: dict[str, Any]",
        'key="event_id", keyed=False',
    ),
    "rides": (
        "PULocationID: Integer; DOLocationID: Integer; trip_distance: Annotated[Money, Field(ge=0)]; "
        "total_amount: Money; tpep_pickup_datetime: EpochMilliseconds",
        "",
    ),
}


@pytest.fixture
def former(stage: Stage) -> Stage:
    """Three datasets with their former contracts, each with a record staged; then today's declarations."""
    folder = stage.deployment.settings.datasets_dir
    topic = topic_of(stage)
    stage.execute("drop table staging.jobs, staging._replaced_jobs")
    for name, (fields, options) in FORMER.items():
        lines = "\n    ".join(fields.split("; "))
        where = topic if name == "jobs" else f"{topic}-{name}"
        (folder / f"{name}.py").write_text(DECLARATION.format(name=name, fields=lines, topic=where, options=options))
        if name != "jobs":
            topics.create(servers(stage), where, 1)
    initialise(stage.deployment)
    event = {"event_id": "e", "event_type": "click", "time": "2026-01-01T10:00:00Z", "payload": {"user": 7}}
    ride = {
        "PULocationID": 1, "DOLocationID": 2, "trip_distance": 1.6, "total_amount": 12.95,
        "tpep_pickup_datetime": 1_551_434_400_000,
    }  # fmt: skip
    topics.send(servers(stage), topic, [(0, b"999999", job(999_999, JOBIDENTIFIER="999999"))])
    topics.send(servers(stage), f"{topic}-events", [(0, None, json.dumps(event).encode())])
    topics.send(servers(stage), f"{topic}-rides", [(0, None, json.dumps(ride).encode())])
    for name in FORMER:
        assert drain_dataset(stage.deployment, name)[1].staged == 1
        text = (Settings().datasets_dir / f"{name}.py").read_text()
        where = topic if name == "jobs" else f"{topic}-{name}"
        (folder / f"{name}.py").write_text(text.replace(f'topic="{name}"', f'topic="{where}"'))
    return stage


def advised(stage: Stage, name: str) -> list[str]:
    """The statements that a drain advises, the ones that keep the field's values where there is a choice."""
    with pytest.raises(DatasetError) as refused:
        drain_dataset(stage.deployment, name)
    text = str(refused.value)
    assert "\n" not in text
    choices = re.split(", or, as the field of another name, ", text)
    return [found.strip() for found in re.findall(r"alter table [^;`]+", choices[-1])]


def test_advice_of_a_refused_contract_brings_every_dataset_up_to_todays(former: Stage) -> None:
    for name in FORMER:
        for _ in range(10):
            try:
                drain_dataset(former.deployment, name)
                break
            except DatasetError:
                statements = advised(former, name)
                assert statements
                former.execute(*statements)
        else:
            raise AssertionError(f"{name}: still refused")
    topic = topic_of(former)
    topics.send(servers(former), topic, [(0, b"1000000", job(1_000_000, REVENUE=71.30000000000001))])
    drain_dataset(former.deployment, "jobs")
    assert former.query("select jobidentifier, revenue::text from staging.jobs order by jobidentifier desc") == [
        (1_000_000, "71.30000000000001"),
        (999_999, "12.50"),
    ]
    assert former.query("select event_time::text, payload, user_id from staging.events") == [
        ("2026-01-01 10:00:00+00", {"user": 7}, None)
    ]
    assert former.query("select total_amount::text from staging.rides") == [("12.95",)]
    for name in FORMER:
        verification = verify(former.deployment, name)
        assert verification.is_clean, list(verification.lines())


def test_reset_makes_a_table_of_other_columns_from_scratch(former: Stage) -> None:
    former.execute("update staging.jobs set jobidentifier = 'job-7'")
    (statement, _) = advised(former, "jobs")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        former.execute(statement)
    with pytest.raises(DatasetError, match=r"where a text does not convert, `headrace reset jobs` deletes"):
        drain_dataset(former.deployment, "jobs")
    reset(former.deployment, former.deployment.dataset("jobs"))
    drain_dataset(former.deployment, "jobs")
    assert former.query("select jobidentifier, _generation from staging.jobs") == [(999_999, 2)]
    verification = verify(former.deployment, "jobs")
    assert verification.is_clean, list(verification.lines())


def test_former_files_of_the_demo_are_written_again(tmp_path: Path) -> None:
    from rich.console import Console

    from headrace.sample import demo

    demonstration = demo.Demo(Console(quiet=True))
    path = tmp_path / "events.keyed"
    path.write_bytes(b"of an earlier version\n")
    demonstration._write("events", [path])
    written = path.read_bytes()
    assert written.startswith(b"user_")
    account = json.loads((tmp_path / "events.sent.json").read_text())
    assert account["records"] == demo.RECORDS["events"] == written.count(b"\n")
    assert account["records"] > account["entities"] + sum(account["reasons"].values())
    path.write_bytes(written + b"more")
    demonstration._write("events", [path])
    assert path.read_bytes().endswith(b"more")  # what is there with its account stays
