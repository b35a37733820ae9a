"""The output of commands that report: lines of text, or with --json one document."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

from headrace.output import say, say_json

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


def report(
    as_json: bool, document: Callable[[], Mapping[str, Any]], lines: Callable[[], Iterable[str]], *, keep: str = ""
) -> None:
    """Print a document, or lines; only the one that is asked for is made. keep: what lines may contain unescaped."""
    if as_json:
        say_json(document())
        return
    for line in lines():
        say(line, keep=keep)
