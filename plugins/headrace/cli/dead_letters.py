"""The command that shows, exports, publishes and acknowledges dead letters: dead-letters."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.files import write_whole
from headrace.cli.group import main, open_deployment
from headrace.cli.names import DATASET, REASON
from headrace.cli.report import JSON, report

if TYPE_CHECKING:
    from psycopg import Connection

    from headrace.dataset import Dataset
    from headrace.deployment import Deployment


@dataclass(frozen=True, slots=True)
class _Action:
    """The action that replaces the list of the newest."""

    coordinate: str | None
    out: Path | None
    publish: bool
    acknowledge: bool
    why: str | None


@main.command("dead-letters")
@click.argument("dataset", type=DATASET)
@click.option("--reason", type=REASON, help="Only those of this reason.")
@click.option(
    "--limit", type=click.IntRange(min=0), default=20, show_default=True, help="List this many of the newest."
)
@click.option("--show", "coordinate", metavar="PARTITION:OFFSET", help="Print one in full; may begin with GENERATION:.")
@click.option(
    "--export",
    "out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all of them, also replayed ones, to a file of JSON lines.",
)
@click.option("--publish", is_flag=True, help="Send those that are not yet in the dead-letter topic.")
@click.option("--acknowledge", is_flag=True, help="They are known: no problem any more, later ones are. Needs --why.")
@click.option("--why", metavar="TEXT", help="Why they need no remedy.")
@JSON
def dead_letters(dataset: str, reason: str | None, limit: int, as_json: bool, **chosen: Any) -> None:
    """Show the records of DATASET that broke their contract: counts by reason, and the newest.

    Their bytes are kept unchanged. `headrace replay` stages those that a corrected contract accepts, also
    acknowledged ones.
    """
    action = _Action(**chosen)
    if sum(map(bool, (action.coordinate, action.out, action.publish, action.acknowledge))) > 1:
        raise click.UsageError("--show, --export, --publish and --acknowledge exclude each other")
    if action.acknowledge != (action.why is not None):
        raise click.UsageError("--acknowledge and --why belong together")
    deployment = open_deployment()
    declared = deployment.dataset(dataset)
    if action.publish:
        _publish(deployment, declared, as_json)
        return
    from headrace.postgres.connection import database

    with database(deployment.connect(f"headrace dead-letters {dataset}")) as connection:
        if action.coordinate is not None:
            _show(connection, dataset, action.coordinate, as_json)
        elif action.why is not None:
            _acknowledge(connection, declared, reason, action.why, as_json)
        elif action.out is not None:
            _export(connection, declared, reason, action.out, as_json)
        else:
            _list(connection, declared, reason, limit, as_json)


def _show(connection: "Connection[Any]", dataset: str, coordinate: str, as_json: bool) -> None:
    from headrace.monitor.dead_letter_text import dead_letter_document, dead_letter_lines
    from headrace.postgres.checkpoints import origin_texts
    from headrace.postgres.dead_letter_pages import find

    dead_letter = find(connection, dataset, coordinate)
    topic = origin_texts(connection, dataset).get((dead_letter.generation, dead_letter.partition))
    report(
        as_json,
        lambda: dead_letter_document(dead_letter, topic),
        lambda: dead_letter_lines(dead_letter, topic),
        keep="\n\t",  # a body of several lines
    )


def _export(connection: "Connection[Any]", declared: "Dataset", reason: str | None, out: Path, as_json: bool) -> None:
    from headrace.monitor.dead_letter_text import json_lines
    from headrace.monitor.rules import refuse_unknown_reason
    from headrace.postgres.dead_letter_pages import DeadLetterSelection, count

    selection = DeadLetterSelection(declared.name, reason)
    if reason is not None and not count(connection, selection):
        refuse_unknown_reason(declared, reason)
    written = write_whole(out, json_lines(connection, selection))
    document = {"dataset": selection.dataset, "exported": written, "path": str(out)}
    report(as_json, lambda: document, lambda: [f"{selection.dataset}: {written} dead letters in {out}"])


def _list(connection: "Connection[Any]", declared: "Dataset", reason: str | None, limit: int, as_json: bool) -> None:
    from headrace.monitor.dead_letter_text import overview_document, overview_lines
    from headrace.monitor.rules import refuse_unknown_reason
    from headrace.postgres.acknowledgements import acknowledgements
    from headrace.postgres.dead_letter_pages import overview

    found = overview(connection, declared.name, reason, limit)
    if not found.reasons:
        refuse_unknown_reason(declared, reason)
    publishes = getattr(declared.source, "dead_letter_topic", None) is not None
    known = acknowledgements(connection, declared.name, limit)
    report(as_json, lambda: overview_document(found, known), lambda: overview_lines(found, known, publishes=publishes))


def _acknowledge(
    connection: "Connection[Any]", declared: "Dataset", reason: str | None, why: str, as_json: bool
) -> None:
    from headrace.ingest.pauses import actor
    from headrace.monitor.dead_letter_text import acknowledgement_document, acknowledgement_line
    from headrace.monitor.rules import refuse_unknown_reason
    from headrace.postgres.acknowledgements import acknowledge
    from headrace.postgres.dead_letter_pages import DeadLetterSelection, count

    if reason is not None and not count(connection, DeadLetterSelection(declared.name, reason)):
        refuse_unknown_reason(declared, reason)
    found = acknowledge(connection, declared.name, reason=reason, why=why, actor=actor())
    report(as_json, lambda: acknowledgement_document(found), lambda: [acknowledgement_line(found)])


def _publish(deployment: "Deployment", declared: "Dataset", as_json: bool) -> None:
    from headrace.exceptions import DatasetError
    from headrace.publish.dead_letter_topic import publish as publish_now

    topic = getattr(declared.source, "dead_letter_topic", None)
    if topic is None:
        raise DatasetError(
            f"{declared.name}: declares no dead-letter topic, expected KafkaTopic(..., dead_letter_topic=...) in "
            f"{deployment.settings.datasets_dir / declared.name}.py"
        )
    published = publish_now(deployment, declared)
    document = {"dataset": declared.name, "published": published, "topic": topic}
    report(as_json, lambda: document, lambda: [f"{declared.name}: {published} dead letters published to {topic}"])
