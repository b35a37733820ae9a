"""Commands that only read: status, verify, datasets, describe."""

import sys
from typing import TYPE_CHECKING, NoReturn

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.names import DATASET
from headrace.cli.progress import progress_bar
from headrace.cli.report import JSON, report
from headrace.cli.several import Outcome, declared, run_each, unique
from headrace.output import say

if TYPE_CHECKING:
    from headrace.monitor.problems import Overview


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document, that of the page's /headrace/status.")
@click.option("--watch", is_flag=True, help="Refresh every two seconds, until Ctrl-C.")
@click.option("--partitions", is_flag=True, help="Also a line for each partition.")
@click.option(
    "--check",
    is_flag=True,
    help="One line for Nagios, Icinga and the like; exit status 0 OK, 1 warnings, 2 errors, 3 unknown.",
)
def status(as_json: bool, watch: bool, partitions: bool, check: bool) -> None:
    """Show problems, and per dataset lag, rows, dead letters and freshness."""
    if as_json and watch:
        raise click.UsageError("--json and --watch exclude each other")
    if check:
        if as_json or watch or partitions:
            raise click.UsageError("--check excludes --json, --watch and --partitions")
        _check()
    from headrace.monitor import text
    from headrace.monitor.airflow_probe import AirflowProbe
    from headrace.monitor.problems import find_problems
    from headrace.monitor.status import read_status

    deployment = open_deployment()
    probe = AirflowProbe(deployment.settings)

    def read() -> "Overview":
        found = read_status(deployment.connect("headrace status"))
        return find_problems(found, deployment.settings, probe.read())

    overview = read()  # an error ends the command before the screen is cleared
    if as_json:
        report(True, overview.document, list)
    elif watch:
        text.watch(read, partitions=partitions)
    else:
        text.render(overview, partitions=partitions)


def _check() -> NoReturn:
    """Print the line of a monitoring plugin, and exit with its status: no fault of ours may pass for a state."""
    from headrace.monitor.airflow_probe import AirflowProbe
    from headrace.monitor.plugin_line import plugin_line, unknown
    from headrace.monitor.problems import find_problems
    from headrace.monitor.status import read_status

    try:
        deployment = open_deployment()
        status = read_status(deployment.connect("headrace status"))
        health = AirflowProbe(deployment.settings).read()
        found = plugin_line(find_problems(status, deployment.settings, health))
    except Exception as error:
        found = unknown(error)
    say(found.text)
    sys.exit(found.status)


@main.command()
@click.argument("datasets", nargs=-1, type=DATASET, metavar="[DATASET]...")
@click.option("--deep", is_flag=True, help="Read the source again and compare every record with what is stored.")
@JSON
def verify(datasets: tuple[str, ...], deep: bool, as_json: bool) -> None:
    """Compare ledger, rows, dead letters and claims, of each DATASET or of all; name the first wrong offset.

    Changes nothing, also while drains run. Exit status 1 if there is a finding.
    """
    from headrace.verify import verify as verify_datasets

    with progress_bar("verifying") as update:
        verification = verify_datasets(open_deployment(), unique(datasets), deep=deep, on_progress=update)
    report(as_json, verification.document, verification.lines)
    if not verification.is_clean:
        sys.exit(1)


@main.command()
@JSON
def datasets(as_json: bool) -> None:
    """List the declared datasets: source, format, key, the DAG that ingests each, and which are paused."""
    from headrace.ingest.pauses import known_pauses
    from headrace.monitor.dataset_list import list_datasets

    deployment = open_deployment()
    found = list_datasets(deployment.settings.datasets_dir, known_pauses(deployment))
    report(as_json, found.document, found.lines)


@main.command()
@click.argument("datasets", nargs=-1, required=True, type=DATASET, metavar="DATASET...")
@JSON
def describe(datasets: tuple[str, ...], as_json: bool) -> None:
    """Print the contract of each DATASET: fields, columns, and the reasons that a breach gives; and its pause."""
    from headrace.catalog import load_declaration
    from headrace.ingest.pauses import known_pauses
    from headrace.monitor.describe import document, lines

    deployment = open_deployment()
    folder = deployment.settings.datasets_dir
    pauses = known_pauses(deployment) or {}

    def work(name: str) -> Outcome:
        dataset, pause = load_declaration(folder, name), pauses.get(name)
        paused = [] if pause is None else [f"{name}: {pause.text()}"]
        return Outcome(
            document(dataset) | {"pause": None if pause is None else pause.document()}, [*paused, *lines(dataset)]
        )

    run_each(declared(datasets, folder), work, as_json=as_json)
