"""The command that writes the files of a dataset: infer."""

import sys
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.report import JSON, report
from headrace.output import say

if TYPE_CHECKING:
    from headrace.infer import Inference

KINDS = ("file", "topic", "stream", "subject", "table")  # as headrace.infer.options has them


@main.command()
@click.argument("source", metavar="TOPIC|STREAM|SUBJECT|FILE|TABLE")
@click.option("--kind", type=click.Choice(KINDS), help="What the argument names. Defaults to the first that exists.")
@click.option("--name", help="The dataset's name. Defaults to the source's.")
@click.option("--topic", help="The topic that has such records, for a FILE or a TABLE.")
@click.option("--records", type=click.IntRange(min=1), default=10_000, show_default=True, help="Size of the sample.")
@click.option("--dry-run", is_flag=True, help="Print the files instead of writing them.")
@click.option("--yes", is_flag=True, help="Replace files that exist.")
@JSON
def infer(source: str, dry_run: bool, yes: bool, as_json: bool, **options: Any) -> None:
    """Write the declaration, the dbt models and their YAML for a source of records.

    Reads the first and the last records of every partition, chooses a type for each field, a key and a time column, and
    prints which of the sample would be staged or dead letters. A TABLE is schema.table; its columns describe the topic
    of its rows. Nothing is staged.
    """
    from headrace.dataset import NAME
    from headrace.exceptions import DatasetError
    from headrace.infer import InferOptions
    from headrace.infer import infer as infer_dataset

    name = options["name"]
    if name is not None and not NAME.fullmatch(name):
        raise DatasetError(f"--name: found {name!r}, expected a dataset's name, {NAME.pattern}")
    inference = infer_dataset(open_deployment(), source, InferOptions(**options))
    if not as_json:  # before the question
        report(False, inference.document, inference.lines)
    if not dry_run:
        _confirm(inference, yes, may_ask=not as_json)
        inference.write()
    if as_json:
        report(True, lambda: inference.document() | {"written": not dry_run}, list)
        return
    for path, text in inference.files.items():
        if dry_run:
            say(f"--- {path}")
            say(text.rstrip("\n"), keep="\n")
        else:
            say(f"wrote {path}")


def _confirm(inference: "Inference", yes: bool, *, may_ask: bool) -> None:
    """Ask before files are replaced; raises NotConfirmed without a terminal or without consent."""
    from headrace.exceptions import NotConfirmed

    existing = ", ".join(map(str, inference.existing()))
    if not existing or yes:
        return
    if not may_ask or not sys.stdin.isatty():
        raise NotConfirmed(f"found {existing}, expected new files; nothing was written; `--yes` replaces them")
    if not click.confirm(f"replace {existing}?"):
        raise NotConfirmed("nothing was written")
