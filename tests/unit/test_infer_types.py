"""Types, names and keys that `headrace infer` chooses, on records like those of well-known producers."""

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.contracts import strict_json
from headrace.infer.draft import FieldDraft
from headrace.infer.names import SQL_RESERVED, class_name, dataset_name, name_fields
from headrace.infer.values import type_of
from tests.support.inferred import inferred, json_records, records_of, types


def parsed(*documents: str) -> list[dict[str, Any]]:
    return [strict_json.parse(document) for document in documents]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("a", "[1, 2, -3]", "Integer"),
        ("a", "[1, 9223372036854775808]", "Numeric"),
        ("a", "[1, 2.50]", "Numeric"),
        ("a", "[1e3, 0.1]", "Numeric"),
        ("a", "[true, false]", "Boolean"),
        ("a", "[1, true]", "Any"),
        ("a", '["1", "2"]', "Text"),
        ("a", '[1, "2"]', "Integer"),
        ("a", '[1, "two"]', "Text"),
        ("a", '["007", 7]', "Text"),
        ("a", '[{"b": 1}, {}]', "dict[str, Any]"),
        ("a", "[[1], []]", "list[Any]"),
        ("a", '[{"b": 1}, "text"]', "Any"),
        ("a", '["2026-03-01"]', "Date"),
        ("a", '["2026-03-01", "2026-03-01T10:00:00Z"]', "Timestamp"),
        ("a", '["2026-03-01T10:00:00.123456+01:00"]', "Timestamp"),
        ("a", '["2026-13-01"]', "Text"),
        ("a", '["10:30:00"]', "TimeOfDay"),
        ("a", '["6fa459ea-ee8a-3ca4-894e-db77e160355e"]', "UUID"),
        ("a", '["6fa459ea-ee8a-3ca4-894e-db77e160355e", "none"]', "Text"),
        ("created", "[1700000000, 1700000001.5]", "EpochSeconds"),
        ("createdAt", "[1700000000123]", "EpochMilliseconds"),
        ("tpep_pickup_datetime", "[1551434400000]", "EpochMilliseconds"),
        ("created", "[0, 1700000000]", "Integer"),
        ("quantity", "[1700000000]", "Integer"),
        ("updated_at", "[1700000000123456]", "Integer"),
        ("a", "[]", "Any"),
        ("a", '["' + "x" * 65 + '"]', "str"),
    ],
)
def test_type_of_values(name: str, values: str, expected: str) -> None:
    assert type_of(name, strict_json.parse_value(values)).expression == expected


def test_type_of_a_number_that_may_be_a_time_says_so() -> None:
    assert "EpochMilliseconds" in type_of("quantity", [1_700_000_000_123]).comment
    assert "microseconds" in type_of("updated_at", [1_700_000_000_123_456]).comment


def test_type_of_arrays_of_objects_says_how_they_become_rows() -> None:
    assert 'Child(explode="$.line_items"' in type_of("line_items", [[], [{"sku": "a"}]]).comment
    assert not type_of("tags", [[], [{"sku": "a"}, 1]]).comment


def test_type_of_text_only_sources_reads_numbers_in_text() -> None:
    assert type_of("value", ["1.5", "2"], all_text=True).expression == "Numeric"
    assert type_of("ts", ["1705312803.45"], all_text=True).expression == "EpochSeconds"
    assert type_of("zip", ["01234", "12345"], all_text=True).expression == "Text"
    assert type_of("ok", ["true", "false"], all_text=True).expression == "Boolean"


def test_type_of_a_few_odd_values_is_that_of_the_others() -> None:
    found = type_of("amount", [*range(999), "a lot"])
    assert (found.expression, found.comment) == ("Integer", "1 of 1000 are not, such as 'a lot'")
    assert type_of("at", [*["2026-03-01T10:00:00Z"] * 999, "soon"]).expression == "Timestamp"
    assert type_of("at", [*["2026-03-01T10:00:00Z"] * 95, *["soon"] * 5]).expression == "Text"
    assert type_of("amount", [1, 2, "a lot"]).expression == "Text"  # too few to say which is odd


def test_type_of_choices_is_a_literal_only_in_a_large_sample() -> None:
    statuses = ["paid", "open"] * 1_000
    assert type_of("status", statuses).expression == 'Literal["open", "paid"]'
    assert type_of("status", statuses[:-2]).expression == "Text"
    assert type_of("city", statuses).expression == "Text"
    assert type_of("status", [*statuses, "void"]).expression == "Text"  # a rare one: there may be more
    assert type_of("status", [f"s{i % 6}" for i in range(3_000)]).expression == "Text"


