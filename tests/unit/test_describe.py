"""What `headrace describe` says of a dataset, held against what its contract does."""

import json
import math
from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest
from click.testing import CliRunner
from pydantic import AfterValidator, BaseModel, Field, create_model, field_validator, model_validator
from pydantic_core import PydanticCustomError

from headrace.cli import main
from headrace.contract import Float, Identifier, Integer, Money, Rejection, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, File, KafkaTopic, dataset_names, load_dataset
from headrace.exceptions import DatasetError
from headrace.formats import Avro, JsonSchema
from headrace.monitor.describe import BOOKKEEPING_MEANING, lines
from headrace.monitor.rules import fields, reasons
from headrace.postgres.staging import BOOKKEEPING_COLUMNS
from headrace.settings import Settings

VALID: dict[str, dict[str, Any]] = {
    "jobs": {
        "JOBCREATEDATE": "2019-03-01 10:00:00",
        "JOBDATE": "2019-03-01 11:00:00",
        "JOBIDENTIFIER": 1,
        "JOBSTATUS": "SUCCESS",
        "LOCATION": "LOC_1",
        "REVENUE": 12.5,
        "SERVICENAME": "S",
        "USERID": 7,
    },
    "events": {
        "event_id": "e",
        "event_time": "2019-03-01T10:00:00Z",
        "user_id": "u",
        "event_type": "t",
        "payload": {},
        "schema_version": 1,
    },
    "rides": {
        "PULocationID": 1,
        "DOLocationID": 2,
        "trip_distance": 1.25,
        "total_amount": 9.5,
        "tpep_pickup_datetime": 1_551_434_400_000,
    },
    "telemetry": {
        "event_id": "e",
        "device_id": "d",
        "zone": "zone-a",
        "ts": "1551434400.25",
        "kpi": "temperature",
        "value": 1.5,
    },
    "users": {"LOCATION": "LOC_1", "USERID": 7},
}
BAD: list[Any] = [None, True, 1, -1.5, 1e17, 1.005, 2**63, math.inf, "", "x", "x" * 256, "2019-02-30", [], {}]
MISSING = object()


def declared(name: str) -> Dataset:
    return load_dataset(Settings().datasets_dir, name)


def breaches(dataset: Dataset, valid: dict[str, Any], field: str) -> set[str]:
    """The reasons that bad values of one field give, found by trying them."""
    found = set()
    for bad in [MISSING, *BAD]:
        document = valid | {field: bad}
        if bad is MISSING:
            del document[field]
        key = str(document.get(dataset.key_fields[0])).encode() if dataset.key else None
        outcome = dataset.compiled.decode(key, json.dumps(document).encode())
        if isinstance(outcome, Rejection) and outcome.json_path == f"$.{field}":
            found.add(outcome.reason)
    return found


def test_description_is_tried_for_every_dataset() -> None:
    assert set(VALID) == set(dataset_names(Settings().datasets_dir))


@pytest.mark.parametrize("name", VALID)
def test_description_lists_for_each_field_the_reasons_that_breaches_give(name: str) -> None:
    dataset = declared(name)
    key = str(VALID[name][dataset.key_fields[0]]).encode() if dataset.key else None
    assert not isinstance(dataset.compiled.decode(key, json.dumps(VALID[name]).encode()), Rejection)
    listed = {field.name: set(field.reasons) for field in fields(dataset)}
    assert listed == {field: breaches(dataset, VALID[name], field) for field in VALID[name]}


@pytest.mark.parametrize("name", VALID)
def test_description_shows_every_column_and_where_it_comes_from(name: str) -> None:
    dataset = declared(name)
    text = list(lines(dataset))
    text = text[next(i for i, line in enumerate(text) if line.startswith("field ")) :]
    for column in dataset.compiled.columns:
        line = next(line for line in text if line.startswith(f"{column.field} "))
        assert line.split()[1] == column.name
        assert column.sql_type in line
    for column_name, sql_type, _ in BOOKKEEPING_COLUMNS:
        assert any(line.split()[:2] == [column_name, sql_type] for line in text)
        assert BOOKKEEPING_MEANING[column_name]
    assert f"  headrace verify {name}" in text
    assert all(line == line.rstrip() for line in text)


def test_description_command_prints_what_an_engineer_asks_for() -> None:
    result = CliRunner().invoke(main, ["describe", "jobs"], env={"HEADRACE_HOME": "/nonexistent"})
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for part in (
        "source topic jobs; 3 partitions if `headrace produce` creates it",
        "key JOBIDENTIFIER, column jobidentifier; a record's key equals it",
        "time JOBCREATEDATE, column jobcreatedate zone UTC, for times that name none",
        "format a JSON object, or a value key|{JSON} of a record without a key",
        "limit a value of more than 1048576 bytes is a dead letter",
        "DAG ingest_jobs, every 60 s",
        "JOBSTATUS jobstatus text yes one of 'SUCCESS', 'NO SUCCESS' missing_field, invalid_value",
        "REVENUE revenue numeric no >= 0 wrong_type, out_of_range",
        "commands headrace drain jobs headrace produce jobs FILE headrace dead-letters jobs",
    ):
        assert part in text
    refused = CliRunner().invoke(main, ["describe", "dance"], env={"HEADRACE_HOME": "/nonexistent"})
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)


