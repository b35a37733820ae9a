"""Fields that are not under a name of the document, and keys of several fields."""

import hmac
import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from headrace.contract import Header, Identifier, Integer, Key, Masked, Path, Rejection, Text
from headrace.dataset import Dataset, File, KafkaTopic
from headrace.exceptions import DatasetError
from headrace.formats import Json, KeyedJson, PlainText
from headrace.monitor.rules import fields
from headrace.record import KafkaRecord


class Order(BaseModel):
    id: Annotated[Integer, Path("$.order.id")]
    city: Annotated[Text, Path("$.order.address['home town']")] | None = None
    trace: Annotated[Text, Header("trace")] | None = None
    retries: Annotated[Integer, Header("retries")] = 0
    tenant: Annotated[Identifier, Key("$.tenant")]
    note: Text = ""


def dataset(contract: type[BaseModel] = Order, **options: Any) -> Dataset:
    declared: dict[str, Any] = {"source": KafkaTopic(topic="orders")} | options
    return Dataset(name="orders", contract=contract, **declared)


def decoded(declared: Dataset, document: Any, key: Any = None, headers: Any = ()) -> Any:
    raw = key if key is None or isinstance(key, bytes) else json.dumps(key).encode()
    value = None if document is None else json.dumps(document).encode()
    return declared.compiled.decode(raw, value, headers)


DOCUMENT = {"order": {"id": "5", "address": {"home town": "Ulm"}, "more": [1]}, "note": "n", "other": 1}


def test_fields_come_from_paths_headers_and_the_key() -> None:
    headers = [("trace", b"a"), ("retries", b"3"), ("trace", "\u00fc".encode())]

    row = decoded(dataset(), DOCUMENT, {"tenant": "t", "x": 1}, headers)

    # what is left of outer objects is kept, and what is left empty is not
    assert row == [5, "Ulm", "\u00fc", 3, "t", "n", b'{"order":{"more":[1]},"other":1}']


def test_absent_places_take_defaults() -> None:
    row = decoded(dataset(), {"order": {"id": 1, "address": None}}, {"tenant": "t"})

    assert row == [1, None, None, 0, "t", "", b'{"order":{"address":null}}']


@pytest.mark.parametrize(
    ("document", "key", "headers", "reason", "path", "detail"),
    [
        ({"order": {}}, {"tenant": "t"}, (), "missing_field", "$.order.id", "order.id: missing"),
        ({"order": [5]}, {"tenant": "t"}, (), "missing_field", "$.order.id", "order.id: missing"),
        ({"order": {"id": "x"}}, {"tenant": "t"}, (), "wrong_type", "$.order.id", "order.id: found 'x', expected"),
        ({"order": {"id": 1}}, {}, (), "missing_field", "$.key.tenant", "key.tenant: missing"),
        ({"order": {"id": 1}}, None, (), "missing_field", "$.key.tenant", "key.tenant: missing"),
        ({"order": {"id": 1}}, b"{", (), "invalid_json", "key", "the record's key: "),
        (
            {"order": {"id": 1}},
            {"tenant": "t"},
            [("retries", b"x")],
            "wrong_type",
            "$.headers.retries",
            "headers.retries: found 'x'",
        ),
        (
            {"order": {"id": 1}},
            {"tenant": "t"},
            [("trace", b"\xff")],
            "invalid_utf8",
            "headers.trace",
            "header 'trace'",
        ),
        ({"order": {"id": 1}}, {"tenant": "t"}, [("trace", b"\0")], "nul_character", "headers.trace", "header 'trace'"),
    ],
)
def test_rejection_names_the_place(document: Any, key: Any, headers: Any, reason: str, path: str, detail: str) -> None:
    found = decoded(dataset(), document, key, headers)

    assert isinstance(found, Rejection)
    assert (found.reason, found.json_path) == (reason, path)
    assert found.detail.startswith(detail), found.detail


def test_outer_field_of_the_contract_keeps_what_is_inside_it() -> None:
    class Contract(BaseModel):
        id: Annotated[Integer, Path("$.order.id")]
        order: dict[str, Any]

    assert decoded(dataset(Contract), {"order": {"id": 1, "x": 2}}) == [1, b'{"id":1,"x":2}', None]


def test_whole_key_is_text_without_a_format() -> None:
    class Contract(BaseModel):
        id: Annotated[Integer, Key()]

    declared = dataset(Contract, key="id")
    assert decoded(declared, {"x": 1}, b"7") == [7, b'{"x":1}']
    assert decoded(declared, None, b"7") == [7, None]
    assert decoded(declared, {}, b"x").reason == "wrong_type"


def test_paths_work_on_documents_of_other_formats() -> None:
    class Contract(BaseModel):
        text: Annotated[Text, Path("$.line")]
        tenant: Annotated[Identifier, Key("$.tenant")]

    declared = dataset(Contract, format=PlainText(field="line"), key_format=PlainText(field="tenant"))

    assert declared.compiled.decode(b"t", b"hello", ()) == ["hello", "t", None]


class Part(BaseModel):
    tenant: Identifier
    id: Annotated[Integer, Field(validation_alias="ID")]
    more: int = 0


