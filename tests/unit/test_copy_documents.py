"""The fast way of documents against the contract: where there is a line, it is the row that the contract makes."""

import json
import pickle
import random
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from io import BytesIO
from typing import Annotated, Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from fastavro import schemaless_writer
from pydantic import AfterValidator, Field, create_model

from headrace.contract import (
    Contract,
    Date,
    EpochMilliseconds,
    EpochSeconds,
    Float,
    Identifier,
    Integer,
    Money,
    Numeric,
    TimeOfDay,
    Timestamp,
)
from headrace.contracts.copy_text import compile_lines
from headrace.dataset import CONTRACT_CONFIG
from headrace.exceptions import RegistryUnavailable
from headrace.formats import Avro, PlainText
from headrace.formats.base import Decoded
from headrace.formats.values import Nanoseconds
from tests.support.fuzz_oracle import exact_json
from tests.support.schemas import Schemas, wire

SEED = 20_261_127
BATCH_ID = UUID("01234567-89ab-cdef-0123-456789abcdef")
NANOS = 1_700_000_000_123_456_789
AT = datetime(2023, 11, 14, 22, 13, 20, 123_456, tzinfo=UTC)
Small = Annotated[int, Field(ge=-5, lt=100)]


class Colour(Enum):
    RED = "red"


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("odd")
    return value


FIELDS: dict[str, Any] = {
    "id": (Integer, ...), "name": (Identifier, ...), "note": (Identifier | None, None), "word": (str, "a b\\"),
    "small": (Small, 7), "even": (Annotated[int, AfterValidator(_even)], 0), "ratio": (Float | None, None),
    "amount": (Numeric, ...), "money": (Money | None, None), "paid": (bool, False), "at": (Timestamp, ...),
    "ms": (EpochMilliseconds | None, None), "s": (EpochSeconds | None, None), "day": (Date | None, None),
    "clock": (TimeOfDay | None, None), "uid": (UUID | None, None), "raw": (bytes | None, None),
    "limited": (Annotated[bytes, Field(max_length=3)] | None, None), "kind": (Literal["a", "b"], "a"),
    "colour": (Colour | None, None), "more": (dict[str, Any], {}), "items": (list[Any] | None, None),
}  # fmt: skip
USUAL: dict[str, Any] = {
    "id": 5, "name": "x", "note": "tab\there\\", "word": "w", "small": 99, "even": 4, "ratio": 0.1,
    "amount": Decimal("12.50"),
    "money": Decimal("-0.01"), "paid": True, "at": AT, "ms": AT, "s": AT, "day": AT.date(),
    "clock": time(23, 59, 59, 1),
    "uid": UUID(int=5), "raw": b"\xff\0", "limited": b"abc", "kind": "b", "colour": "red",
    "more": {"a": [1, None, "\n\"\\", b"\xff", AT]}, "items": [Decimal("1.50"), float("nan"), {"x": date(1, 1, 1)}],
}  # fmt: skip
ODD: tuple[Any, ...] = (
    "12.50", "-0.01", "-0", "1e5", "\u0663", "0012", " 5", "2023-01-02", "2023-02-30", "2023-01-02T03:04:05.123456789Z",
    "23:59:59.5", "2023-01-02 03:04", "{00000000-0000-0000-0000-000000000005}", "00000000000000000000000000000005",
    0.1, 12.5, -3.0, 7, 1e-7, Decimal("0.0000001"), Decimal("-0.00"), "-0.0",
    None, True, 0, -1, 2**63, -(2**63), 2**200, 0.0, -0.0, 5.0, 1e99, 1e101, float("nan"), float("inf"), "", "5", "red",
    "true", "a\0b", "x" * 300, "ä\u2028", "\r\n", b"", b"abcd", Decimal("-0"), Decimal("1E+3"), Decimal("1e-61"),
    Decimal("1e30"), Decimal("NaN"), Decimal("9999999999999.99"), Decimal("0.001"), AT.replace(tzinfo=None),
    AT.astimezone(timezone(timedelta(hours=5, minutes=30))), datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, 23, tzinfo=UTC),    datetime(2023, 1, 1, tzinfo=UTC),
    date(9999, 12, 31), time(1, tzinfo=UTC), time(0), UUID(int=7), Nanoseconds(NANOS),
    Nanoseconds(-1, has_zone=False), [], {}, {"a": "\0"}, [[b"\xff"]], {"x": {"y": Nanoseconds(NANOS)}},
    [float("-inf")],
)  # fmt: skip


