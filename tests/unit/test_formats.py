"""One suite for all formats: what each promises in `headrace.formats.base`, without a registry's server."""

import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, create_model

from headrace.contract import Contract, Identifier, Integer
from headrace.contracts.reasons import Reason
from headrace.contracts.rejection import Rejection
from headrace.dataset import CONTRACT_CONFIG
from headrace.exceptions import DatasetError
from headrace.formats import Avro, Debezium, Json, JsonSchema, KeyedJson, PlainText, Protobuf
from headrace.formats.base import Decoded, Fault, Format, Undecodable
from headrace.formats.registry import JSON_SCHEMA, PROTOBUF, SchemaText
from tests.support.change_events import envelope, text, with_schema
from tests.support.schemas import Schemas

SEED = 20_261_126
ORDER = {"type": "record", "name": "Order", "fields": [
    {"name": "id", "type": "long"}, {"name": "name", "type": "string"},
]}  # fmt: skip
AVRO = Avro(schemas=Schemas({1: ORDER}))
PROTO = SchemaText(PROTOBUF, 'syntax = "proto3"; message Order { int64 id = 1; }', {})
PROTOBUFS = Protobuf(schemas=Schemas({1: PROTO}))
JSON_SCHEMAS = JsonSchema(schemas=Schemas({1: SchemaText(JSON_SCHEMA, "{}", {})}))
# a format, a value, what it decodes to, and values that are none of it
SAMPLES: list[tuple[Format, bytes, Decoded, dict[bytes, Fault]]] = [
    (Json(), b'{"id":1}', Decoded('{"id":1}'), {b'{"id":"\xff"}': Fault.INVALID_UTF8}),
    (KeyedJson(), b'7|{"id":1}', Decoded('{"id":1}', b"7"), {b"7|\xff": Fault.INVALID_UTF8}),
    (KeyedJson("#"), b' {"id":"#"}', Decoded(' {"id":"#"}'), {}),
    (PlainText(), "ä".encode(), Decoded({"value": "ä"}), {b"\xff": Fault.INVALID_UTF8}),
    (PlainText("line"), b"", Decoded({"line": ""}), {}),
    (
        Debezium(),
        text(envelope("c", {"id": 1})),
        Decoded('{"id":1}'),
        {
            b"{": Fault.INVALID_JSON,
            b'{"id":"\xff"}': Fault.INVALID_UTF8,
            text(envelope("t", None)): Fault.TRUNCATED,
            text({"ts_ms": 1}): Fault.UNDECODABLE,
        },
    ),
    (
        Debezium(),
        text(with_schema(envelope("u", {"id": 1}))),
        Decoded({"id": 1}),
        {text(with_schema(envelope("u", 1))): Fault.UNDECODABLE},
    ),
    (
        JSON_SCHEMAS,
        b'\0\0\0\0\1{"id":1}',
        Decoded('{"id":1}'),
        {
            b"": Fault.UNDECODABLE,
            b"\0\0\0\0\2{}": Fault.UNKNOWN_SCHEMA,
            b"\0\0\0\0\1\xff": Fault.INVALID_UTF8,
        },
    ),
    (
        PROTOBUFS,
        b"\0\0\0\0\1\0\x08\5",
        Decoded({"id": 5}),
        {
            b"": Fault.UNDECODABLE,
            b"\0\0\0\0\2\0": Fault.UNKNOWN_SCHEMA,
            b"\0\0\0\0\1\0\x08": Fault.UNDECODABLE,
        },
    ),
    (
        AVRO,
        b"\0\0\0\0\1\x0a\x06abc",
        Decoded({"id": 5, "name": "abc"}),
        {
            b"": Fault.UNDECODABLE,
            b"\0\0\0\0\2\x0a": Fault.UNKNOWN_SCHEMA,
            b"\0\0\0\0\1\x0a": Fault.UNDECODABLE,
        },
    ),
]
NAMES = [f"{type(sample[0]).__name__}{number}" for number, sample in enumerate(SAMPLES)]


