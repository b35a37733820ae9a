"""Masks: what is stored in place of a value, in rows and in dead letters, and that nothing else tells it."""

import hmac
import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from pydantic import AliasChoices, BaseModel, Field, field_validator, model_validator

from headrace.contract import Identifier, Integer, Masked, Money, Numeric, Rejection, Text, Timestamp
from headrace.contracts.masks import NOT_VALID, key_id
from headrace.dataset import Dataset, KafkaTopic
from headrace.exceptions import DatasetError, SettingError
from headrace.formats import Json, KeyedJson
from headrace.record import KafkaRecord
from headrace.settings import Settings

KEY = b"0123456789abcdef"
EMAIL, CARD, SSN = "ann@example.com", "4111-2222-3333", "078-05-1120"
RAW = (EMAIL, CARD, SSN)


class Person(BaseModel):
    id: Integer
    email: Annotated[Text, Masked("hmac")]
    card: Annotated[Text, Masked("last4")] | None = None
    ssn: Annotated[Text, Field(pattern=r"^\d{3}-\d\d-\d{4}$"), Masked("drop")]
    age: Annotated[Integer, Field(ge=0)]


def dataset(contract: type[BaseModel] = Person, **options: Any) -> Dataset:
    declared: dict[str, Any] = {"source": KafkaTopic(topic="people"), "key": "id", "masking_key": KEY} | options
    return Dataset(name="people", contract=contract, **declared)


def person(**fields: Any) -> bytes:
    return json.dumps({"id": 5, "email": EMAIL, "card": CARD, "ssn": SSN, "age": 40} | fields).encode()


def mask(text: str) -> str:
    return hmac.new(KEY, text.encode(), "sha256").hexdigest()


def dead_letter(declared: Dataset, value: bytes | None, key: bytes | None = b"5") -> tuple[KafkaRecord, Rejection]:
    """The record and the rejection as headrace.dead_letters gets them."""
    rejection = declared.compiled.decode(key, value)
    assert isinstance(rejection, Rejection)
    assert declared.compiled.masks is not None
    record, rejection = declared.compiled.masks.record(KafkaRecord(0, 0, key, value, ()), rejection)
    assert isinstance(record, KafkaRecord)
    return record, rejection


def test_row_has_masks_in_place_of_values() -> None:
    row = dataset().compiled.decode(b"5", person())

    assert row == [5, mask(EMAIL), "****3333", None, 40, None]


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (Integer, ["7", 7, 7.0]),
        (Numeric, ["1.50", 1.5, "15e-1"]),
        (Timestamp, ["2024-01-01T00:00:00Z", "2024-01-01T03:00:00+03:00", "2024-01-01 00:00:00 UTC"]),
        (UUID, ["01234567-89ab-cdef-0123-456789abcdef", "0123456789ABCDEF0123456789ABCDEF"]),
    ],
)
def test_equal_values_have_equal_masks_however_they_are_written(annotation: Any, values: list[Any]) -> None:
    class Contract(BaseModel):
        field: Annotated[annotation, Masked("hmac")]

    declared = dataset(Contract, key=None)
    rows = [declared.compiled.decode(None, json.dumps({"field": value}).encode()) for value in values]

    assert all(row == rows[0] for row in rows), rows
    assert isinstance(rows[0], list)
    assert len(rows[0][0]) == 64


def test_last4_shows_nothing_of_a_short_value() -> None:
    row = dataset().compiled.decode(b"5", person(card="1234567"))

    assert isinstance(row, list)
    assert row[2] == "****"


def test_alias_that_did_not_count_is_not_kept_in_extra() -> None:
    class Contract(BaseModel):
        email: Annotated[Text, Masked("hmac")] = Field(validation_alias=AliasChoices("email", "mail"))

    row = dataset(Contract, key=None).compiled.decode(
        None, json.dumps({"email": EMAIL, "mail": EMAIL, "x": 1}).encode()
    )

    assert row == [mask(EMAIL), b'{"x":1}']


