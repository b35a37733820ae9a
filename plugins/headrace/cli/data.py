"""Commands that make records: generate, produce."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.files import write_whole
from headrace.cli.group import main, open_deployment, read_settings
from headrace.cli.names import DATASET
from headrace.cli.progress import progress_bar
from headrace.output import say

if TYPE_CHECKING:
    from headrace.dataset import Dataset
    from headrace.deployment import Deployment


@main.group()
def generate() -> None:
    """Write repeatable sample data: the same seed gives the same bytes."""


def _generate(dataset: str, summary: str) -> None:
    """Add `headrace generate DATASET`."""

    @generate.command(dataset, help=summary)
    @click.option("--records", type=click.IntRange(min=0), required=True, help="How many lines.")
    @click.option("--seed", type=int, default=1, show_default=True)
    @click.option("--bad-percent", type=click.FloatRange(0, 100), default=0.0, show_default=True, help="Invalid ones.")
    @click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
    def command(records: int, seed: int, bad_percent: float, out: Path) -> None:
        from headrace.sample.generate import generate as generate_lines

        lines = generate_lines(dataset, records, seed, bad_percent, read_settings().data_dir)
        write_whole(out, lines)
        say(f"{records} lines in {out}")


_generate("jobs", "Write `jobid|{JSON}` lines about the users of users.ndjson.")
_generate("events", "Write `user|{JSON}` lines; some events are sent twice, some are late.")
_generate("rides", "Write rides as JSON lines, like the real ones of rides.ndjson.")
_generate("telemetry", "Write readings of devices as JSON lines; all their fields are text, as in a Redis stream.")


@dataclass(frozen=True, slots=True)
class _SampleOptions:
    """The options of `produce --sample`."""

    per_second: float
    records: int | None
    bad_percent: float
    seed: int | None


@main.command()
@click.argument("dataset", type=DATASET)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--transactional-id", help="Make all records visible together, in one Kafka transaction of this id.")
@click.option("--keyless", is_flag=True, help="Send each line whole, as a value without a key.")
@click.option(
    "--sample", is_flag=True, help="Send sample records with the current time instead of a FILE, until stopped."
)
@click.option("--per-second", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True)
@click.option("--records", type=click.IntRange(min=0), help="Stop after this many sample records.")
@click.option("--bad-percent", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Invalid ones.")
@click.option("--seed", type=int, help="Seed of the sample. Defaults to a new one each time.")
def produce(
    dataset: str,
    file: Path | None,
    transactional_id: str | None,
    keyless: bool,
    sample: bool,
    **sample_options: Any,
) -> None:
    """Send FILE's lines, `key|value` or JSON, to the topic or stream of DATASET."""
    if sample == (file is not None):
        raise click.UsageError("name a FILE, or --sample, not both")
    if sample and keyless:
        raise click.UsageError("--keyless applies to the lines of a FILE, expected one")
    deployment = open_deployment()
    declared = deployment.dataset(dataset)
    if sample:
        _produce_sample(deployment, declared, _SampleOptions(**sample_options))
        return
    from headrace.sample.produce import produce as produce_file

    assert file is not None
    with progress_bar("producing") as update:
        sent = produce_file(
            deployment, declared, file, keyless=keyless, transactional_id=transactional_id, on_progress=update
        )
    say(f"{sent} records sent to {declared.source.name}")


def _produce_sample(deployment: "Deployment", declared: "Dataset", options: _SampleOptions) -> None:
    import random

    from headrace.sample.generate import DATASETS, generate, now
    from headrace.sample.produce import produce_paced
    from headrace.signals import stopped_by_signals

    if declared.name not in DATASETS:
        raise click.UsageError(f"there is no sample of {declared.name}, only of {', '.join(DATASETS)}")
    lines = generate(
        declared.name,
        sys.maxsize if options.records is None else options.records,
        random.randrange(2**31) if options.seed is None else options.seed,
        options.bad_percent,
        deployment.settings.data_dir,
        now,
    )
    with stopped_by_signals() as stop:
        say(f"sample records to {declared.source.name}, {options.per_second:g} per second; Ctrl-C stops")
        sent = produce_paced(deployment, declared, lines, options.per_second, stop=stop, on_sent=_say_sent)
    say(f"{sent} records sent to {declared.source.name}")


def _say_sent(sent: int) -> None:
    say(f"{sent} sent")