def test_description_of_a_dataset_with_a_dead_letter_topic_names_it() -> None:
    assert any("topic events_dlq; 1 partition" in line for line in lines(declared("events")))
    assert not any("_dlq" in line for line in lines(declared("jobs")))


def check_even(value: int) -> int:
    """An even number."""
    if value % 2:
        raise PydanticCustomError("odd_number", "expected an even number")
    return value


class Thing(BaseModel):
    model_config = CONTRACT_CONFIG

    ID: Integer
    KIND: Literal["a", "b"] | None = None
    CODE: Annotated[str, Field(pattern="^[A-Z]+$", max_length=9)] = "A"
    EVEN: Annotated[Integer, AfterValidator(check_even)]
    NAME: Identifier | None = None
    AT: Timestamp | None = None
    PRICE: Annotated[Money, Field(gt=0, multiple_of=5)]
    RATE: Float = 0.5

    @field_validator("RATE")
    @classmethod
    def rate_is_a_share(cls, value: float) -> float:
        if value > 1:
            raise ValueError("more than all")
        return value

    @model_validator(mode="after")
    def named_or_dated(self) -> "Thing":
        """A thing has a name or a date."""
        if self.NAME is None and self.AT is None:
            raise PydanticCustomError("anonymous", "expected NAME or AT")
        return self


THINGS = Dataset(name="things", contract=Thing, source=KafkaTopic(topic="t"), key="ID", zone="Europe/Berlin")


def test_description_of_constraints_of_every_kind() -> None:
    assert {field.name: (field.required, field.constraints, field.reasons) for field in fields(THINGS)} == {
        "ID": (True, (f">= {-(2**63)}", f"<= {2**63 - 1}"), ("missing_field", "wrong_type", "out_of_range")),
        "KIND": (False, ("one of 'a', 'b'",), ("invalid_value",)),
        "CODE": (False, ("at most 9 long", "like ^[A-Z]+$"), ("wrong_type", "too_large", "invalid_value")),
        "EVEN": (
            True,
            (f">= {-(2**63)}", f"<= {2**63 - 1}", "An even number"),
            ("missing_field", "wrong_type", "out_of_range", "odd_number"),
        ),
        "NAME": (False, ("at least 1 long", "at most 255 long"), ("wrong_type", "out_of_range", "too_large")),
        "AT": (False, ("ISO 8601 date and time",), ("wrong_type", "invalid_timestamp")),
        "PRICE": (
            True,
            ("at most 15 digits", "at most 2 decimals", "> 0", "a multiple of 5"),
            ("missing_field", "wrong_type", "out_of_range"),
        ),
        "RATE": (False, ("rate is a share",), ("wrong_type", "out_of_range", "business_rule")),
    }
    valid = {"ID": 1, "EVEN": 2, "NAME": "n", "PRICE": 5, "CODE": "A", "KIND": "a", "AT": "2019-03-01", "RATE": 0.5}
    for field in fields(THINGS):
        assert breaches(THINGS, valid, field.name) <= set(field.reasons)
    text = "\n".join(lines(THINGS))
    assert "a rule over several fields: A thing has a name or a date: anonymous" in text
    assert "zone          Europe/Berlin, for times that name none" in text


def test_reasons_are_all_that_a_dead_letter_of_the_dataset_may_have() -> None:
    found = reasons(THINGS)
    assert found == sorted(set(found))
    assert {"anonymous", "odd_number", "business_rule", "invalid_json", "key_mismatch", "missing_key"} <= set(found)
    loaded = Dataset(name="things", contract=Thing, source=File(path="things.ndjson"), key="ID")
    assert {"key_mismatch", "missing_key", "malformed_row"}.isdisjoint(reasons(loaded))
    assert "malformed_row" in reasons(Dataset(name="things", contract=Thing, source=File(path="things.csv.gz")))


def test_dead_letter_topic_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(DatasetError, match="topic 'a b': expected"):
        KafkaTopic(topic="a", dead_letter_topic="a b")
    with pytest.raises(DatasetError, match="topic 'a': is its own dead-letter topic"):
        KafkaTopic(topic="a", dead_letter_topic="a")
    with pytest.raises(DatasetError, match="at least one partition"):
        KafkaTopic(topic="a", dead_letter_topic="b", dead_letter_partitions=0)


def test_describe_names_formats_the_column_of_schemas_and_their_reasons() -> None:
    source = KafkaTopic(topic="orders")
    plain = Dataset(name="orders", contract=create_model("Order", id=(Integer, ...)), source=source, key="id")
    avro = replace(plain, format=Avro(), key_format=JsonSchema())
    said, of_plain = "\n".join(lines(avro)), "\n".join(lines(plain))
    for text in ("Avro in Confluent's wire format", "key's format", "a JSON object in Confluent's", "_schema_id"):
        assert text in said
        assert text not in of_plain
    assert {"undecodable", "unknown_schema", "incompatible_schema"} == set(reasons(avro)) - set(reasons(plain))