@pytest.mark.parametrize("format", [Json(), KeyedJson()])
def test_fast_path_gives_the_row_of_the_contract(format: Any) -> None:
    class Contract(BaseModel):
        id: Annotated[Identifier, Masked("hmac")]
        number: Annotated[Integer, Masked("last4")]
        note: Annotated[Text, Masked("hmac")] | None = None
        price: Annotated[Money, Masked("drop")]
        gone: Annotated[Text, Masked("drop")] = "default"

    declared = dataset(Contract, format=format)
    bind = declared.copy_line_binder
    assert bind is not None
    line_of, compared = bind(1, 0, uuid4()), 0
    for key in ("a", 'b"c', "ü"):
        for number in (1234567890, "12345678", 1):
            for note in ("n\\o\tte", None, ""):
                document = {"id": key, "number": number, "note": note, "price": 1.5, "gone": "x", "more": note}
                value = json.dumps(document).encode()
                line = line_of(3, "t", key.encode(), value, r"\N")
                row = declared.compiled.decode(key.encode(), value)
                assert isinstance(row, list)
                if line is None:
                    continue
                compared += 1
                cells = line.split("\t")
                assert cells[:5] == [r"\N" if cell is None else cell for cell in row[:5]]
                assert cells[9] == mask(key)
    assert compared >= 15


def test_fast_path_leaves_values_with_several_texts_to_the_contract() -> None:
    class Contract(BaseModel):
        at: Annotated[Timestamp, Masked("hmac")]

    assert dataset(Contract, key=None).copy_line_binder is None


def test_masked_key_is_compared_and_stored_masked() -> None:
    class Contract(BaseModel):
        email: Annotated[Identifier, Masked("hmac")]

    declared = dataset(Contract, key="email")
    masks = declared.compiled.masks
    assert masks is not None
    value = json.dumps({"email": EMAIL}).encode()

    assert declared.compiled.decode(EMAIL.encode(), value) == [mask(EMAIL), None]
    assert declared.compiled.decode(EMAIL.encode(), None) == [mask(EMAIL), None]
    assert masks.key(EMAIL.encode()) == mask(EMAIL).encode()
    other = declared.compiled.decode(SSN.encode(), value)
    assert isinstance(other, Rejection)
    assert other.reason == "key_mismatch"
    assert other.detail == "found key ***, expected email"
    assert declared.compiled.decode(None, None) == Rejection(
        "missing_key", "a tombstone without a key, expected email as its key"
    )


def test_json_key_is_stored_with_the_mask_in_it() -> None:
    class Contract(BaseModel):
        email: Annotated[Identifier, Masked("hmac")]

    declared = dataset(Contract, key="email", key_format=Json())
    assert declared.compiled.masks is not None
    key = json.dumps({"email": EMAIL, "tenant": 1}).encode()

    assert declared.compiled.decode(key, json.dumps({"email": EMAIL}).encode()) == [mask(EMAIL), None]
    assert declared.compiled.masks.key(key) == json.dumps({"email": mask(EMAIL), "tenant": 1}).replace(" ", "").encode()
    assert declared.compiled.masks.key(b"no json " + EMAIL.encode()) is None


BROKEN = {
    "another field": person(age=-1, note=EMAIL),
    "masked field": person(ssn=EMAIL),
    "wrong type": person(email=[EMAIL]),
    "escapes": person(age="\\" + EMAIL),
    "key mismatch": person(id=6),
    "no JSON": person()[:-1],
    "not UTF-8": person() + b"\xff",
    "twice": person()[:-1] + b', "email": "' + EMAIL.encode() + b'"}',
    "a list": b"[" + person() + b"]",
    "too large": person(pad="x" * 1024 * 1024),
}


@pytest.mark.parametrize("name", BROKEN)
def test_dead_letter_tells_no_masked_value(name: str) -> None:
    record, rejection = dead_letter(dataset(), BROKEN[name])

    document = json.loads(record.value) if record.value else {}
    told = f"{[document.get(name) for name in ('email', 'card', 'ssn')]} {rejection}"
    assert not [raw for raw in RAW if raw in told], told
    assert rejection.masked == ["email=hmac", "card=last4", "ssn=drop"]


def test_dead_letter_is_not_kept_where_no_field_can_be_found() -> None:
    record, rejection = dead_letter(dataset(), BROKEN["no JSON"])

    assert record.value is None
    assert rejection.detail.endswith("; the value is not kept: its masked fields cannot be found in it")


class Strict(BaseModel):
    email: Annotated[Text, Masked("hmac")]
    age: int = 0

    @field_validator("email")
    @classmethod
    def known(cls, value: str) -> str:
        if "@" not in value:
            raise ValueError(f"{value} is no address")
        return value


class Crossed(Strict):
    @model_validator(mode="after")
    def adult(self) -> "Crossed":
        if self.age < 18:
            raise ValueError(f"{self.email.upper()} is {self.age}")
        if self.age > 200:
            raise KeyError(self.email.upper())
        return self


