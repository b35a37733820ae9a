"""All declarations of a deployment: what one of them breaks, and what it does not."""

from pathlib import Path

import pytest

from headrace.catalog import by_priority, load_declaration, load_declarations
from headrace.exceptions import DatasetError

GOOD = """
from pydantic import BaseModel
from headrace.contract import Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, File, KafkaTopic

class Thing(BaseModel):
    model_config = CONTRACT_CONFIG
    ID: Text

DATASET = Dataset(name="NAME", contract=Thing, source=SOURCE)
"""
TOPIC, FILE = 'KafkaTopic(topic="t")', 'File(path="x.ndjson")'
BROKEN = {
    "syntax": ("def broken(:", "SyntaxError"),
    "bytes": ("x = '\0'", "null bytes"),
    "import": ("import nothing_of_that_name", "ModuleNotFoundError: No module named"),
    "raises": ("raise ValueError('line one\\nline two')", "ValueError: line one\\nline two"),
    "exits": ("import sys; sys.exit(0)", "SystemExit"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "nothing": ("", "expected `DATASET = Dataset"),
    "misnamed": (GOOD.replace("NAME", "other").replace("SOURCE", TOPIC), "name='misnamed'"),
    "declared_wrong": (GOOD.replace("SOURCE", "KafkaTopic(topic='a b')"), "topic 'a b'"),
    "often": (GOOD.replace("NAME", "often").replace("SOURCE", TOPIC + ", schedule_s='often'"), "TypeError"),
    "never": (GOOD.replace("NAME", "never").replace("SOURCE", TOPIC + ", schedule_s=0"), "schedule_s is 0"),
    "slow": (GOOD.replace("NAME", "slow").replace("SOURCE", TOPIC + ", max_records_per_s=0"), "max_records_per_s is 0"),
    "first": (GOOD.replace("NAME", "first").replace("SOURCE", TOPIC + ", priority=1.5"), "priority is 1.5, expected"),
    "zone": (GOOD.replace("NAME", "zone").replace("SOURCE", TOPIC + ", zone='Mars/Base'"), "Mars/Base"),
}


def declare(folder: Path, name: str, source: str = TOPIC) -> None:
    (folder / f"{name}.py").write_text(GOOD.replace("NAME", name).replace("SOURCE", source))


@pytest.mark.parametrize("kind", BROKEN)
def test_declaration_that_cannot_be_used_leaves_the_others_as_they_are(kind: str, tmp_path: Path) -> None:
    text, expected = BROKEN[kind]
    declare(tmp_path, "jobs")
    declare(tmp_path, "users", FILE)
    (tmp_path / f"{kind}.py").write_text(text)
    found = load_declarations(tmp_path)
    assert list(found.datasets) == ["jobs", "users"]
    assert list(found.faults) == [kind]
    message = str(found.faults[kind].error)
    assert expected in message
    assert "\n" not in message
    with pytest.raises(DatasetError) as error:
        load_declaration(tmp_path, kind)
    assert str(error.value) == message


def test_declarations_say_which_come_from_streams_as_far_as_a_broken_one_tells(tmp_path: Path) -> None:
    declare(tmp_path, "jobs")
    declare(tmp_path, "users", FILE)
    (tmp_path / "broken_topic.py").write_text("import x\nDATASET = Dataset(source=KafkaTopic(topic='x'))")
    (tmp_path / "broken_file.py").write_text("import x\nDATASET = Dataset(source = dataset.File(path='x'))")
    found = load_declarations(tmp_path)
    assert found.streams == ["broken_topic", "jobs"]
    assert found.names == ["broken_file", "broken_topic", "jobs", "users"]
    assert {name: fault.is_file for name, fault in found.faults.items()} == {
        "broken_file": True,
        "broken_topic": False,
    }


def test_declarations_of_an_empty_folder_and_of_none_are_empty(tmp_path: Path) -> None:
    assert load_declarations(tmp_path).names == load_declarations(tmp_path / "absent").names == []


def test_datasets_with_the_same_dag_share_it_and_a_broken_one_does_not_stop_the_others(tmp_path: Path) -> None:
    declare(tmp_path, "clicks", TOPIC + ', dag="web", schedule_s=30')
    declare(tmp_path, "web", TOPIC + ', dag="web"')  # may have the name of its DAG
    declare(tmp_path, "jobs")
    declare(tmp_path, "views", TOPIC + ', dag="web", zone="Mars/Base"')
    declare(tmp_path, "hits", TOPIC + ', dag="a-b"')
    declare(tmp_path, "users", FILE + ', dag="web"')
    found = load_declarations(tmp_path)
    assert {dag: [dataset.name for dataset in datasets] for dag, datasets in found.shared.items()} == {
        "web": ["clicks", "web"]
    }
    assert {name: fault.dag_id for name, fault in found.faults.items()} == {
        "views": "ingest_web.broken",
        "hits": "ingest_hits",  # no DAG has such a name
        "users": "load_users",
    }
    assert "hits: expected a dag that matches [a-z][a-z0-9_]{0,40}, found 'a-b'" in str(found.faults["hits"].error)
    assert "users: dag is set, expected none: a file is not shared" in str(found.faults["users"].error)


def test_dag_of_another_dataset_s_own_is_refused_by_the_names_of_both(tmp_path: Path) -> None:
    declare(tmp_path, "web")
    declare(tmp_path, "clicks", TOPIC + ', dag="web"')
    declare(tmp_path, "views", TOPIC + ', dag="other"')
    found = load_declarations(tmp_path)
    assert sorted(found.datasets) == ["views", "web"]
    assert str(found.faults["clicks"].error) == (
        "clicks: dag is 'web', expected another one: dataset web has a DAG of its own, ingest_web; choose another "
        "name, or give dataset web dag='web' too"
    )
    assert found.faults["clicks"].dag_id == "ingest_web.broken"


def test_datasets_are_ordered_by_priority_and_a_broken_one_has_the_default(tmp_path: Path) -> None:
    for name, priority in (("low", -3), ("same", 1), ("high", 7)):
        declare(tmp_path, name, f"{TOPIC}, priority={priority}")
    (tmp_path / "broken.py").write_text("def broken(:")
    assert by_priority(["low", "same", "broken", "high"], tmp_path) == ["high", "same", "broken", "low"]
    assert by_priority(["broken"], tmp_path) == ["broken"]


ORDER = """
from __future__ import annotations
from pydantic import BaseModel
from headrace.contract import Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic

class Thing(BaseModel):
    model_config = CONTRACT_CONFIG
    id: Text
    part: Part | None = None

class Part(BaseModel):
    n: int

DATASET = Dataset(name="late", contract=Thing, source=KafkaTopic(topic="t"))
"""


def test_contract_may_name_a_model_that_is_declared_below_it(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(ORDER)
    contract = load_declaration(tmp_path, "late").compiled
    assert contract.decode(None, b'{"id": "a", "part": {"n": "5"}}') == ["a", b'{"n":5}', None]


@pytest.mark.parametrize("name", ["Nowhere", "key", "zone"])  # names of no model, also those of Headrace's own code
def test_name_that_is_nowhere_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(ORDER.replace("part: Part", f"part: {name}"))
    with pytest.raises(DatasetError, match=rf"late\.py: .*{name}.* is not defined.*correct the file"):
        load_declaration(tmp_path, "late")
