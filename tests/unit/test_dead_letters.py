"""Headers as JSON."""

import json

import pytest

from headrace.postgres.dead_letters import headers_json


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("a", b"1"), ("a", b"2")], [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]),
        ([("", b""), ("n", None)], [{"key": "", "value": ""}, {"key": "n", "value": None}]),
        ([("b", b"\xff"), ("nul", b"a\0b")], [{"key": "b", "base64": "/w=="}, {"key": "nul", "base64": "YQBi"}]),
        ([("a\0", b"1")], [{"key_base64": "YQA=", "value": "1"}]),
        ([("\ud800", b"1")], [{"key_base64": "7aCA", "value": "1"}]),
    ],
)
def test_headers_of_any_kind_are_json_that_postgres_stores(
    headers: list[tuple[str, bytes | None]], expected: list[dict[str, str | None]]
) -> None:
    text = headers_json(headers)
    assert text is not None
    assert json.loads(text) == expected


def test_headers_that_there_are_none_of_are_null() -> None:
    assert headers_json([]) is None