def test_fields_that_are_missing_null_or_empty_may_be_absent() -> None:
    found = types(
        parsed('{"a": 1, "b": 1, "c": 1, "d": "2026-03-01", "e": ""}', '{"a": 1, "c": null, "d": "", "e": "x"}')
    )
    assert found == {"a": "Integer", "b": "Integer?", "c": "Integer?", "d": "Date?", "e": "Text"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["id", "type", "userId", "PULocationID"], ["id", "type", "userId", "PULocationID"]),
        (["order", "USER", "select"], ["order_", "user_", "select_"]),
        (["class", "None", "copy", "json", "model_x"], ["class_", "none", "copy_", "json_", "n_model_x"]),
        (["Date", "Text", "str"], ["date", "text", "str_"]),
        (["a b", "a-b", "a.b", "A_B"], ["a_b", "a_b_2", "a_b_3", "a_b_4"]),
        (["_id", "id", "ID", "xmin"], ["id", "id_2", "id_3", "xmin_"]),
        (["2fa", "größe", "日本", "$ref"], ["n_2_fa", "grosse", "field", "ref"]),
        (["x" * 80, "x" * 90], ["x" * 37, "x" * 37 + "_2"]),
    ],
)
def test_names_are_valid_in_python_and_sql(names: list[str], expected: list[str]) -> None:
    fields = [FieldDraft(name, "Integer") for name in names]
    name_fields(fields)
    assert [field.name for field in fields] == expected


def test_names_of_datasets_and_classes() -> None:
    assert dataset_name("public.Orders") == "public_orders"
    assert dataset_name("2026-events") == "d_2026_events"
    assert dataset_name("user") == "user_"
    assert dataset_name("x" * 60) == "x" * 41
    assert [class_name(n) for n in ("payments", "order_lines", "entries", "address", "text")] == [
        "Payment", "OrderLine", "Entry", "Address", "TextRecord",
    ]  # fmt: skip


def test_every_awkward_name_makes_a_declaration_that_stages(tmp_path: Path) -> None:
    names = [
        *sorted(SQL_RESERVED),
        "class",
        "Date",
        "Text",
        "str",
        "dict",
        "a b",
        "a.b",
        "$ref",
        "_id",
        "größe",
        'q"q',
        "model_x",
    ]
    documents = [{name: number for number, name in enumerate(names)} | {"at": None}] * 3
    dataset, trial, _ = inferred(json_records(documents), tmp_path)
    assert (trial.staged, trial.dead) == (3, 0)
    row = dataset.compiled.decode(None, json.dumps(documents[0]).encode())
    assert isinstance(row, list)
    assert row[: len(names)] == list(range(len(names)))
    assert row[-1] is None  # nothing was left for _extra


def test_key_is_the_field_that_records_are_keyed_by(tmp_path: Path) -> None:
    documents = [{"customer": f"c{i % 7}", "n": i} for i in range(50)]
    dataset, trial, _ = inferred(json_records(documents, "customer"), tmp_path)
    assert (dataset.key, dataset.keyed, trial.staged) == ("customer", True, 50)


def test_key_is_an_id_if_records_are_events_of_what_they_are_keyed_by(tmp_path: Path) -> None:
    documents = [{"customer": f"c{i % 7}", "event_id": f"e{i}"} for i in range(50)]
    records = json_records(documents, "customer")
    dataset, trial, _ = inferred(records, tmp_path)
    assert (dataset.key, dataset.keyed, trial.staged) == ("event_id", False, 50)
    deleted, trial, _ = inferred([*records, *records_of([(b"c1", None)])], tmp_path, "deleted")
    assert (deleted.key, deleted.keyed, trial.tombstones) == ("customer", True, 1)


def test_key_in_json_has_a_format(tmp_path: Path) -> None:
    pairs = [(b'{"id": %d}' % i, b'{"id": %d, "name": "n"}' % i) for i in range(20)]
    dataset, trial, _ = inferred(records_of(list(pairs)), tmp_path)
    assert (dataset.key, trial.staged, trial.dead) == ("id", 20, 0)
    assert dataset.key_format is not None


def test_key_of_a_few_or_repeating_values_is_none(tmp_path: Path) -> None:
    assert inferred(json_records([{"id": i, "n": 1} for i in range(9)]), tmp_path, "few")[0].key is None
    assert inferred(json_records([{"id": i % 5, "n": 1} for i in range(50)]), tmp_path, "again")[0].key is None
