"""The `headrace` command. Each command imports what it needs: `headrace --help` must not wait for pandas."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace import __version__, logs
from headrace.command import Command
from headrace.exceptions import HeadraceError
from headrace.output import complain, json_text, say, shown
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.dataset import Dataset
    from headrace.deployment import Deployment
    from headrace.monitor.problems import Overview


class Percent(click.ParamType[float]):
    """A part of a hundred, with or without its sign."""

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


class HeadraceGroup(click.Group):
    """A group whose commands end with one line and status 1 when Headrace refuses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; print a HeadraceError in one line and exit with status 1."""
        try:
            return super().invoke(ctx)
        except HeadraceError as error:
            line = f"headrace: {error}"
            if not logs.refused(line):
                complain(line)
            ctx.exit(1)
        except click.UsageError as error:  # it quotes arguments, which a pattern of the shell may have made
            raise click.UsageError(shown(error.format_message()), error.ctx) from error


@click.group(cls=HeadraceGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="headrace")
def main() -> None:
    """Kafka topics into Postgres staging tables, exactly once, and on into dbt marts.

    Exit status: 0 done, 1 refused or failed (one line says why), 2 wrong usage. Settings are HEADRACE_*
    environment variables; without them the local services of `headrace up` are used.
    """
    logs.guard()


def _settings() -> Settings:
    settings = Settings.from_environment()
    logs.configure(settings)
    return settings


def _deployment() -> "Deployment":
    from headrace.deployment import Deployment

    return Deployment.from_settings(_settings())


@main.command()
@click.option(
    "--only", multiple=True, help="Start only this service: postgres, kafka, redis or airflow; may be repeated."
)
def up(only: tuple[str, ...]) -> None:
    """Start the local services that are not given by settings; what runs already is left alone."""
    from headrace.deployment import Deployment
    from headrace.exceptions import DatasetsRejected
    from headrace.ingest.runs import initialise
    from headrace.local import services

    settings = _settings()
    wanted = only or services.SERVICES
    rejected: DatasetsRejected | None = None
    if "postgres" in wanted:
        services.up(settings, only=("postgres",), print_line=say)
        try:  # before Airflow's first scheduled run asks for it
            initialise(Deployment.from_settings(_settings()), print_line=complain)
        except DatasetsRejected as error:
            rejected = error
    services.up(_settings(), only=wanted, print_line=say)
    say("`headrace env` prints the addresses")
    if rejected is not None:
        raise rejected


@main.command()
def down() -> None:
    """Stop the local services, and nothing else."""
    from headrace.local import services

    services.down(_settings(), print_line=say)


@main.command()
def env() -> None:
    """Print `export NAME='value'` lines for a shell: eval "$(headrace env)"."""
    from headrace.local import services

    for name, value in services.environment(_settings()).items():
        click.echo(f"export {name}={_quoted(value)}")  # for a shell, which takes it as it is


@main.command()
def init() -> None:
    """Create or migrate the tables of headrace.* and staging.*, and the roles that may use them."""
    from headrace.ingest.runs import initialise

    applied = initialise(_deployment(), print_line=complain)
    say(f"applied {', '.join(applied)}" if applied else "nothing to do")


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

        lines = generate_lines(dataset, records, seed, bad_percent, _settings().data_dir)
        _write_whole(out, lines)
        say(f"{records} lines in {out}")


_generate("jobs", "Write `jobid|{JSON}` lines about the users of users.ndjson.")
_generate("events", "Write `user|{JSON}` lines; some events are sent twice, some are late.")
_generate("rides", "Write rides as JSON lines, like the real ones of rides.ndjson.")
_generate("telemetry", "Write readings of devices as JSON lines; all their fields are text, as in a Redis stream.")


@main.command()
@click.argument("dataset")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--transactional-id", help="Make all records visible together, in one Kafka transaction of this id.")
@click.option("--keyless", is_flag=True, help="Send each line whole, as a value without a key.")
@click.option("--sample", is_flag=True, help="Not a FILE but sample records that happen now, until stopped.")
@click.option("--per-second", type=click.FloatRange(0, min_open=True), default=20.0, show_default=True)
@click.option("--records", type=click.IntRange(min=0), help="Stop after so many sample records.")
@click.option("--bad-percent", type=click.FloatRange(0, 100), default=1.0, show_default=True, help="Invalid ones.")
@click.option("--seed", type=int, help="Of the sample. Defaults to another one each time.")
def produce(
    dataset: str,
    file: Path | None,
    transactional_id: str | None,
    keyless: bool,
    sample: bool,
    per_second: float,
    records: int | None,
    bad_percent: float,
    seed: int | None,
) -> None:
    """Send FILE's lines, `key|value` or JSON, to the topic or stream of DATASET."""
    if sample == (file is not None):
        raise click.UsageError("name a FILE, or --sample, not both")
    if sample and keyless:
        raise click.UsageError("--keyless is about a FILE's lines, expected one")
    deployment = _deployment()
    declared = deployment.dataset(dataset)
    if sample:
        _produce_sample(deployment, declared, per_second, records, bad_percent, seed)
        return
    from headrace.sample.produce import produce as produce_file

    assert file is not None
    with _progress_bar("producing") as update:
        sent = produce_file(
            deployment, declared, file, keyless=keyless, transactional_id=transactional_id, on_progress=update
        )
    say(f"{sent} records sent to {_target(declared)}")