@pytest.mark.parametrize(
    ("contract", "document", "detail"),
    [
        (Strict, {"email": SSN}, "email: found ***, business_rule: the message is not kept"),
        (Crossed, {"email": EMAIL}, "record: found ***, business_rule: the message is not kept"),
        (
            Crossed,
            {"email": EMAIL, "age": 300},
            "KeyError, whose message is not kept: the contract masks values",
        ),
    ],
)
def test_message_of_a_validator_is_not_kept(contract: Any, document: Any, detail: str) -> None:
    rejection = dataset(contract, key=None).compiled.decode(None, json.dumps(document).encode())

    assert isinstance(rejection, Rejection)
    assert rejection.reason == "business_rule"
    assert rejection.detail == detail


def test_masked_dead_letter_replays_to_the_row_of_its_record() -> None:
    class Lenient(Person):
        age: Integer

    value = person(age=-1, more=[1.50])
    record, rejection = dead_letter(dataset(), value)

    again = dataset(Lenient).decode_masked(record, rejection)

    assert again == dataset(Lenient).compiled.decode(b"5", value)
    assert isinstance(again, list)


def test_masked_dead_letter_whose_masked_value_was_not_valid_is_rejected_again() -> None:
    record, rejection = dead_letter(dataset(), person(ssn="unknown"))

    assert record.value is not None
    assert json.loads(record.value)["ssn"] == NOT_VALID
    again = dataset().decode_masked(record, rejection)
    assert isinstance(again, Rejection)
    assert "only a reload can judge it again" in again.detail


def test_masked_dead_letter_is_not_judged_by_a_contract_that_masks_otherwise() -> None:
    class Unmasked(BaseModel):
        id: Integer

    record, rejection = dead_letter(dataset(), person(age=-1))

    assert dataset(Unmasked).decode_masked(record, rejection) is rejection


def test_masked_dead_letter_is_not_judged_by_validators_of_several_fields() -> None:
    declared = dataset(Crossed, key=None)
    record, rejection = dead_letter(declared, json.dumps({"email": EMAIL, "age": "x"}).encode(), None)

    assert declared.decode_masked(record, rejection) is rejection


class Fast(BaseModel):
    email: Annotated[Text, Masked("hmac")]


def test_missing_key_is_an_error_and_no_dead_letter() -> None:
    declared = dataset(masking_key=None)

    with pytest.raises(SettingError, match=r"HEADRACE_MASKING_KEY: not set, expected the key by which people.email"):
        declared.require_masking_key()
    with pytest.raises(SettingError, match="HEADRACE_MASKING_KEY: not set"):
        declared.compiled.decode(b"5", person())
    fast = dataset(Fast, key=None, masking_key=None)
    assert fast.copy_line_binder is not None
    assert fast.copy_line_binder(1, 0, uuid4())(0, "t", None, person(), "h") is None


def test_short_key_is_refused_without_telling_it() -> None:
    with pytest.raises(SettingError, match="found 5 characters, expected at least 16") as refused:
        dataset(masking_key=None).connected(Settings(masking_key="kanal"))
    assert "kanal" not in str(refused.value)
    assert key_id(KEY) != key_id(KEY + b"x")


@pytest.mark.parametrize(
    ("annotation", "key", "fault"),
    [
        (Annotated[dict[str, Any], Masked("hmac")], None, r"field 'field' is jsonb and Masked\(\"hmac\"\)"),
        (Annotated[float, Masked("hmac")], None, r"use Masked\(\"drop\"\)"),
        (Annotated[datetime, Masked("last4")], None, "expected one of text"),
        (list[Annotated[str, Masked("drop")]], None, "has a Masked inside it, which would hide nothing"),
        (Person, None, "has a Masked inside it"),
        (Annotated[Identifier, Masked("last4")], "field", 'which tells no entities apart; expected "hmac"'),
        (Annotated[Decimal, Masked("hmac"), Masked("drop")], None, "is masked in 2 ways"),
    ],
)
def test_mask_that_would_hide_nothing_is_refused(annotation: Any, key: str | None, fault: str) -> None:
    class Contract(BaseModel):
        field: annotation

    with pytest.raises(DatasetError, match=fault):
        _ = dataset(Contract, key=key).compiled


def test_unknown_mask_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"Masked\('sha1'\): expected one of 'hmac', 'drop', 'last4'"):
        Masked("sha1")  # type: ignore[arg-type]
