"""Rows that the contract accepts and Postgres refuses: only they become dead letters."""

import re
from base64 import b64encode
from random import Random
from typing import Any
from uuid import UUID

import psycopg
import pytest
from kafka import KafkaProducer
from psycopg.sql import Identifier

from headrace.contracts.reasons import Reason
from headrace.exceptions import CheckpointMoved, DatabaseError, DatasetError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import RunOptions, drain_plan, plan
from headrace.postgres.copy import find_rejected
from tests.support.interrupts import at
from tests.support.stage import Stage

# NOTE has no limit, and somebody put an index on it: 3,000 characters that do not compress are beyond a btree's page
DECLARATION = """
from headrace.contract import Identifier
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic
from pydantic import BaseModel

class Note(BaseModel):
    model_config = CONTRACT_CONFIG
    ID: Identifier
    NOTE: str

DATASET = Dataset(name="notes", contract=Note, source=KafkaTopic(topic={topic!r}), key="ID")
"""
REFUSED = 'index row size .* exceeds btree version 4 maximum 2704 for index "notes_note"'


@pytest.fixture
def notes(stage: Stage, topic: str) -> Stage:
    """The test's own topic as a dataset whose table refuses long notes."""
    (stage.deployment.settings.datasets_dir / "notes.py").write_text(DECLARATION.format(topic=topic))
    plan(stage.deployment, stage.deployment.dataset("notes"))
    stage.execute("create index notes_note on staging.notes (note)")
    return stage


def _value(number: int, long: bool) -> bytes:
    note = b64encode(Random(number).randbytes(3_000)).decode() if long else "short"
    return f'{{"ID":"n-{number}","NOTE":"{note}"}}'.encode()


def _produce(stage: Stage, topic: str, numbers: range, long: set[int]) -> dict[int, bytes]:
    """Send notes to partition 0, so that a number counted from the first one is an offset."""
    values = {number: _value(number, number in long) for number in numbers}
    producer = KafkaProducer(**stage.deployment.kafka())
    for number, value in values.items():
        producer.send(topic, key=b"n-%d" % number, value=value, headers=[("n", b"%d" % number)], partition=0)
    producer.flush()
    producer.close()
    return values


def _state(stage: Stage) -> tuple[Any, ...]:
    return (
        stage.value("select count(*) from staging.notes"),
        stage.value("select count(*) from headrace.dead_letters"),
        stage.value("select count(*) from headrace.batches"),
        stage.value("select sum(next_offset)::int from headrace.checkpoints where dataset = 'notes'"),
    )


@pytest.mark.parametrize("long", [{0}, {199}, {399}, {3, 4, 5, 57, 120, 398}, set(range(0, 400, 7))], ids=len)
def test_drain_of_rows_that_postgres_refuses_dead_letters_them_and_commits_the_rest(
    notes: Stage, topic: str, long: set[int]
) -> None:
    values = _produce(notes, topic, range(400), long)
    _, result = drain_dataset(notes.deployment, "notes")
    assert (result.staged, result.dead) == (400 - len(long), len(long))
    dead = notes.query('select "offset", key, value, reason, detail, json_path, headers from headrace.dead_letters')
    assert {offset for offset, *_ in dead} == long
    for offset, key, value, reason, detail, json_path, headers in dead:
        assert (key, value) == (b"n-%d" % offset, values[offset])
        assert (reason, json_path, headers) == (Reason.REJECTED_BY_POSTGRES, "$", [{"key": "n", "value": str(offset)}])
        assert re.fullmatch(REFUSED, detail)
    staged = {offset for (offset,) in notes.query("select _offset from staging.notes")}
    assert staged == set(values) - long
    ledger = notes.query("select start_offset, end_offset, staged, dead from headrace.batches order by start_offset")
    assert ledger == [
        (start, start + 200, 200 - len(part), len(part))
        for start in (0, 200)
        for part in [{offset for offset in long if start <= offset < start + 200}]
    ]


def test_drain_of_a_batch_of_one_refused_row_dead_letters_it(notes: Stage, topic: str) -> None:
    _produce(notes, topic, range(1), {0})
    _, result = drain_dataset(notes.deployment, "notes")
    assert (result.staged, result.dead) == (0, 1)


def test_drain_whose_every_row_is_refused_blames_the_server(notes: Stage, topic: str) -> None:
    _produce(notes, topic, range(20), set(range(20)))
    with pytest.raises(DatabaseError, match=rf"notes\[0\] \[0, 20\): postgres stored none of 20 rows: {REFUSED}"):
        drain_dataset(notes.deployment, "notes")
    assert _state(notes) == (0, 0, 0, 0)
    notes.execute("drop index staging.notes_note")
    _, result = drain_dataset(notes.deployment, "notes")
    assert (result.staged, result.dead) == (20, 0)