def _produce_sample(
    deployment: "Deployment",
    declared: "Dataset",
    per_second: float,
    records: int | None,
    bad_percent: float,
    seed: int | None,
) -> None:
    import random

    from headrace.sample.generate import DATASETS, generate, now
    from headrace.sample.produce import produce_paced
    from headrace.signals import stopped_by_signals

    if declared.name not in DATASETS:
        raise click.UsageError(f"there is no sample of {declared.name}, only of {', '.join(DATASETS)}")
    lines = generate(
        declared.name,
        sys.maxsize if records is None else records,
        random.randrange(2**31) if seed is None else seed,
        bad_percent,
        deployment.settings.data_dir,
        now,
    )
    with stopped_by_signals() as stop:
        say(f"sample records to {_target(declared)}, {per_second:g} per second; Ctrl-C stops")
        on_sent = lambda sent: say(f"{sent} sent")  # noqa: E731
        sent = produce_paced(deployment, declared, lines, per_second, stop=stop, on_sent=on_sent)
    say(f"{sent} records sent to {_target(declared)}")


def _target(declared: "Dataset") -> str:
    return str(getattr(declared.source, "topic", None) or getattr(declared.source, "stream", declared.name))


@main.command()
@click.argument("dataset")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--replace", is_flag=True, help="Tombstone the entities that FILE no longer names.")
@click.option(
    "--max-removed",
    type=Percent(),
    default="10%",
    show_default=True,
    help="Refuse --replace where more than this part of the entities would be tombstoned.",
)
@click.option("--again", is_flag=True, help="Load FILE also if it is unchanged and another one was loaded since.")
def load(dataset: str, file: Path | None, replace: bool, max_removed: float, again: bool) -> None:
    """Load a file dataset; an unchanged file is skipped, a changed one merged.

    .ndjson, .jsonl, .csv (a header, commas, UTF-8), each also with .gz, or .parquet. An invalid line is a dead letter
    and keeps its entity; where one does not tell whose it is, --replace removes nothing.
    """
    from headrace.ingest.load import load_file

    with _progress_bar("loading") as update:
        path = file.absolute() if file else None
        outcome = load_file(
            _deployment(),
            dataset,
            path=path,
            replace=replace,
            max_removed=max_removed,
            again=again,
            on_progress=update,
        )
    say(outcome.summary())


