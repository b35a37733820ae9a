"""Commands for several datasets: each runs by itself, and the worst decides the exit status."""

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from headrace.cli.group import refuse
from headrace.cli.report import report
from headrace.dataset_files import dataset_names, not_declared
from headrace.exceptions import HeadraceError
from headrace.output import say


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command did for one dataset: a document, and the same as lines."""

    document: Mapping[str, Any]
    lines: Iterable[str]


def run_each(
    names: Sequence[str],
    work: Callable[[str], Outcome],
    *,
    as_json: bool,
    refused: Mapping[str, HeadraceError] = MappingProxyType({}),
) -> None:
    """Run a command for each dataset in turn and print what it did; exit with status 1 if one failed.

    A failure prints one line and does not stop the others. With --json, one document lists all of them at the end, the
    failed ones with their error. refused: datasets that failed before, with the errors that are already printed.
    """
    documents: list[Mapping[str, Any]] = [error_document(name, error) for name, error in refused.items()]
    failed = bool(refused)
    for name in unique(names):
        try:
            outcome = work(name)
        except HeadraceError as error:
            refuse(error)
            documents.append(error_document(name, error))
            failed = True
            continue
        documents.append(outcome.document)
        if not as_json:
            for line in outcome.lines:
                say(line)
    if as_json:
        report(True, lambda: {"datasets": documents}, list)
    if failed:
        sys.exit(1)


def error_document(name: str, error: HeadraceError) -> dict[str, Any]:
    """An error as JSON types; command: the one that remedies it, if there is one."""
    return {"dataset": name, "error": str(error), "command": None if error.command is None else str(error.command)}


def unique(names: Iterable[str]) -> list[str]:
    """Each name once, in the given order."""
    return list(dict.fromkeys(names))


def declared(names: Iterable[str], datasets_dir: Path) -> list[str]:
    """Each name once; raises DatasetError for one that is not declared, before the others have run."""
    known, found = set(dataset_names(datasets_dir)), unique(names)
    for name in found:
        if name not in known:
            raise not_declared(datasets_dir, name)
    return found