class _Documents:
    """A decoder that gives the document that is set."""

    json_text = None
    reads_headers = False

    def __init__(self) -> None:
        self.document: Any = {}

    def decode(self, _value: bytes, _headers: Any) -> Decoded:
        if isinstance(self.document, Exception):
            raise self.document
        return Decoded(pickle.loads(pickle.dumps(self.document)), None, 77)

    def schema_id(self, _value: bytes, _headers: Any) -> int:
        return 77


def _compiled(fields: dict[str, Any], **options: Any) -> tuple[Contract, _Documents, Callable[..., str | None]]:
    model = create_model("Made", __config__=options.pop("config", CONTRACT_CONFIG), **fields)
    contract = Contract(model, format=options.pop("format", Avro()), **options)
    decoder = contract.decoder = _Documents()  # type: ignore[assignment]
    bind = compile_lines(contract)
    assert bind is not None
    return contract, decoder, bind(3, 1, BATCH_ID)


def _cells(line: str) -> list[str | None]:
    """What COPY reads in a line of its text format."""
    assert line.endswith("\n") and line.count("\n") == 1
    meant = {"n": "\n", "r": "\r", "t": "\t"}
    unescaped = [
        re.sub(r"\\(.)", lambda found: meant.get(str(found[1]), str(found[1])), cell) for cell in line[:-1].split("\t")
    ]
    return [None if raw == "\\N" else cell for raw, cell in zip(line[:-1].split("\t"), unescaped, strict=True)]


def _value(cell: str | None, sql_type: str) -> Any:
    """What Postgres's input function makes of a cell."""
    if cell is None:
        return None
    if sql_type == "timestamptz":
        assert cell.endswith(("+00", "+00:00"))
        return datetime.fromisoformat(cell)
    if sql_type == "bytea":
        assert cell.startswith("\\x")
        return bytes.fromhex(cell[2:])
    readers: dict[str, Any] = {
        "text": str, "jsonb": exact_json, "double precision": float, "date": date.fromisoformat, "uuid": UUID,
        "time": time.fromisoformat, "boolean": {"t": True, "f": False}.__getitem__,
    }  # fmt: skip
    reader = Decimal if sql_type.startswith("numeric") else readers.get(sql_type, int)
    return reader(cell)


def _is_fast(
    contract: Contract, make_line: Callable[..., str | None], key: bytes | None, value: bytes = b"value"
) -> bool:
    """Hold a line, if there is one, to the row; False when there is none."""
    line, row = make_line(9, "2019-03-01", key, value, "[]"), contract.decode(key, value)
    if line is None:
        return False
    assert isinstance(row, list), (line, row)
    kinds = [column.sql_type for column in contract.columns]
    cells = _cells(line)
    extra = row.pop()
    for i in contract.json_columns:
        row[i] = None if row[i] is None else exact_json(row[i])
    expected = [item.astimezone(UTC) if isinstance(item, datetime) else item for item in row]
    found = [_value(cell, kind) for cell, kind in zip(cells, kinds, strict=False)]
    assert [(type(item), repr(item)) for item in found] == [(type(item), repr(item)) for item in expected]
    generation, partition, offset, at, key_cell, headers, deleted, extra_cell, batch_id, *number = cells[len(kinds) :]
    assert (generation, partition, offset, at, headers, deleted) == ("3", "1", "9", "2019-03-01", "[]", "f")
    assert (batch_id, number) == (str(BATCH_ID), ["77"] if contract.has_schema_ids else [])
    assert _value(key_cell, "bytea") == key
    assert (extra_cell and exact_json(extra_cell)) == (extra and exact_json(extra))
    return True