def _mutations(value: bytes, rng: random.Random) -> Iterator[bytes]:
    """Damaged copies of a value, and bytes of no format."""
    for _ in range(150):
        damaged = bytearray(value)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(damaged) + 1)
            damaged[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        yield bytes(damaged)
        yield rng.randbytes(rng.randrange(40))


@pytest.mark.parametrize(("format", "value", "document", "broken"), SAMPLES, ids=NAMES)
def test_format_decodes_its_own_and_says_why_it_decodes_no_other(
    format: Format, value: bytes, document: Decoded, broken: dict[bytes, Fault]
) -> None:
    decoder = format.decoder()
    assert decoder.is_known(value) is not format.has_schema_ids
    assert decoder.decode(value, ())[:2] == document[:2]
    assert decoder.decode(value, ()).schema_id == decoder.schema_id(value, ())
    assert decoder.is_known(value)
    for damaged, fault in broken.items():
        with pytest.raises(Undecodable) as caught:
            decoder.decode(damaged, ())
        assert caught.value.fault is fault
        assert Reason[fault.name]


@pytest.mark.parametrize(("format", "value", "document", "broken"), SAMPLES, ids=NAMES)
def test_format_given_any_bytes_raises_nothing_but_undecodable(
    format: Format, value: bytes, document: Decoded, broken: dict[bytes, Fault]
) -> None:
    decoder, rng = format.decoder(), random.Random(SEED)
    outcomes = set()
    for damaged in _mutations(value, rng):
        found = decoder.schema_id(damaged, ())
        assert (found is None) or format.has_schema_ids
        try:
            decoder.decode(damaged, ())
            outcomes.add("decoded")
        except Undecodable as error:
            outcomes.add(error.fault.name if error.detail else "no detail")
        with suppress(Undecodable):
            assert decoder.schema_name(damaged, ()) is None or format.has_schema_ids
    assert outcomes - {"decoded"}  # the damage did some
    assert "no detail" not in outcomes


@pytest.mark.parametrize("format", [sample[0] for sample in SAMPLES], ids=NAMES)
def test_format_is_a_value_that_describes_itself_in_a_line(format: Format) -> None:
    assert replace(format) == format  # type: ignore[type-var]
    assert format.description == format.description.strip()
    assert "\n" not in format.description
    assert format.name.isidentifier()


def test_plain_text_without_a_field_is_refused() -> None:
    with pytest.raises(DatasetError, match="PlainText: field is '', expected the name"):
        PlainText("")


def _contract(key_format: Format | None, **fields: Any) -> Contract:
    model = create_model("Made", __config__=CONTRACT_CONFIG, **fields)
    return Contract(model, key="id", key_format=key_format)


@pytest.mark.parametrize(
    ("key_format", "key"),
    [
        (None, b"5"),
        (Json(), b"5"),
        (Json(), b'{"id":5}'),
        (Json(), b'{"number":"5"}'),
        (PlainText(), b"5"),
    ],
)
def test_contract_compares_a_key_of_its_own_format_with_the_field(key_format: Format | None, key: bytes) -> None:
    contract = _contract(key_format, id=(Integer, ...), name=(Identifier | None, None))
    assert contract.decode(key, b'{"id":5,"name":"a"}') == [5, "a", None]
    assert contract.decode(key, None) == [5, None, None]
    mismatch = contract.decode(key, b'{"id":6}')
    assert isinstance(mismatch, Rejection)
    assert (mismatch.reason, mismatch.json_path) == (Reason.KEY_MISMATCH, "$.id")
    absent = contract.decode(None, b'{"id":6}')
    assert isinstance(absent, Rejection)
    assert absent.reason == Reason.KEY_MISMATCH


def test_contract_whose_validator_fails_on_a_key_rejects_the_record() -> None:
    def only_ours(value: int) -> int:
        return {5: 5}[value]  # a KeyError, which pydantic does not know

    contract = _contract(Json(), id=(Annotated[int, AfterValidator(only_ours)], ...))
    assert contract.decode(b"5", b'{"id":5}') == [5, None]
    for value in (b'{"id":5}', None):
        assert isinstance(contract.decode(b"6", value), Rejection)


@pytest.mark.parametrize("key", [b'{"id":5,"other":1}{', b"{}", b'{"a":5,"b":5}', b"[", b'"x"', b"null", b"[5]"])
def test_contract_given_a_json_key_that_is_none_rejects(key: bytes) -> None:
    contract = _contract(Json(), id=(Integer, ...))
    for value in (b'{"id":5}', None):
        found = contract.decode(key, value)
        assert isinstance(found, Rejection), (key, value)
        assert found.reason == Reason.KEY_MISMATCH
