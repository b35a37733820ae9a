"""Commands that fill staging tables: load, drain, follow."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.names import DATASET, DATASET_OR_FILE
from headrace.cli.progress import progress_bar
from headrace.cli.report import JSON
from headrace.cli.several import Outcome, declared, run_each
from headrace.dataset_files import dataset_names
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
@click.argument("arguments", nargs=-1, required=True, type=DATASET_OR_FILE, metavar="DATASET [FILE] | DATASET...")
@click.option("--replace", is_flag=True, help="Tombstone the entities that FILE no longer names.")
@click.option(
    "--max-removed",
    type=Percent(),
    default="10%",
    show_default=True,
    help="Refuse --replace if more than this part of the entities would be tombstoned.",
)
@click.option("--again", is_flag=True, help="Load an unchanged FILE again, over one that was loaded since.")
@JSON
def load(arguments: tuple[str, ...], replace: bool, max_removed: float, again: bool, as_json: bool) -> None:
    """Load file datasets; an unchanged file is skipped, a changed one merged.

    .ndjson, .jsonl, .csv (a header, commas, UTF-8), each also with .gz, or .parquet. An invalid line is a dead letter
    and keeps its entity; if the key of one cannot be read, --replace removes nothing. A FILE that has the name of a
    dataset is named by a path: ./users. Exit status 1 if a dataset was not loaded; the others are.
    """
    from headrace.ingest.load import LoadOptions, load_file

    deployment = open_deployment()
    names, path = _named(arguments, deployment.settings.datasets_dir)

    def work(name: str) -> Outcome:
        with progress_bar(f"loading {name}") as update:
            options = LoadOptions(replace=replace, max_removed=max_removed, again=again, on_progress=update)
            result = load_file(deployment, name, path=path, options=options)
        return Outcome(result.document(), [result.summary()])

    run_each(names, work, as_json=as_json)


def _named(arguments: tuple[str, ...], datasets_dir: Path) -> tuple[list[str], Path | None]:
    """The datasets and the file that the arguments of `load` name."""
    is_file = len(arguments) == 2 and arguments[1] not in dataset_names(datasets_dir)
    names = declared(arguments[:1] if is_file else arguments, datasets_dir)
    return names, Path(arguments[1]).absolute() if is_file else None


@main.command()
@click.argument("datasets", nargs=-1, required=True, type=DATASET, metavar="DATASET...")
@click.option("--parallel", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--max-records", type=click.IntRange(min=1), help="Read at most this many offsets.")
@click.option("--max-seconds", type=click.FloatRange(min=0), help="After this time commit what was read and stop.")
@JSON
def drain(
    datasets: tuple[str, ...], parallel: int, max_records: int | None, max_seconds: float | None, as_json: bool
) -> None:
    """Read new records of each DATASET's topic into its staging table, up to its current end.

    Several are drained one after the other, the highest `priority` first, each with these limits. Exit status 1 if one
    failed: the others are drained.
    """
    from headrace.catalog import by_priority
    from headrace.ingest.parallel import drain_dataset
    from headrace.publish.dead_letter_topic import publish_after_drain

    deployment = open_deployment()

    def work(name: str) -> Outcome:
        with progress_bar(f"draining {name}") as update:
            plan, result = drain_dataset(
                deployment,
                name,
                parallel=parallel,
                max_records=max_records,
                max_seconds=max_seconds,
                on_progress=update,
            )
        lines = [result.summary(plan)]
        published = publish_after_drain(deployment, deployment.dataset(name))
        if published:
            lines.append(f"{name}: {published} dead letters published")
        return Outcome(result.document(plan) | {"published": published}, lines)

    names = declared(datasets, deployment.settings.datasets_dir)
    run_each(by_priority(names, deployment.settings.datasets_dir), work, as_json=as_json)


@main.command()
@click.argument("datasets", nargs=-1, type=DATASET, metavar="[DATASET]...")
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