@pytest.mark.parametrize("zone", [UTC, ZoneInfo("America/New_York")])
@pytest.mark.parametrize("strict", [False, True])
def test_lines_of_documents_with_odd_values_are_the_contracts_rows(zone: Any, strict: bool) -> None:
    contract, decoder, make_line = _compiled(FIELDS, key="id", zone=zone, strict=strict)
    decoder.document = USUAL
    assert _is_fast(contract, make_line, b"5")
    rng, ways = random.Random(SEED), Counter[bool]()
    for name in [*FIELDS, "extra"]:
        for odd in ODD:
            decoder.document = USUAL | {name: odd}
            ways[_is_fast(contract, make_line, b"5")] += 1
        decoder.document = {other: value for other, value in USUAL.items() if other != name}
        ways[_is_fast(contract, make_line, b"5")] += 1
    for _ in range(300):
        names = rng.sample(list(FIELDS), 2)
        decoder.document = USUAL | {each: rng.choice(ODD) for each in names}
        ways[_is_fast(contract, make_line, b"5")] += 1
    assert ways[True] > 100 and ways[False] > 500


MICROS = {"type": "long", "logicalType": "timestamp-micros"}
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
MOMENTS = (0, -1, 1_552_003_173_000_000, 1_552_003_173_000_001, -62_135_596_800_000_000, 253_402_300_799_999_999,
           -62_135_596_800_000_001, 2**63 - 1, -(2**63), 253_370_764_800_000_000,
           1_552_003_173_001, -62_135_596_800_000)  # fmt: skip


@pytest.mark.parametrize("kind", [Timestamp, EpochMilliseconds, EpochSeconds])
@pytest.mark.parametrize(
    ("type", "is_usual"),
    [
        (MICROS, True),
        (MILLIS, True),
        (["null", MICROS], True),
        ([MILLIS, "string"], True),
        (["null", MICROS, {"type": "string", "avro.java.string": "String"}], True),  # as Java's compiler writes text
        (
            {
                "type": "long",
                "connect.version": 1,
                "connect.name": "org.apache.kafka.connect.data.Timestamp",
                "logicalType": "timestamp-millis",
            },
            True,
        ),
        ({"type": "long", "logicalType": "timestamp-micros", "adjust-to-utc": True}, True),  # Iceberg's
        ([MICROS, {"type": "int", "logicalType": "date"}], True),
        ([MICROS, {"type": "enum", "name": "Late", "symbols": ["LATE"]}], True),
        ([{"type": "record", "name": "At", "fields": [{"name": "s", "type": "long"}]}, MICROS], True),
        ("long", False),
        ("int", False),
        (["null", "long"], False),
        ({"type": "long"}, False),
        ({"type": "long", "logicalType": "timestamp-picos"}, False),
        ({"type": "int", "logicalType": "date"}, False),
        ({"type": "long", "logicalType": "timestamp-nanos"}, True),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, True),
    ],
)
def test_lines_of_avros_moments_are_the_contracts_rows(kind: Any, type: Any, is_usual: bool) -> None:
    schema = {
        "type": "record",
        "name": "Made",
        "fields": [{"name": "id", "type": "long"}, {"name": "at", "type": type}, {"name": "other", "type": MICROS}],
    }
    # what the moments are in the value itself, whatever the schema calls them
    plain = json.loads(re.sub(r', "logicalType": "[a-z-]+"', "", json.dumps(schema)))
    format = Avro(schemas=Schemas({77: schema}))
    fields: dict[str, Any] = {"id": (Integer, ...), "at": (kind | None, ...)}
    contract = Contract(create_model("Made", __config__=CONTRACT_CONFIG, **fields), key="id", format=format)
    bind = compile_lines(contract)
    assert bind is not None
    ways = Counter[bool]()
    for moment in MOMENTS:
        if plain["fields"][1]["type"] in ("int", {"type": "int"}) and not -(2**31) <= moment < 2**31:
            continue
        written = BytesIO()
        schemaless_writer(written, plain, {"id": 5, "at": moment, "other": 1_552_003_173_000_000})
        value = wire(77, written.getvalue())
        ways[_is_fast(contract, bind(3, 1, BATCH_ID), b"5", value)] += 1
        assert not _is_fast(contract, bind(3, 1, BATCH_ID), b"5", value + b"\0")
        assert not _is_fast(contract, bind(3, 1, BATCH_ID), b"5", value[:-1])
        assert not _is_fast(contract, bind(3, 1, BATCH_ID), b"5", value[:4])
    assert ways[True] >= 3 if is_usual else not ways[True]


