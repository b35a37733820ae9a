"""Commands that fill staging tables: load, drain, follow."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.progress import progress_bar
from headrace.output import say

if TYPE_CHECKING:
    _NumberType = click.ParamType[float]
else:
    _NumberType = click.ParamType  # not generic before click 8.4, which the constraints of Airflow 3.1 exclude


class Percent(_NumberType):
    """A percentage, with or without its sign."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse 10 or 10%; click reports anything outside 0% to 100% as a usage error."""
        try:
            found = float(str(value).removesuffix("%"))
        except ValueError:
            found = -1
        if not 0 <= found <= 100:
            self.fail(f"found {value!r}, expected 0% to 100%", param, ctx)
        return found


@main.command()
@click.argument("dataset")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--replace", is_flag=True, help="Tombstone the entities that FILE no longer names.")
@click.option(
    "--max-removed",
    type=Percent(),
    default="10%",
    show_default=True,
    help="Refuse --replace if more than this part of the entities would be tombstoned.",
)
@click.option("--again", is_flag=True, help="Load an unchanged FILE again, over one that was loaded since.")
def load(dataset: str, file: Path | None, replace: bool, max_removed: float, again: bool) -> None:
    """Load a file dataset; an unchanged file is skipped, a changed one merged.

    .ndjson, .jsonl, .csv (a header, commas, UTF-8), each also with .gz, or .parquet. An invalid line is a dead letter
    and keeps its entity; if the key of one cannot be read, --replace removes nothing.
    """
    from headrace.ingest.load import LoadOptions, load_file

    with progress_bar("loading") as update:
        path = file.absolute() if file else None
        outcome = load_file(
            open_deployment(),
            dataset,
            path=path,
            options=LoadOptions(replace=replace, max_removed=max_removed, again=again, on_progress=update),
        )
    say(outcome.summary())


@main.command()
@click.argument("dataset")
@click.option("--parallel", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--max-records", type=click.IntRange(min=1), help="Read at most this many offsets.")
@click.option("--max-seconds", type=click.FloatRange(min=0), help="After this time commit what was read and stop.")
def drain(dataset: str, parallel: int, max_records: int | None, max_seconds: float | None) -> None:
    """Read new records of the topic of DATASET into its staging table, up to its current end."""
    from headrace.ingest.parallel import drain_dataset
    from headrace.publish.dead_letter_topic import publish_after_drain

    deployment = open_deployment()
    with progress_bar("draining") as update:
        plan, result = drain_dataset(
            deployment,
            dataset,
            parallel=parallel,
            max_records=max_records,
            max_seconds=max_seconds,
            on_progress=update,
        )
    say(result.summary(plan))
    published = publish_after_drain(deployment, deployment.dataset(dataset))
    if published:
        say(f"{dataset}: {published} dead letters published")


@main.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("--max-seconds", type=click.FloatRange(min=0), help="Stop after this time. Defaults to never.")
def follow(datasets: tuple[str, ...], max_seconds: float | None) -> None:
    """Drain and build as records arrive, until stopped. Defaults to every topic and stream.

    Scheduled runs skip these datasets meanwhile. Exit status 1 if one of them still fails at the end.
    """
    from headrace.follow.follower import FollowOptions
    from headrace.follow.follower import follow as follow_datasets
    from headrace.signals import stopped_by_signals

    deployment = open_deployment()
    with stopped_by_signals() as stop:
        options = FollowOptions(max_seconds=max_seconds, print_line=say)
        result = follow_datasets(deployment, datasets, stop=stop, options=options)
    say(result.summary())
    result.raise_failures()
