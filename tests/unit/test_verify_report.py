"""What a verification says, and when two rows are the same."""

from decimal import Decimal

import pytest

from headrace.verify.canonical import digest, json_value
from headrace.verify.report import LISTED_MAX, DatasetReport, Verification


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1.50, "b": [1, 2]}', b'{"b":[1,2],"a":1.5}'),
        (b"1e2", b"100"),
        (b"-0.0", b"0"),
        (
            b"12345678901234567890123456789012345678901234567890",
            b"12345678901234567890123456789012345678901234567890.0",
        ),
    ],
)
def test_json_of_equal_value_is_equal_however_written(one: bytes, other: bytes) -> None:
    assert json_value(one) == json_value(other)
    assert digest([json_value(one)]) == digest([json_value(other)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1", b"true"),
        (b"0", b"false"),
        (b"1", b'"1"'),
        (b"[1, 2]", b"[2, 1]"),
        (b'{"a": null}', b"{}"),
        (b"1.0000000000000000000000000000000000000001", b"1"),
        (b"12345678901234567890123456789012345678901234567890", b"12345678901234567890123456789012345678901234567891"),
    ],
)
def test_json_of_another_value_is_another(one: bytes, other: bytes) -> None:
    assert json_value(one) != json_value(other)
    assert digest([json_value(one)]) != digest([json_value(other)])


def test_digest_of_equal_money_is_equal_and_a_cent_shows() -> None:
    assert digest([Decimal("1.5")]) == digest([Decimal("1.50")])
    assert digest([Decimal("1.5")]) != digest([Decimal("1.51")])


def test_digest_tells_null_from_its_name_and_columns_from_each_other() -> None:
    assert digest([None]) != digest(["null"])
    assert digest(["a", "b"]) != digest(["b", "a"])


def _report(*offsets: int | None) -> DatasetReport:
    report = DatasetReport("jobs")
    for offset in offsets:
        report.add("counts", found="x", expected="y", remedy="z", generation=1, partition=0, offset=offset)
    return report


def test_report_lists_the_first_wrong_offset_first() -> None:
    verification = Verification([_report(None, 9, 4)], deep=False)
    assert [finding.offset for finding in verification.findings] == [4, 9, None]
    assert verification.summary() == "verify: 3 findings; the first is jobs[0] offset 4 of generation 1"


def test_report_of_a_million_findings_lists_some_and_counts_the_others() -> None:
    report = _report(*range(1_000))
    assert len(report.findings) == LISTED_MAX
    assert list(report.lines())[-1] == f"jobs: counts: {1_000 - LISTED_MAX} more like these"
    assert Verification([report], deep=False).summary().startswith("verify: 1000 findings; ")


def test_report_that_could_not_compare_everything_is_not_clean() -> None:
    report = DatasetReport("jobs", error="kafka: no answer")
    assert not report.is_clean
    verification = Verification([report], deep=True)
    assert list(verification.lines()) == [
        "jobs: not verified to the end: kafka: no answer",
        "verify: no findings, but not everything could be compared: kafka: no answer",
    ]
