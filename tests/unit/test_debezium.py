"""Debezium's events as a dataset takes them: rows, deletions, what is ignored, and what is a dead letter."""

from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field

from headrace.contract import Identifier, Integer, Path, Text
from headrace.contracts.contract import Deletion
from headrace.contracts.rejection import Rejection
from headrace.dataset import CONTRACT_CONFIG, Child, Dataset, KafkaTopic, RedisStream
from headrace.exceptions import DatasetError
from headrace.formats import Avro, Debezium, KeyedJson, PlainText
from headrace.formats.base import Change
from tests.support.change_events import ANNE, at, envelope, key_with_schema, text, with_schema
from tests.support.schemas import Schemas

KEY = text({"id": 1})
OLD = {"id": 1, "first_name": None, "last_name": None, "email": None}  # with REPLICA IDENTITY DEFAULT


class Customer(BaseModel):
    model_config = CONTRACT_CONFIG

    id: Integer
    first_name: Text
    email: Text | None = None


def dataset(format: Debezium | None = None, **arguments: Any) -> Dataset:
    more: dict[str, Any] = {"key": "id", "contract": Customer, **arguments}
    return Dataset(name="customers", source=KafkaTopic(topic="customers"), format=format or Debezium(), **more)


def decoded(event: Any, record_key: bytes | None = KEY, **more: Any) -> Any:
    return dataset(**more).compiled.decode(record_key, text(event))


@pytest.mark.parametrize("op", ["c", "u", "r"])
@pytest.mark.parametrize("wrap", [dict, with_schema])
def test_event_with_a_row_gives_the_row_after(op: str, wrap: Any) -> None:
    key = text({"id": 1} if wrap is dict else key_with_schema({"id": 1}))
    row = decoded(wrap(envelope(op, ANNE, OLD)), key)
    assert row == [1, "Anne", "annek@noanswer.org", b'{"last_name":"Kretchmar"}']
    assert not isinstance(row, Deletion)


@pytest.mark.parametrize("wrap", [dict, with_schema])
def test_event_of_a_deletion_gives_a_row_with_its_key_alone(wrap: Any) -> None:
    key = text({"id": 1} if wrap is dict else key_with_schema({"id": 1}))
    for event, found in ((wrap(envelope("d", None, OLD)), key), (wrap(envelope("d", None, ANNE)), key)):
        row = decoded(event, found)
        assert row == [1, None, None, None]
        assert isinstance(row, Deletion)
    unkeyed = decoded(wrap(envelope("d", None, OLD)), None, keyed=False)
    assert (unkeyed, type(unkeyed)) == ([1, None, None, None], Deletion)
    tombstone = dataset().compiled.decode(key, None)
    assert (tombstone, type(tombstone)) == ([1, None, None, None], Deletion)


def test_key_of_another_row_is_a_dead_letter() -> None:
    for event in (envelope("c", ANNE), with_schema(envelope("c", ANNE))):
        found = decoded(event, text(key_with_schema({"id": 2})))
        assert isinstance(found, Rejection)
        assert found.reason == "key_mismatch"


def test_key_of_several_fields_is_compared_and_deletes() -> None:
    more: Any = {"key": ("id", "first_name")}
    fields = [{"type": "int32", "field": "id"}, {"type": "string", "field": "first_name"}]
    key = text(key_with_schema({"id": 1, "first_name": "Anne"}, fields))
    assert decoded(envelope("u", ANNE), key, **more)[:2] == [1, "Anne"]
    assert decoded(envelope("d", None, OLD), key, **more) == [1, "Anne", None, None]


def test_deletion_of_a_key_inside_a_document_is_found_there() -> None:
    class Placed(BaseModel):
        number: Annotated[Integer, Path("$.order.id")]
        city: Text = ""

    row = decoded(envelope("d", None, {"order": {"id": 7}}), None, contract=Placed, key="number", keyed=False)
    assert row == [7, None, None]


