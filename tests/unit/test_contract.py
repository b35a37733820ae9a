"""The contract: what becomes a row, what becomes a dead letter, and why."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import pytest
from pydantic import AliasPath, BaseModel, Field, create_model, model_validator

from headrace.contract import Contract, EpochMilliseconds, Float, Integer, Money, Numeric, Text, Timestamp
from headrace.contracts.annotations import SqlType
from headrace.dataset import CONTRACT_CONFIG
from headrace.exceptions import DatasetError
from tests.support.contracts import JOBS, contract, rejected, row
from tests.support.job_contract import BAD_JOBS, job, with_extra


class Rides(BaseModel):
    model_config = CONTRACT_CONFIG

    AT: EpochMilliseconds
    DISTANCE: Float = 0.0


RIDES = Contract(Rides)


@pytest.mark.parametrize("name", BAD_JOBS)
def test_contract_given_a_bad_record_says_reason_and_place(name: str) -> None:
    value, reason, json_path = BAD_JOBS[name]
    rejection = rejected(JOBS.decode(b"job-1", value))
    assert (rejection.reason, rejection.json_path) == (reason, json_path), rejection.detail
    for text in (rejection.detail, rejection.json_path):
        assert text.encode()
        assert "\0" not in text
        assert len(text) <= 510
    assert "\n" not in rejection.json_path


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("0", "0"),
        ("12.5", "12.5"),
        ("0.1", "0.1"),
        ("0.07", "0.07"),
        ("9999999999999.99", "9999999999999.99"),
        ("4503599627370.49", "4503599627370.49"),
        ("1e2", "100"),
        ("1.50000000000000000000", "1.5"),
        ("9999999999999", "9999999999999"),
    ],
)
def test_contract_given_money_keeps_it_exact(text: str, exact: str) -> None:
    assert row(JOBS.decode(b"job-1", job("12.5", text)))["REVENUE"] == Decimal(exact)


def test_contract_given_every_cent_of_a_range_keeps_it_exact() -> None:
    for cents in range(999_999_999_000_000 - 300, 999_999_999_000_000 + 300):
        text = f"{cents // 100}.{cents % 100:02d}"
        assert row(JOBS.decode(b"job-1", job("12.5", text)))["REVENUE"] == Decimal(text)


@pytest.mark.parametrize(
    "text",
    [
        '"X":123456789012345678901234567890.123',
        '"X":0.1234567890123456789',
        '"X":1e400',
        '"X":1E-400',
        '"X":18446744073709551616',
        '"X":[9007199254740993,{"Y":-9007199254740993}]',
        '"X":"a \\" b\\": c"',
        '"X":null,"Y":true,"Z":[],"Ä ö":"\\u00e9 €"',
        '"model_config":1,"__dict__":2,"":3',
        '"X":' + "[" * 150 + "]" * 150,
    ],
)
def test_contract_given_fields_that_it_does_not_name_keeps_them_exactly(text: str) -> None:
    extra = row(JOBS.decode(b"job-1", with_extra(text)))["_extra"]
    exact = {"parse_float": Decimal, "parse_int": Decimal}
    assert json.loads(extra, **exact) == json.loads("{" + text + "}", **exact)  # type: ignore[arg-type]


def test_contract_given_no_other_fields_has_no_extra() -> None:
    assert row(JOBS.decode(b"job-1", job()))["_extra"] is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019-03-01 10:00:00", datetime(2019, 3, 1, 10, tzinfo=UTC)),
        ("2019-03-01T10:00:00Z", datetime(2019, 3, 1, 10, tzinfo=UTC)),
        ("2019-03-01T10:00:00.123456+05:30", datetime(2019, 3, 1, 4, 30, 0, 123456, tzinfo=UTC)),
        ("2019-03-01", datetime(2019, 3, 1, tzinfo=UTC)),
        ("2019-03-01 10:00:00 UTC", datetime(2019, 3, 1, 10, tzinfo=UTC)),
        ("2019-03-01 10:00:00.123 UTC", datetime(2019, 3, 1, 10, 0, 0, 123_000, tzinfo=UTC)),
        ("2019-03-01T13:00:00+0300", datetime(2019, 3, 1, 10, tzinfo=UTC)),
        ("2019-03-01 13:00:00 +0300 MSK", datetime(2019, 3, 1, 10, tzinfo=UTC)),  # Go
        ("2019-03-01T13:00:00+03:00[Europe/Istanbul]", datetime(2019, 3, 1, 10, tzinfo=UTC)),  # Java
        ("2019-03-01T10:00:00.123456789Z", datetime(2019, 3, 1, 10, 0, 0, 123_456, tzinfo=UTC)),
        ("20190301T100000Z", datetime(2019, 3, 1, 10, tzinfo=UTC)),
        ("2019-03-01 10:00", datetime(2019, 3, 1, 10, tzinfo=UTC)),
        ("0001-01-02 00:00:00", datetime(1, 1, 2, tzinfo=UTC)),
        ("9999-12-30 23:59:59", datetime(9999, 12, 30, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_contract_given_a_time_reads_it_as_utc_unless_it_names_a_zone(text: str, expected: datetime) -> None:
    assert row(JOBS.decode(b"job-1", job("2019-03-01 10:00:00", text)))["JOBCREATEDATE"] == expected


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2019-01-15 12:00:00", "2019-01-15 17:00:00"),  # winter: UTC-5
        ("2019-07-15 12:00:00", "2019-07-15 16:00:00"),  # summer: UTC-4
        ("2019-11-03 01:30:00", "2019-11-03 05:30:00"),  # it comes twice: the first
        ("2019-07-15 12:00:00+00:00", "2019-07-15 12:00:00"),
    ],
)
def test_contract_of_new_york_places_zoneless_times_there(text: str, utc: str) -> None:
    decoded = contract(AT=(Timestamp, ...), zone=ZoneInfo("America/New_York")).decode(
        None, b'{"AT":"%s"}' % text.encode()
    )
    assert isinstance(decoded, list)
    assert decoded[0].astimezone(UTC) == datetime.fromisoformat(utc).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "9999-12-31T23:59:59-05:00",
        "9999-12-31 00:00:00",
        "0001-01-01 23:59:59",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31",
    ],
)
def test_contract_given_a_time_that_some_time_zone_cannot_show_rejects(text: str) -> None:
    rejection = rejected(JOBS.decode(b"job-1", job("2019-03-01 10:00:00", text)))
    assert (rejection.reason, rejection.json_path) == ("out_of_range", "$.JOBCREATEDATE")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1551434400", "out_of_range"),  # seconds
        ("1551434400000000", "out_of_range"),  # microseconds
        ("-1", "out_of_range"),
        ('"1551434400"', "out_of_range"),
        ("1551434400000.5", "wrong_type"),
        ('"1_551_434_400_000"', "wrong_type"),
        ("true", "wrong_type"),
    ],
)
def test_contract_given_another_unit_than_milliseconds_rejects(text: str, reason: str) -> None:
    rejection = rejected(RIDES.decode(None, b'{"AT":%s}' % text.encode()))
    assert (rejection.reason, rejection.json_path) == (reason, "$.AT")


def test_contract_given_milliseconds_keeps_them_exactly() -> None:
    decoded = RIDES.decode(None, b'{"AT":1551434400123,"DISTANCE":1}')
    assert decoded == [datetime(2019, 3, 1, 10, 0, 0, 123_000, tzinfo=UTC), 1.0, None]


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e400"])
def test_contract_given_a_float_that_is_no_number_rejects(text: str) -> None:
    rejection = rejected(RIDES.decode(None, b'{"AT":1551434400123,"DISTANCE":%s}' % text.encode()))
    assert (rejection.reason, rejection.json_path) == ("out_of_range", "$.DISTANCE")


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63) - 1), "9" * 30])
def test_contract_with_an_unlimited_integer_keeps_it_within_its_column(text: str) -> None:
    for kind in (int, int | None, Integer | None, Annotated[int, Field(ge=0)]):
        rejection = rejected(contract(N=(kind, None)).decode(None, b'{"N":%s}' % text.encode()))
        assert (rejection.reason, rejection.json_path) == ("out_of_range", "$.N")
    narrow = contract(N=(Annotated[int, SqlType("smallint")], ...))
    assert rejected(narrow.decode(None, b'{"N":32768}')).reason == "out_of_range"
    assert narrow.decode(None, b'{"N":-32768}') == [-32768, None]


def test_contract_with_a_json_field_keeps_numbers_as_they_were_written() -> None:
    value = b'{"PAYLOAD":{"big":123456789012345678901234567890,"exact":0.1234567890123456789,"e":1e400,"list":[1.50]}}'
    decoded = contract(PAYLOAD=(dict[str, Any], ...)).decode(None, value)
    assert isinstance(decoded, list)
    assert decoded[0] == value[len(b'{"PAYLOAD":') : -1]


@pytest.mark.parametrize(
    ("fields", "value", "expected"),
    [
        ({"P": (dict[str, Any] | None, None)}, b"{}", None),
        ({"P": (dict[str, Any] | None, None)}, b'{"P":null}', None),
        ({"P": (dict[str, Any], {"a": 1})}, b"{}", b'{"a":1}'),
        ({"P": (dict[str, Any], {"a": 1})}, b'{"P":{}}', b"{}"),
        ({"P": (list[dict[str, Decimal]], ...)}, b'{"P":[{"a":1.50}]}', b'[{"a":1.50}]'),
        ({"P": (list[Any], ...)}, b'{"P":[1e5,"\\u00e9"]}', '[1e5,"é"]'.encode()),
    ],
)
def test_contract_with_a_json_field_keeps_defaults_nulls_and_kinds(
    fields: dict[str, Any], value: bytes, expected: bytes | None
) -> None:
    assert contract(**fields).decode(None, value) == [expected, None]


class Order(BaseModel):
    model_config = CONTRACT_CONFIG

    A: Integer
    B: Integer

    @model_validator(mode="after")
    def _in_order(self) -> "Order":
        if self.A > self.B:
            raise ValueError("A comes after B")
        return self


def test_contract_with_a_broken_business_rule_says_so() -> None:
    rejection = rejected(Contract(Order).decode(None, b'{"A":2,"B":1}'))
    assert (rejection.reason, rejection.json_path) == ("business_rule", "$")
    assert "A comes after B" in rejection.detail


def test_contract_given_several_defects_names_the_first_and_lists_the_others() -> None:
    rejection = rejected(JOBS.decode(b"job-1", job('"USERID":7', '"USERID":"x"').replace(b'"LOC_1"', b"true")))
    assert rejection.json_path == "$.LOCATION"
    assert "LOCATION" in rejection.detail
    assert "USERID" in rejection.detail


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"A": (complex, ...)}, "field 'A' is complex, which no column holds; expected str, int, float"),
        ({"A": (timedelta, ...)}, "field 'A' is timedelta, which no column holds"),
        ({"A": (set[int], ...)}, "field 'A' is set, which no column holds"),
        ({"A": (int | str, ...)}, "field 'A' may be bigint or text, expected one type"),
        ({"A": (Literal["a", 1], ...)}, "field 'A' is a choice of int, str, expected one type"),
        ({"xmin": (int, ...)}, "every table of Postgres has a system column 'xmin'; give the field another name"),
        ({"TableOID": (int, ...)}, "has a system column 'tableoid'"),
        ({"A": (int, Field(validation_alias=AliasPath("b", "c")))}, "has the alias b.c, a path into another field"),
        (
            {"A": (int, Field(alias="x")), "B": (int, Field(alias="x"))},
            "field 'B' reads 'x', as field 'A' does; expected two names",
        ),
        ({"A": (Text, ...), "a": (Text, ...)}, "in lower case it is 'a', as field 'A' is; rename one"),
        ({"ÄRA": (Text, ...)}, "field 'ÄRA' cannot be a column"),
        ({"A" * 42: (Text, ...)}, "cannot be a column"),
        ({"A": (Annotated[Decimal, SqlType("numeric(10,2)")], ...)}, "allows max_digits None, decimal_places None"),
        (
            {"A": (Annotated[Decimal, Field(max_digits=15, decimal_places=2), SqlType("numeric(10,2)")], ...)},
            "expected Field(max_digits=10, decimal_places=2) or less",
        ),
        (
            {"A": (Annotated[Decimal, Field(max_digits=10, decimal_places=3), SqlType("numeric(10,2)")], ...)},
            "allows max_digits 10, decimal_places 3",
        ),
        (
            {"A": (list[Annotated[Decimal, SqlType("numeric(10,2)")]] | None, None)},
            "field 'A' is numeric(10,2)[] and allows max_digits None",
        ),
    ],
)
def test_contract_that_no_column_can_hold_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError) as caught:
        contract(**fields)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("field_type", "sql_type", "found"),
    [
        (list[Numeric], "numeric[]", [[Decimal("1.50")], None]),
        (list[Money] | None, "numeric(15,2)[]", [[Decimal("1.50")], None]),
        (list[Annotated[Decimal, SqlType("numeric")] | None], "numeric[]", [[Decimal("1.50")], None]),
        (list[list[Numeric]], "jsonb", [b"[[1.50]]", None]),
        (Annotated[list[Numeric], SqlType("jsonb")], "jsonb", [b"[1.50]", None]),
    ],
)
def test_type_of_items_is_no_type_of_their_list(field_type: Any, sql_type: str, found: Any) -> None:
    made = contract(A=(field_type, ...))
    assert [column.sql_type for column in made.columns] == [sql_type]
    assert made.decode(None, b'{"A":[[1.50]]}' if found[0] == b"[[1.50]]" else b'{"A":[1.50]}') == found


@pytest.mark.parametrize("config", [{}, {"extra": "allow"}, {"strict": True}, {"strict": True, "extra": "ignore"}])
def test_contract_of_any_config_keeps_fields_that_it_does_not_name(config: dict[str, Any]) -> None:
    made = Contract(create_model("Plain", __config__=config, A=(Text, ...)))  # type: ignore[call-overload]
    assert made.decode(None, b'{"A":"x","b":1.50}') == ["x", b'{"b":1.50}']


def test_contract_that_forbids_other_fields_rejects_them() -> None:
    made = Contract(create_model("Closed", __config__={"extra": "forbid"}, A=(Text, ...)))
    rejection = rejected(made.decode(None, b'{"A":"x","b":1}'))
    assert (rejection.reason, rejection.json_path) == ("unexpected_field", "$.b")


def test_declaration_with_several_faults_reports_all_of_them() -> None:
    with pytest.raises(DatasetError) as caught:
        contract("Z", A=(complex, ...), xmin=(int, ...), ok=(Text, ...), OK=(Text, ...))
    message = str(caught.value)
    for part in (
        "field 'A' is complex",
        "system column 'xmin'",
        "field 'OK' cannot be a column",
        "key 'Z' is not a field",
    ):
        assert part in message


def test_contract_columns_follow_the_fields_and_their_types() -> None:
    made = contract(
        B=(bool, ...),
        F=(Float | None, None),
        J=(list[int], []),
        L=(Literal["x"], ...),
        M=(Money, ...),
        T=(Timestamp, ...),
    )
    assert [(c.name, c.sql_type, c.required) for c in made.columns] == [
        ("b", "boolean", True),
        ("f", "double precision", False),
        ("j", "bigint[]", False),
        ("l", "text", True),
        ("m", "numeric(15,2)", True),
        ("t", "timestamptz", True),
    ]
