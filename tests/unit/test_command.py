"""Commands as data."""

import pickle
import shlex
from typing import Any

import click
import pytest

from headrace.cli import main
from headrace.command import _SHAPES, Command


@pytest.mark.parametrize("argument", ["jobs", "a b", "x; rm -rf ~", "$(id)", "`id`", "it's", "--yes", "", "é"])
def test_command_is_read_by_a_shell_as_its_arguments(argument: str) -> None:
    assert shlex.split(str(Command("load", argument))) == ["headrace", "load", argument]


def test_command_shows_no_character_that_is_not_visible() -> None:
    assert str(Command("load", "a\x1b[2J\nb\u202e")) == r"headrace load 'a\x1b[2J\nb\u202e'"


def test_command_is_a_value() -> None:
    command = Command("accept-loss", "jobs", "--partition", 0, "--to", 9)
    assert pickle.loads(pickle.dumps(command)) == command
    assert command == Command("accept-loss", "jobs", "--partition", "0", "--to", "9")
    assert {command} == {Command(*command.arguments)}
    assert command != str(command)


@pytest.mark.parametrize("shape", _SHAPES)
def test_command_that_may_be_kept_is_one_of_the_command_line(shape: tuple[Any, ...]) -> None:
    words = [word if isinstance(word, str) else "7" for word in shape]
    arguments = ["jobs" if word == "DATASET" else word for word in words]
    assert Command.of_row(arguments, "jobs") == Command(*arguments)
    command = main.commands[arguments[0]]
    command.make_context(
        arguments[0], arguments[1:], parent=click.Context(main, **main.context_settings)
    )  # usage errors are raised here
    assert "--yes" not in arguments