@pytest.mark.parametrize(
    ("event", "ignored"),
    [
        ({"ts_ms": 1559033904863}, "a heartbeat"),
        ({"ts_ms": 1, "ts_us": 1, "ts_ns": 1}, "a heartbeat"),
        (
            {"status": "BEGIN", "id": "571:53195829", "event_count": None, "data_collections": None, "ts_ms": 1},
            "the begin or end of a transaction",
        ),
        ({"source": {}, "databaseName": "a", "ddl": "create", "tableChanges": [], "ts_ms": 1}, "a change of a schema"),
        (envelope("m", None) | {"message": {"prefix": "x", "content": ""}}, "a logical message"),
    ],
)
def test_event_that_changes_no_row_is_ignored(event: Any, ignored: str) -> None:
    customers = dataset()
    for value in (text(event), text({"schema": {"type": "struct", "fields": []}, "payload": event})):
        assert customers.compiled.changes is not None
        assert customers.compiled.changes.ignored(value, ()) == ignored
        assert customers.filter is not None
        assert customers.filter.ignores(None, value, ())
    filter = customers.filter
    assert filter is not None
    assert not filter.ignores(KEY, text(envelope("c", ANNE)), ())
    assert not filter.ignores(KEY, None, ())
    assert not filter.ignores(KEY, b"{", ())  # what cannot be read is a dead letter


def test_condition_applies_to_rows_and_lets_deletions_pass() -> None:
    customers = dataset(where="$.first_name = 'Anne'")
    assert customers.filter is not None
    assert not customers.filter.ignores(KEY, text(envelope("u", ANNE)), ())
    assert customers.filter.ignores(KEY, text(envelope("u", ANNE | {"first_name": "Bob"})), ())
    assert not customers.filter.ignores(KEY, text(envelope("d", None, OLD)), ())


@pytest.mark.parametrize(
    ("event", "reason", "detail"),
    [
        (envelope("t", None), "truncated", "table customers was truncated"),
        (envelope("x", ANNE), "undecodable", "op is 'x', expected c, u, d, r, t or m"),
        (envelope("u", None), "undecodable", "after is null, expected the row as it is now"),
        (envelope("c", ANNE | {"id": "one"}), "wrong_type", "whole number"),
        (with_schema(envelope("c", ANNE)) | {"schema": 5}, "incompatible_schema", "expected an object"),
        (with_schema(envelope("c", ANNE), [{"type": "int33", "field": "id"}]), "incompatible_schema", "int33"),
        (with_schema(envelope("c", 5)), "undecodable", "expected an object, found int"),
    ],
)
def test_event_that_cannot_be_a_row_is_a_dead_letter(event: Any, reason: str, detail: str) -> None:
    found = decoded(event)
    assert isinstance(found, Rejection)
    assert (found.reason, detail in found.detail) == (reason, True), found


def test_broken_text_keeps_the_reasons_of_json() -> None:
    contract = dataset().compiled
    good = text(envelope("c", ANNE))
    for value, reason in (
        (good[:-1], "invalid_json"),
        (good.replace(b"Anne", b"\xff"), "invalid_utf8"),
        (good.replace(b"Anne", b"A\\u0000"), "nul_character"),
        (good.replace(b'"id":1,', b'"id":1,"id":2,'), "duplicate_key"),
        (b"5", "wrong_type"),
    ):
        found = contract.decode(KEY, value)
        assert isinstance(found, Rejection)
        assert found.reason == reason


def test_positions_are_those_of_each_connector() -> None:
    for source, position in (
        (at(24023128, 24023119), (0, 24023119, 24023128)),
        (at(30) | {"snapshot": "last"}, (0, 30, 30)),
        (at(30), (0, 0, 30)),
        ({"sequence": None, "lsn": 7}, (0, 7)),
        ({"lsn": None}, None),
        ({"lsn": "x"}, None),
        ({"lsn": None, "file": "mysql-bin.000003", "pos": 154, "row": 2}, (0, 3, 154, 2)),
        ({"lsn": None, "commit_lsn": "00000027:00000ac0:0002", "change_lsn": "00000027:00000ab0:0001"},
         (0, 39, 2752, 2, 39, 2736, 1, 0)),
        ({"lsn": None, "scn": "2122185", "commit_scn": "2122190"}, (0, 2122190, 2122185)),
        ({"lsn": None, "ord": 31, "ts_ms": 1558965508000}, (0, 1558965508000, 31)),
    ):  # fmt: skip
        assert dataset().compiled.decoder.decode(text(envelope("c", ANNE, **source)), ()).change == Change(
            "c", position
        )
    by_offset = dataset(Debezium(versions="offset")).compiled
    assert by_offset.decoder.decode(text(envelope("c", ANNE)), ()).change == Change("c", None)
    assert not by_offset.has_positions


