"""The values that forms, the API and scripts send, and what is made of them."""

from importlib import import_module
from typing import Any

import pytest

from headrace.airflow import forms
from headrace.exceptions import UsageError


@pytest.fixture(scope="module")
def jsonschema() -> Any:
    """What Airflow validates with at the trigger; imported here because that takes as long as a hundred tests."""
    return import_module("jsonschema")


@pytest.mark.parametrize("value", [5, 5.0, "5", " 5 ", "5.0", "5.", "005"])
def test_whole_number_that_converts_without_loss_is_accepted(jsonschema: Any, value: Any) -> None:
    jsonschema.validate(value, forms.whole_number(minimum=1, maximum=1000))  # what Airflow does at the trigger
    found = forms.read_whole_number({"limit": value}, "limit", minimum=1, maximum=1000)
    assert (found, type(found)) == (5, int)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_whole_number_that_is_not_given_is_none(jsonschema: Any, value: Any) -> None:
    jsonschema.validate(value, forms.whole_number(minimum=0, optional=True))
    assert forms.read_whole_number({"partition": value}, "partition", minimum=0) is None


@pytest.mark.parametrize(
    "value",
    [
        5.5,
        "5.5",
        True,
        False,
        0,
        "0",
        -1,
        "-1",
        1001,
        "1001",
        "five",
        "5e0",
        "\u0665",
        "1_0",
        [5],
        float("nan"),
        "9" * 50,
    ],
)
def test_whole_number_of_another_value_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^parameter limit: found .*, expected a whole number from 1 to 1000$"):
        forms.read_whole_number({"limit": value}, "limit", minimum=1, maximum=1000)


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), ("", None), (" \t", None), (" a b ", "a b"), (1200, "1200"), (1200.0, "1200")]
)
def test_text_is_read_without_blanks_and_a_blank_one_is_none(value: Any, text: str | None) -> None:
    assert forms.read_text({"from": value}, "from") == text


@pytest.mark.parametrize("value", [True, 1.5, ["a"], {"a": 1}])
def test_text_of_another_kind_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^parameter reason: found .*, expected a text$"):
        forms.read_text({"reason": value}, "reason")


@pytest.mark.parametrize("value", [None, "", " "])
def test_text_that_is_required_and_not_given_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^parameter location: found nothing, expected a value; fill it in"):
        forms.read_required_text({"location": value}, "location")


@pytest.mark.parametrize(("value", "names"), [(None, []), ([], []), ([" jobs ", ""], ["jobs"])])
def test_names_may_be_none(value: Any, names: list[str]) -> None:
    assert forms.read_names({"datasets": value}, "datasets") == names


@pytest.mark.parametrize("value", ["jobs", [1], {"a": 1}])
def test_names_of_another_kind_are_refused_in_one_line(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^parameter datasets: found .*, expected a list of names$"):
        forms.read_names({"datasets": value}, "datasets")


def test_choice_of_all_may_be_null_or_blank_and_no_other_name(jsonschema: Any) -> None:
    schema = forms.choice(["jobs", "users"], all_of_them="all")
    for value in (None, "", "jobs"):
        jsonschema.validate(value, schema)
    for other in ("dance", 1, " "):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(other, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(None, forms.choice(["jobs"]))
    jsonschema.validate(None, forms.choice([]))  # no dataset is declared: the DAG exists all the same
