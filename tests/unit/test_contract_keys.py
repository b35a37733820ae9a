"""Keys and tombstones: what a contract compares, keeps and rejects."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, create_model

from headrace.contract import Contract, Float, Identifier, Integer, Money, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG
from headrace.exceptions import DatasetError
from tests.support.contracts import FIELDS, JOBS, contract, rejected, row
from tests.support.job_contract import job


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b"job-2", "found key b'job-2', expected JOBIDENTIFIER b'job-1'"),
        (None, "found no key, expected"),
        (b"", "found key b''"),
        (b"job-1|", "found key b'job-1|'"),
        (b"job-1\0", "job-1\\x00"),
        (b"\xff", "found key b'\\xff'"),
        (b"k" * 10_000_000, "found key b'kkk"),
    ],
)
def test_contract_given_another_key_than_the_bodys_rejects(key: bytes | None, found: str) -> None:
    rejection = rejected(JOBS.decode(key, job()))
    assert (rejection.reason, rejection.json_path) == ("key_mismatch", "$.JOBIDENTIFIER")
    assert found in rejection.detail
    assert len(rejection.detail) <= 510


def test_contract_given_a_tombstone_keeps_its_key_alone() -> None:
    assert row(JOBS.decode("job-ä".encode(), None)) == dict.fromkeys([*FIELDS, "_extra"]) | {"JOBIDENTIFIER": "job-ä"}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, "missing_key"),
        (b"", "key_mismatch"),
        (b"a\0b", "key_mismatch"),
        (b"\xff", "key_mismatch"),
        (b"k" * 256, "key_mismatch"),
        ("ä".encode() * 256, "key_mismatch"),
        (b"k" * 10_000_000, "key_mismatch"),
    ],
)
def test_contract_given_a_tombstone_whose_key_cannot_be_one_rejects(key: bytes | None, reason: str) -> None:
    rejection = rejected(JOBS.decode(key, None))
    assert rejection.reason == reason
    assert "\0" not in rejection.detail
    assert len(rejection.detail) <= 510


def test_contract_given_a_tombstone_of_255_characters_keeps_it() -> None:
    assert row(JOBS.decode("ä".encode() * 255, None))["JOBIDENTIFIER"] == "ä" * 255


@pytest.mark.parametrize(
    "key", [b"1_0", b" 1", b"+1", b"1.5", b"", b"9" * 30, b"-9223372036854775809", "\u0661".encode()]
)
def test_contract_with_a_numeric_key_given_an_odd_tombstone_rejects(key: bytes) -> None:
    for numeric in (contract("ID", ID=(Integer, ...)), contract("ID", ID=(int, ...))):
        assert rejected(numeric.decode(key, None)).reason == "key_mismatch"


@pytest.mark.parametrize("number", [-(2**63), -1, 0, 2**63 - 1])
def test_contract_with_a_numeric_key_compares_and_tombstones_by_its_digits(number: int) -> None:
    numeric = contract("ID", ID=(Integer, ...))
    assert numeric.decode(str(number).encode(), b'{"ID":%d}' % number) == [number, None]
    assert numeric.decode(str(number).encode(), None) == [number, None]


def test_contract_without_a_key_takes_any_key() -> None:
    keyless = contract(A=(Text, ...))
    for key in (None, b"", b"\0\xff", b"k" * 10_000_000):
        assert keyless.decode(key, b'{"A":"x"}') == ["x", None]
        assert keyless.decode(key, None) == [None, None]


def test_contract_of_a_file_compares_no_keys() -> None:
    model = create_model("Made", __config__=CONTRACT_CONFIG, ID=(Integer, ...))
    assert Contract(model, key="ID", keyed=False).decode(None, b'{"ID":1}') == [1, None]


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("B", {"A": (Text, ...)}),
        ("A", {"A": (str, ...)}),  # of any length: an index may not hold it
        ("A", {"A": (Annotated[str, Field(max_length=256)], ...)}),
        ("A", {"A": (Text | None, None)}),
        ("A", {"A": (Float, ...)}),
        ("A", {"A": (Money, ...)}),
        ("A", {"A": (Timestamp, ...)}),
        ("A", {"A": (dict[str, Any], ...)}),
    ],
)
def test_contract_with_a_key_that_cannot_be_one_is_refused(key: str, fields: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match=r"key '[AB]' is"):
        contract(key, **fields)


def test_contract_with_a_key_that_can_be_one_is_accepted() -> None:
    for kind in (Identifier, Text, Integer, int, Literal["a", "b"], Annotated[Identifier, Field(max_length=10)]):
        assert contract("A", A=(kind, ...)).columns[0].required
