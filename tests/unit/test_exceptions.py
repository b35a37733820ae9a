"""Errors travel between processes."""

import ast
import pickle
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import exceptions
from headrace.command import Command
from headrace.exceptions import (
    CheckpointMoved,
    DatasetError,
    HeadraceError,
    PermanentError,
    RetriableError,
    SourceChanged,
    Where,
)
from headrace.ingest.identity import check_identity
from headrace.postgres.checkpoints import Generation
from headrace.sources.base import PartitionState, SourceState

ALL = [kind for kind in vars(exceptions).values() if isinstance(kind, type) and issubclass(kind, HeadraceError)]
NAMES = {kind.__name__ for kind in ALL} | {"DagRunFailed", "AirflowUnavailable"}


@pytest.mark.parametrize("kind", ALL)
def test_exception_that_is_pickled_keeps_kind_and_message(kind: type[HeadraceError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("jobs[2]: found 1, expected 2")))
    assert type(copy) is kind
    assert str(copy) == "jobs[2]: found 1, expected 2"


@pytest.mark.parametrize("kind", ALL)
def test_exception_without_a_message_says_its_docstring(kind: type[HeadraceError]) -> None:
    assert str(kind()) == kind.__doc__
    assert str(pickle.loads(pickle.dumps(kind()))) == kind.__doc__


@pytest.mark.parametrize("kind", set(ALL) - {HeadraceError})
def test_exception_is_either_retriable_or_permanent(kind: type[HeadraceError]) -> None:
    assert issubclass(kind, RetriableError) != issubclass(kind, PermanentError)


def test_exception_keeps_its_command_beside_what_it_says_also_when_pickled() -> None:
    error = DatasetError(
        "jobs: nothing was ingested yet; `headrace drain jobs` begins", command=Command("drain", "jobs")
    )
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.command) == (str(error), Command("drain", "jobs"))
    assert DatasetError("x").command is None


def test_exception_keeps_the_place_that_it_names_also_when_pickled() -> None:
    where: Where = {"dataset": "jobs", "generation": 2, "partition": 1, "offset": 117}
    copy = pickle.loads(pickle.dumps(CheckpointMoved("jobs[1]: checkpoint is 120", **where)))
    assert (copy.dataset, copy.generation, copy.partition, copy.offset) == ("jobs", 2, 1, 117)
    assert (copy.command, CheckpointMoved("x").partition) == (None, None)


def test_exception_of_a_source_that_lost_records_names_the_partition_and_the_first_offset() -> None:
    generation = Generation("jobs", 3, "jobs", "id", {0: 5, 1: 40}, {0: None, 1: None})
    state = SourceState("jobs", "id", {0: PartitionState(0, 9, 9), 1: PartitionState(50, 90, 90)})
    with pytest.raises(SourceChanged) as raised:
        check_identity(generation, state)
    error = raised.value
    assert (error.dataset, error.generation, error.partition, error.offset) == ("jobs", 3, 1, 40)
    assert str(error).startswith("jobs[1]: retention overtook the checkpoint: [40, 50) ")


def test_exception_says_texts_of_others_in_visible_characters_in_one_line() -> None:
    error = DatasetError("`headrace reset users --yes`\x1b]0;x\x07\r\n::endgroup::\u2028\u202e\x9b.csv")
    assert str(error) == r"`headrace reset users --yes`\x1b]0;x\x07\r\n\x3a:endgroup::\u2028\u202e\x9b.csv"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def _raised() -> Iterator[tuple[Path, ast.Call]]:
    for path in (Path(__file__).parents[2] / "plugins").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in NAMES:
                yield path, node


def test_exception_whose_message_names_a_command_carries_it() -> None:
    """Of all that the sources construct: a literal `headrace ...`, and a command that is set into the message."""
    lacking, calls = [], 0
    for path, call in _raised():
        text = ast.unparse(call.args[0]) if call.args else ""
        names_one = re.search(r"`(headrace [a-z-]+|\{\w+\})", text) is not None
        is_general = re.search(r"`headrace (produce|accept-loss|reload)`", text) is not None  # of no certain arguments
        calls += names_one
        if names_one and not is_general and not any(keyword.arg == "command" for keyword in call.keywords):
            lacking.append(f"{path.name}:{call.lineno}: {text}")
    assert calls > 20
    assert lacking == []
