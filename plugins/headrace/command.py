"""A `headrace` command as data: its arguments, and the shell line that runs exactly these.

An error carries its remedy as a field of this type. Commands are never parsed from messages: a message quotes names and
texts of others, who could then choose what an operator copies into a terminal.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Any

from headrace.escaping import visible

_DATASET = "DATASET"  # in a shape: the dataset of the row
_NUMBER = re.compile(r"[0-9]{1,19}")

# The commands that may be stored in the database, whose rows other programs can write. All are without --yes: a command
# that cannot be undone first prints its effect.
_SHAPES: tuple[tuple[str | re.Pattern[str], ...], ...] = (
    ("up",),
    ("up", "--only", "registry"),
    ("init",),
    ("build",),
    ("build", "--full-refresh"),
    ("drain", _DATASET),
    ("load", _DATASET),
    ("produce", _DATASET),
    ("describe", _DATASET),
    ("replay", _DATASET),
    ("dead-letters", _DATASET),
    ("dead-letters", _DATASET, "--publish"),
    ("adopt", _DATASET),
    ("reset", _DATASET),
    ("accept-loss", _DATASET, "--partition", _NUMBER, "--to", _NUMBER),
    ("reload", _DATASET, "--partition", _NUMBER, "--from", _NUMBER, "--to", _NUMBER),
)


class Command:
    """A command of `headrace`; str() gives its shell line."""

    __slots__ = ("arguments",)

    def __init__(self, *arguments: str | int) -> None:
        self.arguments = tuple(str(argument) for argument in arguments)

    @classmethod
    def of_row(cls, arguments: Sequence[str | None] | None, dataset: str) -> "Command | None":
        """The command that a row about a dataset stores; None if it is not one of _SHAPES."""
        if arguments is None or not any(_fits(shape, arguments, dataset) for shape in _SHAPES):
            return None
        return cls(*(str(argument) for argument in arguments))

    def __str__(self) -> str:
        return shlex.join(["headrace", *map(visible, self.arguments)])

    def __repr__(self) -> str:
        return f"Command{self.arguments!r}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Command) and self.arguments == other.arguments

    def __hash__(self) -> int:
        return hash(self.arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return Command, self.arguments


def _fits(shape: Sequence[str | re.Pattern[str]], arguments: Sequence[str | None], dataset: str) -> bool:
    return len(shape) == len(arguments) and all(
        _is(expected, found, dataset) for expected, found in zip(shape, arguments, strict=True)
    )


def _is(expected: str | re.Pattern[str], found: str | None, dataset: str) -> bool:
    if isinstance(expected, re.Pattern):
        return found is not None and expected.fullmatch(found) is not None
    return found == (dataset if expected == _DATASET else expected)


class ShellCommand(Command):
    """A command of another program, for example Airflow's; str() gives its shell line. Never read from a row."""

    __slots__ = ()

    def __str__(self) -> str:
        return shlex.join(map(visible, self.arguments))

    def __reduce__(self) -> tuple[Any, ...]:
        return ShellCommand, self.arguments