def test_drain_with_a_refused_tombstone_counts_it_as_dead(notes: Stage, topic: str) -> None:
    notes.execute(
        "create function refuse() returns trigger language plpgsql as "
        "$$begin if new._deleted then raise sqlstate '22000' using message = E'no\\ntombstones'; end if; "
        "return new; end$$",
        "create trigger refuse before insert on staging.notes for each row execute function refuse()",
    )
    _produce(notes, topic, range(10), set())
    producer = KafkaProducer(**notes.deployment.kafka())
    producer.send(topic, key=b"n-3", value=None, partition=0)
    producer.flush()
    producer.close()
    _, result = drain_dataset(notes.deployment, "notes")
    assert (result.staged, result.tombstones, result.dead) == (10, 0, 1)
    assert notes.query("select key, value, detail from headrace.dead_letters") == [(b"n-3", None, "no tombstones")]


def test_drain_that_breaks_a_constraint_added_by_hand_fails_and_changes_nothing(notes: Stage, topic: str) -> None:
    _produce(notes, topic, range(20), {7})
    notes.execute("alter table staging.notes add constraint short check (length(note) < 100)")
    with pytest.raises(DatabaseError, match='violates check constraint "short"'):
        drain_dataset(notes.deployment, "notes")
    assert _state(notes) == (0, 0, 0, 0)
    notes.execute("alter table staging.notes drop constraint short")
    _, result = drain_dataset(notes.deployment, "notes")
    assert (result.staged, result.dead) == (19, 1)


@pytest.mark.parametrize("step", ["fetched", "advanced"])
@pytest.mark.parametrize(
    ("change", "found", "repair"),
    [
        ("note type bytea using note::bytea", "found bytea, expected text", "note type text using null"),
        ("note type integer using 0", "found integer, expected text", "note type text using null"),
        ("note type varchar(10)", r"found character varying\(10\), expected text", "note type text using null"),
        ("_offset type integer", "found integer, expected bigint", "_offset type bigint"),
    ],
)  # fmt: skip
def test_drain_of_a_column_retyped_meanwhile_refuses_and_dead_letters_nothing(
    notes: Stage, topic: str, step: str, change: str, found: str, repair: str
) -> None:
    if "note" in change:
        notes.execute("drop index staging.notes_note")
    _produce(notes, topic, range(20), {7})
    dataset = notes.deployment.dataset("notes")
    retype = at(step, lambda: notes.execute(f"alter table staging.notes alter column {change}"), occurrence=1)
    with pytest.raises(DatasetError, match=found):
        drain_plan(notes.deployment, dataset, plan(notes.deployment, dataset), options=RunOptions(barrier=retype))
    assert _state(notes) == (0, 0, 0, 0)
    notes.execute(f"alter table staging.notes alter column {repair}")
    _, result = drain_dataset(notes.deployment, "notes")
    assert result.staged + result.dead == 20


def test_drain_that_lost_the_race_while_its_rows_were_refused_dead_letters_nothing(notes: Stage, topic: str) -> None:
    _produce(notes, topic, range(20), {7})
    dataset = notes.deployment.dataset("notes")
    planned = plan(notes.deployment, dataset)
    with pytest.raises(CheckpointMoved):
        drain_plan(
            notes.deployment,
            dataset,
            planned,
            options=RunOptions(barrier=at("fetched", lambda: drain_dataset(notes.deployment, "notes"), occurrence=1)),
        )
    assert _state(notes) == (19, 1, 1, 20)


def test_find_rejected_names_what_the_client_cannot_write_too(notes: Stage) -> None:
    columns = [
        ("id", "text"),
        ("_generation", "integer"),
        ("_partition", "integer"),
        ("_offset", "bigint"),
        ("_batch_id", "uuid"),
    ]
    rows: list[list[Any]] = [["a", 1, 0, offset, UUID(int=offset)] for offset in range(9)]
    rows[2][0] = "nul\0"
    rows[4][0] = "\ud800"
    rows[6][3] = 2**70
    with psycopg.connect(notes.dsn) as connection:
        rejected = find_rejected(connection, Identifier("staging", "notes"), columns, rows)
    assert sorted(rejected) == [2, 4, 6]
    for rejection in rejected.values():
        assert rejection.reason == Reason.REJECTED_BY_POSTGRES
        assert rejection.detail.encode()
