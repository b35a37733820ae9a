"""Declarations of datasets."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from headrace.contract import Integer, Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, File, KafkaTopic, dataset_names, load_dataset
from headrace.exceptions import DatasetError
from headrace.settings import Settings


class Thing(BaseModel):
    model_config = CONTRACT_CONFIG

    ID: Integer
    NAME: Text


@pytest.mark.parametrize("name", ["", "Jobs", "1jobs", "jobs-2", "jobs;", "j" * 42, "jobs\n", "../jobs"])
def test_dataset_with_a_name_that_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(DatasetError, match="expected a name that matches"):
        Dataset(name=name, contract=Thing, source=KafkaTopic(topic="t"))


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "a/b", "ä", "t" * 250, "t\n"])
def test_dataset_with_a_topic_that_kafka_refuses_is_refused(topic: str) -> None:
    with pytest.raises(DatasetError, match="as Kafka does"):
        KafkaTopic(topic=topic)


@pytest.mark.parametrize("topic", ["jobs", "a.b-c_D9", "...", "t" * 249])
def test_dataset_with_a_topic_that_kafka_takes_is_accepted(topic: str) -> None:
    assert KafkaTopic(topic=topic).topic == topic


@pytest.mark.parametrize("path", ["/etc/users.ndjson", "../users.ndjson", "a/../../users.ndjson"])
def test_dataset_with_a_file_outside_of_the_data_is_refused(path: str) -> None:
    with pytest.raises(DatasetError, match="expected a path below HEADRACE_DATA_DIR"):
        File(path=path)


@pytest.mark.parametrize(("role", "field"), [("key", "id"), ("time_column", "AT")])
def test_dataset_with_a_role_for_no_field_is_refused(role: str, field: str) -> None:
    declared: dict[str, Any] = {role: field}
    with pytest.raises(DatasetError, match=f"things: {role} '{field}' is not a field of Thing"):
        Dataset(name="things", contract=Thing, source=KafkaTopic(topic="t"), **declared)


def test_dataset_declared_by_this_deployment_can_all_be_loaded() -> None:
    folder = Settings().datasets_dir
    names = dataset_names(folder)
    assert {"jobs", "users"} <= set(names)
    for name in names:
        dataset = load_dataset(folder, name)
        assert dataset.name == name
        assert dataset.compiled.columns
        assert dataset.description


@pytest.mark.parametrize("name", ["absent", "Jobs", "../jobs", "", "__init__"])
def test_dataset_that_is_not_declared_is_refused_with_a_list(name: str) -> None:
    with pytest.raises(DatasetError, match=r"expected one of .*jobs, .*users"):
        load_dataset(Settings().datasets_dir, name)


def test_dataset_of_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected one of none"):
        load_dataset(tmp_path, "jobs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_that_name", "cannot be imported: ModuleNotFoundError"),
        ("def broken(:", "cannot be imported: SyntaxError"),
        ("1 / 0", "cannot be imported: ZeroDivisionError: division by zero"),
        ("", "expected `DATASET = Dataset\\(name='things', ...\\)`, found None"),
        ("DATASET = 1", "found 1"),
        (
            "from headrace.dataset import *\nDATASET = Dataset(name='others', contract=BaseModel, "
            "source=KafkaTopic(topic='t'))",
            "name='things'.*found Dataset\\(name='others'",
        ),
        (
            "from headrace.dataset import *\nDATASET = Dataset(name='things', contract=BaseModel, "
            "source=KafkaTopic(topic='a b'))",
            "^topic 'a b'",
        ),
    ],
)
def test_dataset_whose_file_cannot_be_used_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "things.py").write_text(text)
    with pytest.raises(DatasetError, match=message):
        load_dataset(tmp_path, "things")


def test_dataset_names_are_those_of_the_files_that_may_be_datasets(tmp_path: Path) -> None:
    for name in ("jobs.py", "a_1.py", "__init__.py", "Notes.py", "x.txt", "bad-name.py"):
        (tmp_path / name).write_text("1 / 0")
    assert dataset_names(tmp_path) == ["a_1", "jobs"]
