"""The registry of reasons, and the table of docs/contracts.md that is made of it."""

import re
from pathlib import Path

import pytest

from headrace.contracts.reasons import Reason, Scope, reason_of

ROOT = Path(__file__).parents[2]


def test_reasons_are_the_rows_of_the_table_in_the_docs() -> None:
    section = (ROOT / "docs/contracts.md").read_text().partition("## Reasons\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(reason.value, reason.scope.value, reason.meaning) for reason in Reason]


def test_reasons_are_plain_words_wherever_they_are_written() -> None:
    reason: str = Reason.TOO_LARGE
    assert reason == "too_large"
    assert f"{reason}" == "too_large"
    assert {reason: 1}["too_large"] == 1  # counted beside reasons that come from the database
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,60}", reason) for reason in Reason)


def test_reasons_each_have_one_scope() -> None:
    assert sorted(reason for scope in Scope for reason in Reason.of(scope)) == sorted(Reason)


def test_reason_literals_stand_nowhere_else_in_the_library() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in (ROOT / "plugins/headrace").rglob("*.py")
        # the generator says what it expects of the loader, and may not ask it
        if path.name != "reasons.py" and "generate" not in path.parts
        for word in re.findall(r'"([a-z0-9_]+)"', path.read_text())
        if word in set(Reason)
    ]
    assert not found


@pytest.mark.parametrize(
    ("error_type", "reason"),
    [
        ("missing", Reason.MISSING_FIELD),
        ("int_type", Reason.WRONG_TYPE),
        ("greater_than_equal", Reason.OUT_OF_RANGE),
        ("unknown_zone", "unknown_zone"),
        ("not a word", Reason.BUSINESS_RULE),
    ],
)
def test_reason_of_an_error_type_of_pydantic(error_type: str, reason: str) -> None:
    assert reason_of(error_type) == reason