def test_gtids_tell_the_binlogs_of_two_servers_apart() -> None:
    def log(gtid: str) -> int:
        event = envelope("c", ANNE, lsn=None, file="b.7", pos=1, gtid=gtid)
        change = dataset().compiled.decoder.decode(text(event), ()).change
        assert change is not None
        assert change.position is not None
        return change.position[0]

    assert log("24bc7850-2c16-11e6-a073-0242ac110002:41") == log("24bc7850-2c16-11e6-a073-0242ac110002:42")
    assert log("24bc7850-2c16-11e6-a073-0242ac110002:41") != log("35bc7850-2c16-11e6-a073-0242ac110002:41")


def test_flat_record_is_the_row_and_its_flags_delete_it() -> None:
    flat = ANNE | {"__deleted": "false", "__op": "u", "__source_lsn": 9}
    row = decoded(flat)
    assert row[:3] == [1, "Anne", "annek@noanswer.org"]
    contract = dataset().compiled
    assert contract.decoder.decode(text(flat), ()).change == Change("u", (0, 9))
    for flags in ({"__deleted": "true"}, {"__deleted": True}, {"__op": "d"}):
        row = decoded(ANNE | flags)
        assert (row, type(row)) == ([1, None, None, None], Deletion)
    assert decoded(ANNE)[:2] == [1, "Anne"]
    schema = {"schema": with_schema({})["schema"]["fields"][1], "payload": ANNE}
    assert decoded(schema)[:2] == [1, "Anne"]
    assert isinstance(decoded({"schema": None, "payload": None}), Deletion)


@pytest.mark.parametrize("wrap", [dict, with_schema])
def test_value_that_did_not_change_and_is_not_sent_overwrites_nothing(wrap: Any) -> None:
    absent = "__debezium_unavailable_value"
    found = decoded(wrap(envelope("u", ANNE | {"email": absent})))
    assert isinstance(found, Rejection)
    assert (found.reason, found.json_path) == ("unavailable_value", "$.email")
    assert "REPLICA IDENTITY FULL" in found.detail
    # a field that the contract does not name; a value that the row before has
    assert decoded(wrap(envelope("u", ANNE | {"last_name": absent})))[3] is None
    assert decoded(wrap(envelope("u", ANNE | {"email": absent}, ANNE)))[2] == "annek@noanswer.org"
    other = Debezium(unavailable="?")
    assert isinstance(decoded(wrap(envelope("u", ANNE | {"email": "?"})), format=other), Rejection)
    assert decoded(wrap(envelope("u", ANNE | {"email": absent})), format=other)[2] == absent


def test_elements_that_are_not_sent_are_those_of_the_row_before_or_reject_the_record() -> None:
    class Item(BaseModel):
        number: Integer

    absent, before = "__debezium_unavailable_value", ANNE | {"items": [{"number": 7}]}
    children = (Child(name="items", contract=Item, explode="$.items"),)
    for placeholder in (absent, [absent]):
        event = envelope("u", ANNE | {"items": placeholder})
        found = decoded(event, children=children)
        assert isinstance(found, Rejection)
        assert (found.reason, found.json_path) == ("unavailable_value", "$.items")
        assert decoded(event | {"before": before}, children=children).elements == [[[7, None]]]


def test_fields_of_the_envelope_are_added_where_they_are_wanted() -> None:
    class Traced(Customer):
        op: Identifier = Field(validation_alias="__op")
        source_ts_ms: Integer = Field(validation_alias="__source_ts_ms")

    format = Debezium(add_fields=("op", "source.ts_ms", "transaction.id"))
    for wrap in (dict, with_schema):
        row = decoded(wrap(envelope("u", ANNE)), contract=Traced, format=format)
        assert row[3:5] == ["u", 1559033904863]


