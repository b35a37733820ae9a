"""Commands that stop and continue the reading of datasets: pause, resume."""

import click

from headrace.cli.group import main, open_deployment
from headrace.cli.names import DATASET
from headrace.cli.report import JSON
from headrace.cli.several import Outcome, declared, run_each

DATASETS = click.argument("datasets", nargs=-1, required=True, type=DATASET, metavar="DATASET...")


@main.command()
@DATASETS
@click.option("--why", required=True, metavar="TEXT", help="The reason; status, the page and refused runs show it.")
@JSON
def pause(datasets: tuple[str, ...], why: str, as_json: bool) -> None:
    """Read nothing of each DATASET until `headrace resume`.

    Scheduled runs are skipped, `drain` and `load` are refused, `follow` leaves the dataset. A batch that is under way
    is committed. Replays, reloads, builds and verify go on.
    """
    from headrace.ingest.pauses import pause_dataset

    deployment = open_deployment()

    def work(name: str) -> Outcome:
        found, is_new = pause_dataset(deployment, name, why)
        line = f"{name}: paused; `headrace resume {name}` continues" if is_new else f"{name}: is {found.text()}"
        return Outcome(found.document() | {"changed": is_new}, [line])

    run_each(declared(datasets, deployment.settings.datasets_dir), work, as_json=as_json)


@main.command()
@DATASETS
@JSON
def resume(datasets: tuple[str, ...], as_json: bool) -> None:
    """End the pause of each DATASET: the next run continues at its checkpoint."""
    from headrace.ingest.pauses import resume_dataset

    deployment = open_deployment()

    def work(name: str) -> Outcome:
        ended = resume_dataset(deployment, name)
        if ended is None:
            return Outcome({"dataset": name, "changed": False}, [f"{name}: is not paused"])
        return Outcome(ended.document() | {"changed": True}, [f"{name}: resumed; it was {ended.text()}"])

    run_each(declared(datasets, deployment.settings.datasets_dir), work, as_json=as_json)
