"""The command that checks declarations and models: check."""

import random
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from headrace.cli.group import main, read_settings
from headrace.output import json_text, say

if TYPE_CHECKING:
    from headrace.check import Finding


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.option("--marts", is_flag=True, help="Compare incremental builds of a copy with whole ones; needs Postgres.")
@click.option("--seed", type=int, help="With --marts: of the random changes. Defaults to a random one.")
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True, help="With --marts: builds.")
@click.option("--rows", type=click.IntRange(0), default=1_000, show_default=True, help="With --marts: copied at most.")
@click.argument("models", nargs=-1)
def check(as_json: bool, marts: bool, seed: int | None, rounds: int, rows: int, models: tuple[str, ...]) -> None:
    """Check all declarations and dbt models without any service; print every fault.

    One line per fault: file, line, found, expected, remedy. Exit status 1 if there is one.

    With --marts: copy the newest rows of each dataset into a scratch schema, change them at random, build MODELS (none:
    all) incrementally, and compare each with its whole SELECT. That finds a wrong grain. The schema is dropped at the
    end; nothing else in the database changes.
    """
    if marts:
        _check_marts(as_json, models, random.randrange(100_000) if seed is None else seed, rounds, rows)
        return
    if models or seed is not None:
        raise click.UsageError("MODELS and --seed need --marts: other checks read every declaration and model")
    from headrace.check import check as check_all

    _print(check_all(read_settings()), as_json, "no faults in declarations and models")


def _check_marts(as_json: bool, models: Sequence[str], seed: int, rounds: int, rows: int) -> None:
    from headrace.check.marts import Scope, check_marts

    checked = check_marts(read_settings(), Scope(models, seed, rounds, rows), (lambda _line: None) if as_json else say)
    for model, changed in checked.rows.items() if not as_json else ():
        if model not in checked.findings:
            note = "" if changed else "; its grain is not checked: no change of the copied rows reached it"
            say(f"{model}: {changed} rows changed in {rounds} builds{note}")
    _print(list(checked.findings.values()), as_json, "every incremental build equals its whole SELECT")


def _print(findings: "Sequence[Finding]", as_json: bool, nothing_found: str) -> None:
    if as_json:
        print(json_text({"findings": [finding.document() for finding in findings]}, indent=2))
    else:
        for finding in findings:
            say(finding.text())
        say(f"{len(findings)} faults" if findings else nothing_found)
    if findings:
        sys.exit(1)
