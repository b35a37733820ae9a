"""Damaged values of each format with a schema: a row or a rejection, the same by both ways, and nothing else."""

import io
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import fastavro
import pytest
from fastavro import _read_py

from headrace.contracts.rejection import Rejection
from headrace.dataset import Dataset, load_dataset
from headrace.formats import Avro, JsonSchema, Protobuf
from headrace.formats.base import Format, Undecodable
from headrace.formats.registry import JSON_SCHEMA, PROTOBUF, SchemaText
from tests.support.fuzz_mutations import MUTATIONS
from tests.support.order_schemas import NAMES, avro_schema, json_value
from tests.support.orders import DECLARATION, Order, orders
from tests.support.protobuf_orders import message_class, proto, set_field
from tests.support.schemas import Schemas, wire

SEED = 20_261_128
BATCH_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")
COUNT = 1_500
REASONS = {
    "undecodable", "out_of_range", "invalid_utf8", "invalid_json", "unknown_schema", "wrong_type", "missing_field",
    "duplicate_key", "nul_character", "invalid_timestamp", "invalid_value", "too_large", "too_deep", "empty_payload",
    "incompatible_schema",
}  # fmt: skip

AVRO_SCHEMA = avro_schema(*NAMES)


def _avro(order: Order) -> bytes:
    data = io.BytesIO()
    fastavro.schemaless_writer(data, fastavro.parse_schema(json.loads(AVRO_SCHEMA)), order)
    return wire(1, data.getvalue())


def _json(order: Order) -> bytes:
    return wire(1, json.dumps({name: json_value(order[name]) for name in NAMES}).encode())


def _protobuf(order: Order) -> bytes:
    message = message_class(*NAMES)()
    for name in NAMES:
        set_field(message, name, order[name])
    return wire(1, b"\0" + message.SerializeToString())


CASES: dict[str, tuple[Callable[[Schemas], Format], SchemaText, Callable[[Order], bytes]]] = {
    "avro": (lambda schemas: Avro(schemas=schemas), SchemaText("AVRO", AVRO_SCHEMA, {}), _avro),
    "json_schema": (lambda schemas: JsonSchema(schemas=schemas), SchemaText(JSON_SCHEMA, "{}", {}), _json),
    "protobuf": (lambda schemas: Protobuf(schemas=schemas), SchemaText(PROTOBUF, proto(*NAMES), {}), _protobuf),
}


@pytest.fixture(scope="module")
def declared(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder: Path = tmp_path_factory.mktemp("datasets")
    text = DECLARATION.replace("TOPIC", "orders").replace("KEY_FORMAT", "None").replace("FORMAT", "Json()")
    (folder / "orders.py").write_text(text)
    return load_dataset(folder, "orders")


@pytest.mark.parametrize("name", CASES)
def test_damaged_values_become_rows_or_rejections(name: str, declared: Dataset) -> None:
    make, schema, write = CASES[name]
    dataset = replace(declared, keyed=False, format=make(Schemas({1: schema})))
    contract, bind, rng = dataset.compiled, dataset.copy_line_binder, Random(SEED)
    make_line = bind(1, 0, BATCH_ID) if bind else lambda *_: None
    outcomes, before = Counter[str](), b"\0"
    values = [write(order) for order in orders(30, SEED)]
    assert all(isinstance(contract.decode(None, value), list) for value in values)
    for _ in range(COUNT):
        damaged = rng.choice(values)
        for _ in range(rng.randrange(1, 3)):
            damaged = rng.choice(MUTATIONS)(rng, damaged, before)
        before = damaged
        line, found = make_line(5, "2026-01-01", None, damaged, "\\N"), contract.decode(None, damaged)
        if isinstance(found, Rejection):
            assert line is None
            assert found.reason in REASONS, found
            assert found.detail == found.detail.encode().decode() and "\0" not in found.detail
            outcomes[found.reason] += 1
        else:
            outcomes["row" if line is None else "line"] += 1
    assert outcomes["line" if name == "avro" else "row"], outcomes  # the others have texts in the place of times
    assert sum(outcomes[reason] for reason in REASONS) > COUNT // 5, outcomes


def test_damaged_avro_is_read_as_another_reader_reads_it() -> None:
    decoder = Avro(schemas=Schemas({1: SchemaText("AVRO", AVRO_SCHEMA, {})})).decoder()
    parsed, rng, equal = fastavro.parse_schema(json.loads(AVRO_SCHEMA)), Random(SEED), 0
    values = [_avro(order) for order in orders(20, SEED)]
    for _ in range(COUNT):
        damaged = rng.choice(MUTATIONS)(rng, rng.choice(values), b"\0")
        if damaged[:5] != b"\0\0\0\0\1":
            continue
        ours: Any = None
        with suppress(Undecodable):
            ours = decoder.decode(damaged, ()).document
        data = io.BytesIO(damaged[5:])
        try:
            theirs: Any = vars(_read_py)["schemaless_reader"](data, parsed, None)
        except Exception:  # whatever it raises for bytes that are none
            theirs = None
        if data.tell() != len(damaged) - 5:
            theirs = None
        if theirs is not None and any(isinstance(item, int) and abs(item) >= 2**63 for item in theirs.values()):
            continue  # more bits than a long has
        if theirs is not None and ours is not None:
            # fastavro rounds decimals to the schema's precision
            for each in (ours, theirs):
                each |= {"uid": str(each["uid"]), "amount": 0, "ratio": repr(each["ratio"])}
            assert ours == theirs
            equal += 1
        elif theirs is not None:
            raise AssertionError(f"another reader makes {theirs} of {damaged!r}")
    assert equal > COUNT // 10
