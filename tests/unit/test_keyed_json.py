"""The format KeyedJson: documents with their key in front, or apart."""

import pytest
from pydantic import create_model

from headrace.contract import Contract, Integer, Rejection, Text
from headrace.dataset import CONTRACT_CONFIG
from headrace.exceptions import DatasetError
from headrace.formats import KeyedJson

KEYED = Contract(
    create_model("Keyed", __config__=CONTRACT_CONFIG, id=(Integer, ...), v=(Text, ...)), key="id", format=KeyedJson()
)


@pytest.mark.parametrize(
    ("key", "payload"),
    [
        (b"7", b'{"id":7,"v":"x"}'),
        (None, b'7|{"id":7,"v":"x"}'),
        (b"7", b'7|{"id":"7","v":"x"}'),
        (b"7", b' {"id":7,"v":"x"}'),
        (None, b'7| {"id":7.0,"v":"x"}'),
        (b"007", b'{"id":7,"v":"x"}'),
    ],
)
def test_keyed_json_is_read_with_its_key_in_front_or_apart(key: bytes | None, payload: bytes) -> None:
    assert KEYED.decode(key, payload) == [7, "x", None]


@pytest.mark.parametrize(
    ("key", "payload", "expected"),
    [
        (None, b'{"id":7,"v":"x"}', "key_mismatch"),
        (None, b'8|{"id":7,"v":"x"}', "key_mismatch"),
        (b"8", b'7|{"id":7,"v":"x"}', "key_mismatch"),
        (b"7", b'8|{"id":7,"v":"x"}', "key_mismatch"),
        (None, b'|{"id":7,"v":"x"}', "key_mismatch"),
        (None, b'7|8|{"id":7,"v":"x"}', "invalid_json"),
        (None, b"7|", "empty_payload"),
        (None, b"7", "wrong_type"),
        (None, b"no JSON", "invalid_json"),
    ],
)
def test_keyed_json_of_another_key_or_without_a_document_is_rejected(
    key: bytes | None, payload: bytes, expected: str
) -> None:
    rejection = KEYED.decode(key, payload)
    assert isinstance(rejection, Rejection)
    assert rejection.reason == expected


def test_keyed_json_with_a_separator_that_a_document_may_begin_with_is_refused() -> None:
    for separator in ("", "{", " ", "||", "\n"):
        with pytest.raises(DatasetError, match="expected one printable character"):
            KeyedJson(separator)
