"""Commands that cannot be undone: the effects first, then a question, then the deed."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from headrace.cli.group import refuse
from headrace.cli.report import report
from headrace.cli.several import Outcome, error_document, run_each
from headrace.command import Command
from headrace.exceptions import HeadraceError, NotConfirmed
from headrace.output import say

YES = click.option("--yes", is_flag=True, help="Do it without a question; needed where there is no terminal to ask on.")


@dataclass(frozen=True, slots=True)
class Irreversible:
    """A command that cannot be undone, for one or several datasets.

    preview: its effects on a dataset, one per line; none if nothing needs to be done. act: does it. command: the same
    command again, for the message that names it.
    """

    names: Sequence[str]
    preview: Callable[[str], list[str]]
    act: Callable[[str], Outcome]
    command: Command

    def run(self, *, yes: bool, as_json: bool) -> None:
        """Print the effects on each dataset, ask on a terminal, and do it; exit with status 1 if one was refused.

        Raises NotConfirmed if the answer is no, or if there is no terminal, or with --json; not with --yes.
        """
        effects: dict[str, list[str]] = {}
        errors: dict[str, HeadraceError] = {}
        for name in self.names:
            try:
                effects[name] = self.preview(name)
            except HeadraceError as error:
                refuse(error)
                errors[name] = error
        if not as_json:
            for line in (line for lines in effects.values() for line in lines):
                say(line)
        if any(effects.values()) and not yes:
            self._ask(effects, errors, as_json)
        work = self.act
        run_each(list(effects), lambda name: _with_effects(work(name), effects[name]), as_json=as_json, refused=errors)

    def _ask(self, effects: dict[str, list[str]], errors: dict[str, HeadraceError], as_json: bool) -> None:
        if not as_json and sys.stdin.isatty():
            if not click.confirm(f"{self.command}?"):
                raise NotConfirmed("nothing was changed")
            return
        if as_json:
            previews = [{"dataset": name, "effects": lines} for name, lines in effects.items()]
            refused = [error_document(name, error) for name, error in errors.items()]
            report(True, lambda: {"datasets": previews + refused}, list)
        confirmed = Command(*self.command.arguments, "--yes")
        raise NotConfirmed(f"nothing was changed; `{confirmed}` does it", command=confirmed)


def _with_effects(outcome: Outcome, effects: list[str]) -> Outcome:
    return Outcome({**outcome.document, "effects": effects}, outcome.lines)
