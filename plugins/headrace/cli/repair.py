"""Commands that change what was staged, or abandon data: reset, adopt, accept-loss, reload, fill, replay."""

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.progress import progress_bar
from headrace.command import Command
from headrace.output import say

YES = click.option("--yes", is_flag=True, help="Do it. Without --yes the effects are only printed.")


def confirm(effects: list[str], yes: bool, command: Command) -> None:
    """Print the effects of an irreversible command; raises NotConfirmed without --yes."""
    from headrace.exceptions import NotConfirmed

    for line in effects:
        say(line)
    if not yes:
        confirmed = Command(*command.arguments, "--yes")
        raise NotConfirmed(f"nothing was changed; `{confirmed}` does it", command=confirmed)


@main.command()
@click.argument("dataset")
@YES
def reset(dataset: str, yes: bool) -> None:
    """Delete everything staged of DATASET: the next drain starts from scratch.

    A ledger line records what was deleted.
    """
    from headrace.repair.generations import preview_reset
    from headrace.repair.generations import reset as reset_dataset

    deployment = open_deployment()
    declared = deployment.dataset(dataset)
    effects = preview_reset(deployment, declared)
    if effects:
        confirm(effects, yes, Command("reset", dataset))
    deleted = reset_dataset(deployment, declared) if effects else {}
    listed = ", ".join(f"{count} {what}" for what, count in deleted.items())
    say(f"{dataset}: deleted {listed}" if listed else f"{dataset}: nothing to delete")


@main.command()
@click.argument("dataset")
@YES
def adopt(dataset: str, yes: bool) -> None:
    """Accept that the source of DATASET was replaced: close the generation, begin the next.

    Refused while the source is the one that was read so far: its records would be staged twice.
    """
    from headrace.repair.generations import adopt as adopt_source
    from headrace.repair.generations import preview_adopt

    deployment = open_deployment()
    declared = deployment.dataset(dataset)
    confirm(preview_adopt(deployment, declared), yes, Command("adopt", dataset))
    say(f"{dataset}: generation {adopt_source(deployment, declared)} is open")


@main.command("accept-loss")
@click.argument("dataset")
@click.option("--partition", type=click.IntRange(min=0), required=True)
@click.option("--to", type=click.IntRange(min=1), required=True, help="The offset to continue at.")
@YES
def accept_loss(dataset: str, partition: int, to: int, yes: bool) -> None:
    """Move past a range that the source no longer serves, and record the loss in the ledger."""
    from headrace.repair.generations import accept_loss as accept
    from headrace.repair.generations import preview_accept_loss

    deployment = open_deployment()
    declared = deployment.dataset(dataset)
    effects = preview_accept_loss(deployment, declared, partition, to)
    confirm(effects, yes, Command("accept-loss", dataset, "--partition", partition, "--to", to))
    start, end = accept(deployment, declared, partition, to)
    say(f"{dataset}[{partition}]: abandoned [{start}, {end})")


@main.command()
@click.argument("dataset")
@click.option("--from", "start", required=True, metavar="FROM", help="An offset, or a time: 2026-01-31T09:30:00Z.")
@click.option(
    "--to", "end", required=True, metavar="TO", help="The first one that is not read; also an offset or a time."
)
@click.option("--partition", type=click.IntRange(min=0), help="Needed for offsets. Times: defaults to all of them.")
def reload(dataset: str, start: str, end: str, partition: int | None) -> None:
    """Read a range of DATASET's topic again and replace its staged rows, in one transaction.

    The range is in offsets of one partition, or in record times. Only offsets below the checkpoint that the topic
    still serves are read. Today's contract decides; marts follow at the next build.
    """
    from headrace.repair.options import RepairOptions
    from headrace.repair.reload import reload_range

    deployment = open_deployment()
    with progress_bar("reloading") as update:
        result = reload_range(
            deployment,
            deployment.dataset(dataset),
            start,
            end,
            partition=partition,
            options=RepairOptions(on_progress=update),
        )
    say(result.summary())


@main.command()
@click.argument("dataset")
@click.argument("field")
def fill(dataset: str, field: str) -> None:
    """Move values of FIELD from _extra into its column, for a field that was added to the contract.

    FIELD as the contract writes it. Values that break the contract stay in _extra; marts follow at the next build.
    """
    from headrace.repair.fill import fill as fill_field
    from headrace.repair.options import RepairOptions

    deployment = open_deployment()
    with progress_bar("filling") as update:
        result = fill_field(deployment, deployment.dataset(dataset), field, options=RepairOptions(on_progress=update))
    say(result.summary())


@main.command()
@click.argument("dataset")
@click.option("--reason", help="Only those of this reason. Defaults to all.")
@click.option("--dry-run", is_flag=True, help="Print the result and change nothing.")
def replay(dataset: str, reason: str | None, dry_run: bool) -> None:
    """Stage the dead letters of DATASET that its contract now accepts, in one transaction.

    Dead letters that are still rejected do not change. Drains of DATASET wait meanwhile.
    """
    from headrace.repair.options import RepairOptions
    from headrace.repair.replay import replay as replay_dead_letters

    deployment = open_deployment()
    declared = deployment.dataset(dataset)
    with progress_bar("replaying") as update:
        result = replay_dead_letters(
            deployment, declared, reason=reason, dry_run=dry_run, options=RepairOptions(on_progress=update)
        )
    say(result.summary())