def test_key_of_several_fields_is_compared_field_by_field() -> None:
    declared = dataset(Part, key=("tenant", "id"))
    document = {"tenant": "t", "ID": 1}

    assert decoded(declared, document, {"ID": "1", "tenant": "t", "version": 3}) == ["t", 1, 0, None]
    other = decoded(declared, document, {"ID": 2, "tenant": "t"})
    assert (other.reason, other.json_path) == ("key_mismatch", "$.id")
    assert other.detail == "found id 2 in the key, expected 1"
    assert decoded(declared, document, {"tenant": "t"}).detail == "the key has no id, expected all of its fields"
    assert decoded(declared, document, {"tenant": "t", "ID": "x"}).detail == "found 'x', no id, in the key"
    assert decoded(declared, document).reason == "key_mismatch"
    assert decoded(declared, document, b"no json").reason == "invalid_json"
    assert decoded(dataset(Part, key=("tenant", "id"), keyed=False), document) == ["t", 1, 0, None]


def test_tombstone_has_all_fields_of_its_key() -> None:
    declared = dataset(Part, key=("tenant", "id"))

    assert decoded(declared, None, {"tenant": "t", "ID": 5}) == ["t", 5, None, None]
    assert decoded(declared, None, {"tenant": "t"}).reason == "key_mismatch"
    assert decoded(declared, None).detail == "a tombstone without a key, expected tenant and id as its key"


def test_key_of_several_fields_may_come_from_the_key_alone() -> None:
    class Contract(BaseModel):
        tenant: Annotated[Identifier, Key("$.tenant")]
        id: Integer

    declared = dataset(Contract, key=("tenant", "id"))

    assert decoded(declared, {"id": 1}, {"tenant": "t", "id": 1}) == ["t", 1, None]
    assert decoded(declared, None, {"tenant": "t", "id": 1}) == ["t", 1, None]
    assert declared.key_columns == ("tenant", "id")


def test_masked_path_is_masked_in_rows_and_dead_letters() -> None:
    class Contract(BaseModel):
        email: Annotated[Text, Path("$.who.email"), Masked("hmac")]
        age: Integer

    declared = dataset(Contract, masking_key=b"0123456789abcdef")
    mask = hmac.new(b"0123456789abcdef", b"a@example.com", "sha256").hexdigest()
    who = {"email": "a@example.com", "name": "A"}

    assert decoded(declared, {"who": who, "age": 1}) == [mask, 1, b'{"who":{"name":"A"}}']
    rejection = decoded(declared, {"who": who, "age": "x"})
    assert declared.compiled.masks is not None
    value = json.dumps({"who": who, "age": "x"}).encode()
    record, rejection = declared.compiled.masks.record(KafkaRecord(0, 0, None, value, ()), rejection)
    assert json.loads(record.value or b"") == {"who": {"email": mask, "name": "A"}, "age": "x"}
    assert "a@example.com" not in rejection.detail

    class Lenient(Contract):
        age: Text  # type: ignore[assignment]

    again = dataset(Lenient, masking_key=b"0123456789abcdef")
    assert again.decode_masked(record, rejection) == again.compiled.decode(None, value)


class InHeader(BaseModel):
    field: Annotated[Text, Header("h"), Masked("drop")]


class Inside(BaseModel):
    who: dict[str, Any]
    field: Annotated[Text, Path("$.who.email"), Masked("drop")]


class Twice(BaseModel):
    one: Annotated[Text, Path("$.a.b")]
    two: Annotated[Text, Path("$.a.b")]


class Aliased(BaseModel):
    one: Annotated[Text, Path("$.a.b"), Field(validation_alias="x")]


class Long(BaseModel):
    a: Identifier
    b: Identifier
    c: Identifier


@pytest.mark.parametrize(
    ("contract", "options", "fault"),
    [
        (InHeader, {}, "is masked, and _headers holds its value as it came"),
        (Inside, {}, "is masked, and is inside another field"),
        (Twice, {}, r"field 'two' reads '\$.a.b', as field 'one' does; expected two names"),
        (Aliased, {}, "has an alias and Path, expected one of the two"),
        (Long, {"key": ("a", "b", "c")}, "the key's texts have up to 765 characters together, expected at most 510"),
        (Part, {"key": ("tenant", "nothing")}, "key 'nothing' is not a field"),
        (Part, {"key": ("tenant", "more")}, "key 'more' is bigint, optional; expected a required whole number"),
        (Part, {"key": ("tenant", "id"), "format": KeyedJson()}, "the format has keys that are text before"),
        (Order, {"source": File(path="x.ndjson")}, "field 'trace' is in a header, which records of a file do not have"),
    ],
)
def test_places_that_cannot_be_are_refused(contract: type[BaseModel], options: Any, fault: str) -> None:
    with pytest.raises(DatasetError, match=fault):
        _ = dataset(contract, **options).compiled


@pytest.mark.parametrize("path", ["customer.id", "$.a[0].b", "$..a", "$.", "$"])
def test_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(DatasetError, match="expected"):
        Path(path)


def test_description_names_places() -> None:
    found = {field.name: field.constraints for field in fields(dataset())}

    assert found["id"][-1] == "at $.order.id"
    assert found["trace"][-1] == "at $.headers.trace"
    assert found["tenant"][-1] == "at $.key.tenant"


def test_contract_with_places_has_no_fast_path() -> None:
    assert dataset().copy_line_binder is None
    assert dataset(Part, key=("tenant", "id"), key_format=Json()).copy_line_binder is None
