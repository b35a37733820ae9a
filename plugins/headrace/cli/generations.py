"""Commands that abandon or delete what was staged: reset, adopt, accept-loss."""

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.irreversible import YES, Irreversible
from headrace.cli.names import DATASET
from headrace.cli.report import JSON
from headrace.cli.several import Outcome, declared
from headrace.command import Command

DATASETS = click.argument("datasets", nargs=-1, required=True, type=DATASET, metavar="DATASET...")


@main.command()
@DATASETS
@YES
@JSON
def reset(datasets: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete everything staged of each DATASET: the next drain starts from scratch.

    Prints what would be deleted, then asks. A ledger line records what was deleted.
    """
    from headrace.repair.generations import preview_reset
    from headrace.repair.generations import reset as reset_dataset

    deployment = open_deployment()
    needed: dict[str, bool] = {}

    def preview(name: str) -> list[str]:
        effects = preview_reset(deployment, deployment.dataset(name))
        needed[name] = bool(effects)
        return effects

    def act(name: str) -> Outcome:
        deleted = reset_dataset(deployment, deployment.dataset(name)) if needed[name] else {}
        listed = ", ".join(f"{count} {what}" for what, count in deleted.items())
        line = f"{name}: deleted {listed}" if listed else f"{name}: nothing to delete"
        return Outcome({"dataset": name, "deleted": deleted}, [line])

    names = declared(datasets, deployment.settings.datasets_dir)
    Irreversible(names, preview, act, Command("reset", *names)).run(yes=yes, as_json=as_json)


@main.command()
@DATASETS
@YES
@JSON
def adopt(datasets: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Accept that the source of each DATASET was replaced: close the generation, begin the next.

    Prints what would be read and abandoned, then asks. Refused while the source is the one that was read so far: its
    records would be staged twice.
    """
    from headrace.repair.generations import adopt as adopt_source
    from headrace.repair.generations import preview_adopt

    deployment = open_deployment()

    def act(name: str) -> Outcome:
        generation = adopt_source(deployment, deployment.dataset(name))
        return Outcome({"dataset": name, "generation": generation}, [f"{name}: generation {generation} is open"])

    names = declared(datasets, deployment.settings.datasets_dir)
    Irreversible(
        names, lambda name: preview_adopt(deployment, deployment.dataset(name)), act, Command("adopt", *names)
    ).run(yes=yes, as_json=as_json)


@main.command("accept-loss")
@click.argument("dataset", type=DATASET)
@click.option("--partition", type=click.IntRange(min=0), required=True)
@click.option("--to", type=click.IntRange(min=1), required=True, help="The offset to continue at.")
@YES
@JSON
def accept_loss(dataset: str, partition: int, to: int, yes: bool, as_json: bool) -> None:
    """Move past a range that the source no longer serves, and record the loss in the ledger.

    Prints the range and why it is lost, then asks.
    """
    from headrace.repair.generations import accept_loss as accept
    from headrace.repair.generations import preview_accept_loss

    deployment = open_deployment()
    declaration = deployment.dataset(dataset)

    def act(name: str) -> Outcome:
        start, end = accept(deployment, declaration, partition, to)
        document = {"dataset": name, "partition": partition, "start_offset": start, "end_offset": end}
        return Outcome(document, [f"{name}[{partition}]: abandoned [{start}, {end})"])

    Irreversible(
        [dataset],
        lambda _: preview_accept_loss(deployment, declaration, partition, to),
        act,
        Command("accept-loss", dataset, "--partition", partition, "--to", to),
    ).run(yes=yes, as_json=as_json)
