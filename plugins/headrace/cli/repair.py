"""Commands that read or decode again what was staged or rejected: reload, fill, replay."""

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.names import DATASET, REASON
from headrace.cli.progress import progress_bar
from headrace.cli.report import JSON, report
from headrace.cli.several import Outcome, declared, run_each


@main.command()
@click.argument("datasets", nargs=-1, required=True, type=DATASET, metavar="DATASET...")
@click.option("--from", "start", required=True, metavar="FROM", help="An offset, or a time: 2026-01-31T09:30:00Z.")
@click.option(
    "--to", "end", required=True, metavar="TO", help="The first one that is not read; also an offset or a time."
)
@click.option("--partition", type=click.IntRange(min=0), help="Needed for offsets. Times: defaults to all of them.")
@JSON
def reload(datasets: tuple[str, ...], start: str, end: str, partition: int | None, as_json: bool) -> None:
    """Read a range of each DATASET's topic again and replace its staged rows, in one transaction per dataset.

    The range is in offsets of one partition, or in record times. Only offsets below the checkpoint that the topic
    still serves are read. Today's contract decides; marts follow at the next build.
    """
    from headrace.repair.options import RepairOptions
    from headrace.repair.reload import reload_range

    deployment = open_deployment()

    def work(name: str) -> Outcome:
        with progress_bar(f"reloading {name}") as update:
            result = reload_range(
                deployment,
                deployment.dataset(name),
                start,
                end,
                partition=partition,
                options=RepairOptions(on_progress=update),
            )
        return Outcome(result.document(), result.summary().split("\n"))

    run_each(declared(datasets, deployment.settings.datasets_dir), work, as_json=as_json)


@main.command()
@click.argument("dataset", type=DATASET)
@click.argument("field")
@JSON
def fill(dataset: str, field: str, as_json: bool) -> None:
    """Move values of FIELD from _extra into its column, for a field that was added to the contract.

    FIELD as the contract writes it. Values that break the contract stay in _extra; marts follow at the next build.
    """
    from headrace.repair.fill import fill as fill_field
    from headrace.repair.options import RepairOptions

    deployment = open_deployment()
    with progress_bar("filling") as update:
        result = fill_field(deployment, deployment.dataset(dataset), field, options=RepairOptions(on_progress=update))
    report(as_json, result.document, lambda: [result.summary()])


@main.command()
@click.argument("datasets", nargs=-1, required=True, type=DATASET, metavar="DATASET...")
@click.option("--reason", type=REASON, help="Only those of this reason. Defaults to all.")
@click.option("--dry-run", is_flag=True, help="Print the result and change nothing.")
@JSON
def replay(datasets: tuple[str, ...], reason: str | None, dry_run: bool, as_json: bool) -> None:
    """Stage the dead letters of each DATASET that its contract now accepts, in one transaction per dataset.

    Dead letters that are still rejected do not change. Drains of DATASET wait meanwhile.
    """
    from headrace.monitor.rules import refuse_unknown_reason
    from headrace.repair.options import RepairOptions
    from headrace.repair.replay import replay as replay_dead_letters

    deployment = open_deployment()

    def work(name: str) -> Outcome:
        dataset = deployment.dataset(name)
        with progress_bar(f"replaying {name}") as update:
            result = replay_dead_letters(
                deployment,
                dataset,
                reason=reason,
                dry_run=dry_run,
                options=RepairOptions(on_progress=update),
            )
        if not result.records:
            refuse_unknown_reason(dataset, reason)
        return Outcome(result.document(), [result.summary()])

    run_each(declared(datasets, deployment.settings.datasets_dir), work, as_json=as_json)