@pytest.mark.parametrize(
    ("type", "at", "is_fast"),
    [(MICROS, 1_552_003_173_000_000, True), (["null", "long"], None, True), (["null", "long"], 1, False)],
)
def test_lines_of_a_union_of_records_are_the_contracts_rows(type: Any, at: int | None, is_fast: bool) -> None:
    """As a topic of several types has; where a number may be none, the value decides."""
    made = {"type": "record", "name": "Made", "fields": [{"name": "id", "type": "long"}, {"name": "at", "type": type}]}
    schema = [{"type": "record", "name": "Other", "fields": [{"name": "x", "type": "long"}]}, made]
    plain = json.loads(json.dumps(schema).replace(', "logicalType": "timestamp-micros"', ""))
    fields: dict[str, Any] = {"id": (Integer, ...), "at": (Timestamp | None, ...)}
    format = Avro(schemas=Schemas({77: schema}))
    contract = Contract(create_model("Made", __config__=CONTRACT_CONFIG, **fields), key="id", format=format)
    bind = compile_lines(contract)
    assert bind is not None
    written = BytesIO()
    schemaless_writer(written, plain, {"id": 5, "at": at})
    assert _is_fast(contract, bind(3, 1, BATCH_ID), b"5", wire(77, written.getvalue())) == is_fast


def test_line_needs_the_documents_key() -> None:
    contract, decoder, make_line = _compiled(FIELDS, key="id")
    decoder.document = USUAL
    assert [_is_fast(contract, make_line, key) for key in (b"5", b"05", b"6", None, b"\xff")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_line_of_a_format_without_schemas_has_no_id_and_no_key_is_compared() -> None:
    contract, decoder, make_line = _compiled({"value": (str, ...)}, format=PlainText())
    for text in ("", "a\\b\tc\nd", "ä"):
        decoder.document = {"value": text}
        assert _is_fast(contract, make_line, b"\xff")
    assert make_line(9, "", None, None, "") is None


def test_line_of_a_contract_that_forbids_other_fields_has_none() -> None:
    contract, decoder, make_line = _compiled({"id": (Integer, ...)}, config={"extra": "forbid"})
    decoder.document = {"id": 5}
    assert _is_fast(contract, make_line, None)
    decoder.document = {"id": 5, "other": 1}
    assert not _is_fast(contract, make_line, None)


def test_line_of_a_registry_that_does_not_answer_raises() -> None:
    _, decoder, make_line = _compiled({"id": (Integer, ...)})
    decoder.document = RegistryUnavailable("registry: does not answer")
    with pytest.raises(RegistryUnavailable):
        make_line(9, "", None, b"value", "")
    decoder.document = ValueError("any other error is looked at by the contract")
    assert make_line(9, "", None, b"value", "") is None


@pytest.mark.parametrize(
    "fields",
    [
        {"v": (list[str], ...)},
        {"v": (Annotated[str, Field(pattern="a+")], ...)},
        {"v": (dict[str, int], ...)},
        {"v": (int, Field(default_factory=int))},
        {"v": (Timestamp, AT)},
        {"v": (Integer, "5")},
    ],
)
def test_contract_with_what_is_not_known_here_has_no_lines(fields: dict[str, Any]) -> None:
    model = create_model("Made", __config__=CONTRACT_CONFIG, **fields)
    contract = Contract(model, format=Avro())
    assert compile_lines(contract) is None


def test_json_of_documents_is_what_was_meant() -> None:
    _, decoder, make_line = _compiled({"id": (Integer, ...)})
    decoder.document = {"id": 5, "other": USUAL["more"], "nan": float("nan")}
    line = make_line(9, "", None, b"value", "")
    assert line is not None
    extra = json.loads(str(_cells(line)[8]))
    assert extra == {"other": {"a": [1, None, '\n"\\', "/w==", "2023-11-14T22:13:20.123456+00:00"]}, "nan": "NaN"}
