"""Contracts that another process has compiled are not compiled again, until something of theirs changes."""

import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.catalog import load_declarations
from headrace.contracts.contract import Contract
from headrace.settings import Settings

DECLARATION = """
from typing import Annotated
from pydantic import BaseModel
from headrace.contract import Integer, Masked, Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic

class Thing(BaseModel):
    model_config = CONTRACT_CONFIG
    id: Text
    note: NOTE = None

DATASET = Dataset(name="NAME", contract=Thing, key="id", source=KafkaTopic(topic="t"))
"""
UNSTORABLE = "complex | None"  # no column holds it


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "datasets"
    (folder / "a").mkdir(parents=True)
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    return home


def declare(folder: Path, name: str, note: str = "Integer | None") -> None:
    (folder / f"{name}.py").write_text(DECLARATION.replace("NAME", name).replace("NOTE", note))


def compiled(folder: Path, home: Path) -> list[str]:
    """The datasets whose contracts the next process compiles."""
    found = load_declarations(folder, home)
    return [name for name in found.names if name in found.faults or "compiled" in vars(found.datasets[name])]


def test_contract_of_an_unchanged_folder_is_compiled_when_it_is_used(folder: Path, home: Path) -> None:
    declare(folder, "jobs")
    assert compiled(folder, home) == ["jobs"]
    assert compiled(folder, home) == []
    contract = load_declarations(folder, home).datasets["jobs"].compiled
    assert contract.decode(b"a", b'{"id": "a", "note": "7", "more": [1]}') == ["a", 7, b'{"more":[1]}']
    assert [oct(path.stat().st_mode & 0o777) for path in home.iterdir()] == ["0o600"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "its file": lambda folder: declare(folder, "jobs", "Text | None"),
    "another declaration": lambda folder: declare(folder, "rides"),
    "a module beside them": lambda folder: (folder / "_shared.py").write_text("X = 1"),
    "a module below them": lambda folder: (folder / "a" / "b.py").write_text("X = 1"),
    "its time alone": lambda folder: os.utime(folder / "jobs.py", ns=(1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_all_contracts_are_compiled_again_after_a_change(change: str, folder: Path, home: Path) -> None:
    declare(folder, "jobs")
    compiled(folder, home)
    CHANGES[change](folder)
    assert "jobs" in compiled(folder, home)
    assert compiled(folder, home) == []


@pytest.mark.parametrize("change", ["written", "replaced by an older one", "removed"])
def test_all_contracts_are_compiled_again_after_a_change_of_what_they_import(
    change: str, folder: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "of_the_project.py"
    helper.write_text("from headrace.contract import Integer as Note\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    declare(folder, "jobs", "Note | None")
    text = (folder / "jobs.py").read_text()
    (folder / "jobs.py").write_text("from of_the_project import Note\n" + text)
    try:
        assert compiled(folder, home) == ["jobs"]
        assert compiled(folder, home) == []
        helper.unlink()
        if change != "removed":
            helper.write_text("Note = complex\n")
        if change == "replaced by an older one":
            os.utime(helper, ns=(1, 1))
        sys.modules.pop("of_the_project")  # the next process
        importlib.invalidate_caches()
        assert list(load_declarations(folder, home).faults) == ["jobs"]
    finally:
        sys.modules.pop("of_the_project", None)


def test_contract_of_another_release_is_compiled_again(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(folder, "jobs")
    compiled(folder, home)
    monkeypatch.setattr("headrace.catalog.__version__", "9.9.9")
    assert compiled(folder, home) == ["jobs"]


def test_fault_of_a_contract_is_found_every_time_and_leaves_the_others_known(folder: Path, home: Path) -> None:
    declare(folder, "jobs")
    declare(folder, "broken", UNSTORABLE)
    compiled(folder, home)
    found = load_declarations(folder, home)
    assert "field 'note' is complex" in str(found.faults["broken"].error)
    assert compiled(folder, home) == ["broken"]


def test_folders_of_the_same_home_are_told_apart(folder: Path, home: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    declare(folder, "jobs")
    declare(other, "jobs", UNSTORABLE)
    for _ in range(2):
        load_declarations(folder, home)
        assert list(load_declarations(other, home).faults) == ["jobs"]
    assert compiled(folder, home) == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff", b'{"names": 1}', b'{"state": "x", "names": ["jobs"]}', None]
)
def test_file_that_is_not_ours_counts_as_none(content: bytes | None, folder: Path, home: Path) -> None:
    declare(folder, "jobs")
    compiled(folder, home)
    (path,) = home.iterdir()
    path.unlink()
    path.mkdir() if content is None else path.write_bytes(content)
    assert compiled(folder, home) == ["jobs"]


@pytest.mark.parametrize("home", ["absent", "/dev/null"])
def test_home_that_holds_nothing_is_left_as_it_is(home: str, folder: Path, tmp_path: Path) -> None:
    declare(folder, "jobs")
    assert compiled(folder, tmp_path / home) == compiled(folder, tmp_path / home) == ["jobs"]
    assert not (tmp_path / "absent").exists()


def test_who_decodes_compiles_all(folder: Path, home: Path) -> None:
    declare(folder, "jobs")
    compiled(folder, home)
    assert "compiled" in vars(load_declarations(folder).datasets["jobs"])


def test_dataset_without_masks_is_connected_without_its_contract(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(folder, "plain")
    declare(folder, "masked", 'Annotated[Text, Masked("hmac")] | None')
    compiled(folder, home)
    found = load_declarations(folder, home).datasets
    settings = Settings(masking_key="k" * 32)
    assert found["masked"].connected(settings).masking_key == b"k" * 32
    made: list[object] = []
    monkeypatch.setattr(Contract, "__init__", lambda *_, **__: made.append(1))
    assert found["plain"].connected(settings) is found["plain"]
    assert not made
