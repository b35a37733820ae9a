"""JSON with a schema's id before it: read as JSON is, by the fast way and by the contract."""

import pytest
from pydantic import create_model

from headrace.contract import Contract, Identifier, Integer, Numeric
from headrace.contracts.copy_text import compile_lines
from headrace.contracts.rejection import Rejection
from headrace.dataset import CONTRACT_CONFIG
from headrace.exceptions import RegistryUnavailable
from headrace.formats import Json, JsonSchema, KeyedJson
from headrace.formats.base import Format
from headrace.formats.registry import JSON_SCHEMA, PROTOBUF, SchemaText
from tests.support.schemas import Schemas, wire

SCHEMAS = {1: SchemaText(JSON_SCHEMA, "{}", {}), 2: SchemaText(PROTOBUF, "", {}), 3: SchemaText(JSON_SCHEMA, "{}", {})}


def _contract(schemas: Schemas, key_format: Format | None = None) -> Contract:
    model = create_model("Made", __config__=CONTRACT_CONFIG, id=(Integer, ...), amount=(Numeric | None, None))
    made = JsonSchema(schemas=schemas)
    return Contract(model, key="id", format=made, key_format=key_format)


@pytest.mark.parametrize(
    ("value", "row", "number"),
    [
        (wire(1, b'{"id":5,"amount":1.50}'), [5, "1.50", None], 1),
        (wire(3, b'{"id":"5","amount":2,"other":1.0}'), [5, "2", b'{"other":1.0}'], 3),
        (wire(1, b'{"id":5'), "invalid_json", 1),
        (wire(1, b"\xff"), "invalid_utf8", 1),
        (wire(2, b'{"id":5}'), "incompatible_schema", 2),
        (wire(9, b'{"id":5}'), "unknown_schema", 9),
        (b'{"id":5}', "undecodable", None),
        (b"\0\0\0\0", "undecodable", None),
    ],
)
def test_json_schema_value_is_its_json(value: bytes, row: object, number: int | None) -> None:
    contract = _contract(Schemas(SCHEMAS))
    found = contract.decode(b"5", value)
    if isinstance(found, Rejection):
        assert found.reason == row
    else:
        assert [found[0], str(found[1]), found[2]] == row
    assert contract.decoder.schema_id(value, ()) == number


def test_json_schema_line_is_written_once_the_id_is_known() -> None:
    schemas = Schemas(SCHEMAS)
    contract = _contract(schemas)
    bind = compile_lines(contract)
    assert bind is not None
    make_line = bind(1, 0, "b")  # type: ignore[arg-type]
    values = [wire(1, b'{"id":5,"amount":1.50}'), wire(3, b'{"id":5,"x":"y"}')]
    assert [make_line(7, "t", b"5", value, "h") for value in values] == [None, None]
    assert all(isinstance(contract.decode(b"5", value), list) for value in values)
    assert [make_line(7, "t", b"5", value, "h") for value in values] == [
        "5\t1.50\t1\t0\t7\tt\t5\th\tf\t\\N\tb\t1\n",
        '5\t\\N\t1\t0\t7\tt\t5\th\tf\t{"x":"y"}\tb\t3\n',
    ]
    assert make_line(7, "t", b"5", wire(2, b'{"id":5}'), "h") is None
    assert make_line(7, "t", b"6", values[0], "h") is None
    assert schemas.asked == [1, 3]


def test_json_line_with_a_key_of_its_own_format_compares_it() -> None:
    schemas = Schemas(SCHEMAS)
    model = create_model("Made", __config__=CONTRACT_CONFIG, id=(Integer, ...), name=(Identifier, "x"))
    contract = Contract(model, key="id", key_format=JsonSchema(schemas=schemas))
    bind = compile_lines(contract)
    assert bind is not None
    make_line = bind(1, 0, "b")  # type: ignore[arg-type]
    line = make_line(7, "t", wire(1, b"5"), b'{"id":5,"name":"a\\tb"}', "h")
    assert line == "5\ta\\tb\t1\t0\t7\tt\t\\\\x000000000135\th\tf\t\\N\tb\n"
    for key in (wire(1, b"6"), wire(9, b"5"), b"5", None):
        assert make_line(7, "t", key, b'{"id":5}', "h") is None
    schemas.failure = RegistryUnavailable("registry: does not answer")
    with pytest.raises(RegistryUnavailable):
        make_line(7, "t", wire(8, b"5"), b'{"id":5}', "h")


def test_keyed_json_with_keys_of_another_format_has_no_lines() -> None:
    model = create_model("Made", __config__=CONTRACT_CONFIG, id=(Integer, ...))
    assert compile_lines(Contract(model, key="id", format=KeyedJson(), key_format=Json())) is None