def test_document_that_a_validator_empties_is_whole_when_it_is_asked_for_again() -> None:
    contract, value = dataset().compiled, text(with_schema(envelope("c", ANNE)))
    contract.decoder.decode(value, ()).document.clear()
    assert contract.decode(text(key_with_schema({"id": 1})), value) == [
        1,
        "Anne",
        "annek@noanswer.org",
        b'{"last_name":"Kretchmar"}',
    ]


@pytest.mark.parametrize("wrap", [dict, with_schema])
def test_fast_path_writes_the_row_that_the_contract_gives(wrap: Any) -> None:
    customers = dataset()
    assert customers.copy_line_binder is not None
    make_line = customers.copy_line_binder(2, 0, UUID(int=7))
    key, value = KEY, text(wrap(envelope("u", ANNE)))
    line = make_line(5, "2026-01-01", key, value, "\\N")
    assert line is not None
    cells = line.removesuffix("\n").split("\t")
    assert cells[:6] == ["1", "Anne", "annek@noanswer.org", "2", "0", "5"]
    assert cells[6:] == [
        *("2026-01-01", r"\\x7b226964223a317d", r"\N", "f", '{"last_name":"Kretchmar"}', str(UUID(int=7))),
        *("{0,24023119,24023128}", "u"),
    ]
    assert make_line(5, "2026-01-01", text({"id": 2}), value, "\\N") is None
    for event in (envelope("d", None, OLD), envelope("t", None), envelope("u", ANNE | {"email": 5.5})):
        assert make_line(5, "2026-01-01", key, text(wrap(event)), "\\N") is None


def test_mongodb_document_is_the_text_in_its_text() -> None:
    event = envelope("c", '{"id":1,"first_name":"Anne"}', connector="mongodb")
    assert decoded(event)[:2] == [1, "Anne"]


def test_avro_event_is_read_by_its_schema_and_the_key_beside_it() -> None:
    row = {"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "int"},
        {"name": "first_name", "type": "string"},
    ]}  # fmt: skip
    source = {"type": "record", "name": "Source", "fields": [{"name": "lsn", "type": ["null", "long"]}]}
    schema = {"type": "record", "name": "Envelope", "fields": [
        {"name": "before", "type": ["null", row]},
        {"name": "after", "type": ["null", "Value"]},
        {"name": "source", "type": source},
        {"name": "op", "type": "string"},
    ]}  # fmt: skip
    key = {"type": "record", "name": "Key", "fields": [{"name": "id", "type": "int"}]}
    contract = dataset(Debezium(Avro(schemas=Schemas({1: schema, 2: key})))).compiled
    created, deleted = b"\0\0\0\0\1\0\2\x0a\x08Anne\2\x12\2c", b"\0\0\0\0\1\2\x0a\0\0\2\x14\2d"
    assert contract.decode(b"\0\0\0\0\2\x0a", created) == [5, "Anne", None, None]
    assert contract.decoder.decode(created, ()).change == Change("c", (0, 9))
    assert contract.decoder.schema_id(created, ()) == 1
    found = contract.decode(b"\0\0\0\0\2\x0a", deleted)
    assert isinstance(found, Deletion)
    assert found == [5, None, None, None]


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda: Debezium(KeyedJson()), "format is keyed_json, expected one of json, json_schema, avro, protobuf"),
        (lambda: Debezium(PlainText()), "format is text, expected one of"),
        (lambda: Debezium(Debezium()), "format is debezium"),
        (lambda: Debezium(versions="lsn"), "versions is 'lsn', expected 'position' or 'offset'"),  # type: ignore[arg-type]
        (lambda: Debezium(add_fields="op"), "expected a tuple of names"),  # type: ignore[arg-type]
        (lambda: Debezium(unavailable=""), "unavailable is empty"),
    ],
)
def test_format_with_wrong_parameters_is_refused(make: Any, fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        make()


def test_change_events_come_from_topics_alone() -> None:
    with pytest.raises(DatasetError, match="format is debezium, expected one of documents: only topics have change"):
        Dataset(name="customers", contract=Customer, source=RedisStream(stream="customers"), format=Debezium())