@main.command()
@click.argument("dataset")
@click.option("--parallel", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.option("--max-records", type=click.IntRange(min=1), help="Read at most this many offsets.")
@click.option("--max-seconds", type=click.FloatRange(min=0), help="Commit what was read by then and stop.")
def drain(dataset: str, parallel: int, max_records: int | None, max_seconds: float | None) -> None:
    """Read what is new in the topic of DATASET into its staging table, up to the end as it is now."""
    from headrace.ingest.runs import drain_dataset
    from headrace.publish.dead_letter_topic import publish_after_drain

    deployment = _deployment()
    with _progress_bar("draining") as update:
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
@click.option("--select", help="dbt's node selection. Defaults to everything.")
@click.option("--vars", "variables", help="dbt variables, as YAML.")
@click.option("--full-refresh", is_flag=True, help="Build from zero.")
def build(select: str | None, variables: str | None, full_refresh: bool) -> None:
    """Build the marts: whatever is committed and not yet built, until nothing is."""
    from headrace.marts.build import build as build_marts

    result = build_marts(_settings(), select=select, vars=variables, full_refresh=full_refresh, print_line=say)
    say(result.summary())


@main.command()
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("--max-seconds", type=click.FloatRange(min=0), help="Stop after so long. Defaults to never.")
def follow(datasets: tuple[str, ...], max_seconds: float | None) -> None:
    """Drain and build as records arrive, until stopped. Defaults to every topic and stream.

    Scheduled runs leave the datasets alone meanwhile. Exit status 1 when one of them still fails at the end.
    """
    from headrace.follow.follower import follow as follow_datasets
    from headrace.signals import stopped_by_signals

    deployment = _deployment()
    with stopped_by_signals() as stop:
        result = follow_datasets(deployment, datasets, stop=stop, max_seconds=max_seconds, print_line=say)
    say(result.summary())
    result.raise_failures()


_YES = click.option("--yes", is_flag=True, help="Do it. Without, only what it would do is said.")


def _confirm(effects: list[str], yes: bool, command: Command) -> None:
    """Say what a command that cannot be undone does; raises NotConfirmed without --yes."""
    from headrace.exceptions import NotConfirmed

    for line in effects:
        say(line)
    if not yes:
        confirmed = Command(*command.arguments, "--yes")
        raise NotConfirmed(f"nothing was changed; `{confirmed}` does it", command=confirmed)


@main.command()
@click.argument("dataset")
@_YES
def reset(dataset: str, yes: bool) -> None:
    """Delete all that was staged of DATASET: the next drain starts from scratch.

    The ledger keeps a line that says what was deleted.
    """
    from headrace.repair.generations import preview_reset
    from headrace.repair.generations import reset as reset_dataset

    deployment = _deployment()
    declared = deployment.dataset(dataset)
    effects = preview_reset(deployment, declared)
    if effects:
        _confirm(effects, yes, Command("reset", dataset))
    deleted = reset_dataset(deployment, declared) if effects else {}
    listed = ", ".join(f"{count} {what}" for what, count in deleted.items())
    say(f"{dataset}: deleted {listed}" if listed else f"{dataset}: nothing to delete")


@main.command()
@click.argument("dataset")
@_YES
def adopt(dataset: str, yes: bool) -> None:
    """Accept that the topic of DATASET is another one now: close the generation, begin the next.

    Refused while the topic is the one that was read so far: its records would be staged twice.
    """
    from headrace.repair.generations import adopt as adopt_source
    from headrace.repair.generations import preview_adopt

    deployment = _deployment()
    declared = deployment.dataset(dataset)
    _confirm(preview_adopt(deployment, declared), yes, Command("adopt", dataset))
    say(f"{dataset}: generation {adopt_source(deployment, declared)} is open")


@main.command("accept-loss")
@click.argument("dataset")
@click.option("--partition", type=click.IntRange(min=0), required=True)
@click.option("--to", type=click.IntRange(min=1), required=True, help="The first offset to go on with.")
@_YES
def accept_loss(dataset: str, partition: int, to: int, yes: bool) -> None:
    """Move past a range that the source no longer serves, and write the loss into the ledger."""
    from headrace.repair.generations import accept_loss as accept
    from headrace.repair.generations import preview_accept_loss

    deployment = _deployment()
    declared = deployment.dataset(dataset)
    effects = preview_accept_loss(deployment, declared, partition, to)
    _confirm(effects, yes, Command("accept-loss", dataset, "--partition", partition, "--to", to))
    start, end = accept(deployment, declared, partition, to)
    say(f"{dataset}[{partition}]: gave up [{start}, {end})")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document, that of the page's /headrace/status.")
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
@click.option("--partitions", is_flag=True, help="A line for each partition too.")
def status(as_json: bool, watch: bool, partitions: bool) -> None:
    """Show what is wrong, and per dataset what is staged, dead, behind and how fresh."""
    if as_json and watch:
        raise click.UsageError("--json and --watch exclude each other")
    from headrace.monitor import text
    from headrace.monitor.problems import find_problems
    from headrace.monitor.status import read_status

    deployment = _deployment()

    def read() -> "Overview":
        return find_problems(read_status(deployment.connect("headrace status")), deployment.settings)

    overview = read()  # what cannot be read at all is refused before the screen is taken
    if as_json:
        print(json_text(overview.document(), indent=2))
    elif watch:
        text.watch(read, partitions=partitions)
    else:
        text.render(overview, partitions=partitions)


@main.command()
@click.argument("dataset", required=False)
@click.option("--deep", is_flag=True, help="Read the source again and compare every record with what is stored.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def verify(dataset: str | None, deep: bool, as_json: bool) -> None:
    """Compare ledger, rows, dead letters and claims, of DATASET or of all; name the first wrong offset.

    Changes nothing, and drains may go on meanwhile. Exit status 1 when something does not tie.
    """
    from headrace.verify import verify as verify_datasets

    with _progress_bar("verifying") as update:
        verification = verify_datasets(_deployment(), dataset, deep=deep, on_progress=update)
    if as_json:
        print(json_text(verification.document(), indent=2))
    else:
        for line in verification.lines():
            say(line)
    if not verification.is_clean:
        sys.exit(1)


@main.command()
@click.argument("dataset")
@click.option("--from", "start", required=True, metavar="FROM", help="An offset, or a time: 2026-01-31T09:30:00Z.")
@click.option("--to", "end", required=True, metavar="TO", help="The first one that is not read, likewise.")
@click.option("--partition", type=click.IntRange(min=0), help="Needed for offsets. Times: defaults to all of them.")
def reload(dataset: str, start: str, end: str, partition: int | None) -> None:
    """Read a range of DATASET's topic again and replace what was staged of it, in one transaction.

    By offsets of one partition, or by the records' times. Only below the checkpoint, and what the topic still serves.
    Today's contract decides; marts follow at the next build.
    """
    from headrace.repair.reload import reload_range

    deployment = _deployment()
    with _progress_bar("reloading") as update:
        result = reload_range(
            deployment, deployment.dataset(dataset), start, end, partition=partition, on_progress=update
        )
    say(result.summary())


@main.command()
@click.argument("dataset")
@click.argument("field")
def fill(dataset: str, field: str) -> None:
    """Move what rows hold of FIELD in _extra into its column, for a field that the contract names since.

    FIELD as the contract writes it. Values that break the contract stay in _extra; marts follow at the next build.
    """
    from headrace.repair.fill import fill as fill_field

    deployment = _deployment()
    with _progress_bar("filling") as update:
        result = fill_field(deployment, deployment.dataset(dataset), field, on_progress=update)
    say(result.summary())


@main.command("dead-letters")
@click.argument("dataset")
@click.option("--reason", help="Only those of this reason.")
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, help="List so many of the newest.")
@click.option(
    "--show", "coordinate", metavar="PARTITION:OFFSET", help="Print one whole; GENERATION: may stand in front."
)
@click.option(
    "--export",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all of them to a file of JSON lines, replayed ones too.",
)
@click.option("--publish", is_flag=True, help="Send what is not yet in the dead-letter topic now.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def dead_letters(
    dataset: str, reason: str | None, limit: int, coordinate: str | None, out: Path | None, publish: bool, as_json: bool
) -> None:
    """Show the records of DATASET that broke their contract: how many of which reason, and the newest.

    They are kept as they came. `headrace replay` stages those that a corrected contract lets pass.
    """
    if sum(map(bool, (coordinate, out, publish))) > 1:
        raise click.UsageError("--show, --export and --publish exclude each other")
    deployment = _deployment()
    declared = deployment.dataset(dataset)
    if publish:
        _publish_dead_letters(deployment, declared)
        return
    from headrace.monitor import dead_letter_text
    from headrace.postgres import dead_letter_pages
    from headrace.postgres.connection import database

    with database(deployment.connect(f"headrace dead-letters {dataset}")) as connection:
        if coordinate is not None:
            dead_letter = dead_letter_pages.find(connection, dataset, coordinate)
            if as_json:
                print(json_text(dead_letter_text.dead_letter_document(dead_letter)))
            else:
                for line in dead_letter_text.dead_letter_lines(dead_letter):
                    say(line, keep="\n\t")  # a body of several lines
        elif out is not None:
            written = _write_whole(
                out, dead_letter_text.json_lines(connection, dead_letter_pages.DeadLetterSelection(dataset, reason))
            )
            say(f"{dataset}: {written} dead letters in {out}")
        else:
            found = dead_letter_pages.overview(connection, dataset, reason, limit)
            if as_json:
                print(json_text(dead_letter_text.overview_document(found), indent=2))
            else:
                publishes = getattr(declared.source, "dead_letter_topic", None) is not None
                for line in dead_letter_text.overview_lines(found, publishes=publishes):
                    say(line)


def _publish_dead_letters(deployment: "Deployment", declared: "Dataset") -> None:
    from headrace.exceptions import DatasetError
    from headrace.publish.dead_letter_topic import publish as publish_now

    topic = getattr(declared.source, "dead_letter_topic", None)
    if topic is None:
        raise DatasetError(
            f"{declared.name}: declares no dead-letter topic, expected KafkaTopic(..., dead_letter_topic=...) in "
            f"{deployment.settings.datasets_dir / declared.name}.py"
        )
    say(f"{declared.name}: {publish_now(deployment, declared)} dead letters published to {topic}")


@main.command()
@click.argument("dataset")
@click.option("--reason", help="Only those of this reason. Defaults to all.")
@click.option("--dry-run", is_flag=True, help="Say what would happen and change nothing.")
def replay(dataset: str, reason: str | None, dry_run: bool) -> None:
    """Stage the dead letters of DATASET that its contract of today lets pass, in one transaction.

    What still fails stays as it is; replaying again finds only that. Drains of DATASET wait meanwhile.
    """
    from headrace.repair.replay import replay as replay_dead_letters

    deployment = _deployment()
    declared = deployment.dataset(dataset)
    with _progress_bar("replaying") as update:
        result = replay_dead_letters(deployment, declared, reason=reason, dry_run=dry_run, on_progress=update)
    say(result.summary())


@main.command()
@click.argument("dataset")
def describe(dataset: str) -> None:
    """Print the contract of DATASET, where its fields go, and what a breach is called."""
    from headrace.catalog import load_declaration
    from headrace.monitor.describe import lines

    for line in lines(load_declaration(_settings().datasets_dir, dataset)):
        say(line)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database; arguments go to psql."""
    from headrace.local import services

    command = services.psql_command(_settings())
    os.execv(command[0], [*command, *arguments])


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("tool")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def kafka(tool: str, arguments: tuple[str, ...]) -> None:
    """Run one of Kafka's own tools: console-producer, console-consumer, topics, get-offsets, ...

    The broker's address is filled in.
    """
    from headrace.local.home import locked
    from headrace.local.jars import tool_command

    settings = _settings()
    servers = settings.require_kafka_bootstrap_servers()
    with locked(settings.home, complain) as home:
        command = tool_command(home, tool, complain)
    given = () if "--bootstrap-server" in arguments else ("--bootstrap-server", servers)
    os.execv(command[0], [*command, *given, *arguments])


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "'\\''") + "'"


def _write_whole(path: Path, lines: Iterator[bytes]) -> int:
    """Write a file of mode 0600, whole or not at all; return how many lines it has."""
    from headrace.exceptions import FileSourceError
    from headrace.private_files import replaced_file

    written = 0
    try:
        with replaced_file(path) as file:
            for line in lines:
                file.write(line)
                written += 1
        return written
    except OSError as error:
        raise FileSourceError(f"{path}: cannot be written: {error.strerror}; name another place") from error


@contextmanager
def _progress_bar(label: str) -> Iterator[Any]:
    """A progress bar on a terminal, nothing elsewhere; the update function takes done and total."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    main()
