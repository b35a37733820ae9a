"""The HTML of a dataset's page and of a dead letter's."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.airflow.page_files import VERSION
from headrace.airflow.page_selection import PARTITIONS, REASONS, STATES
from headrace.airflow.page_template import TEMPLATES, ago
from headrace.airflow.page_values import shown_headers, shown_value
from headrace.command import Command
from headrace.dataset import Dataset
from headrace.monitor import describe
from headrace.monitor.dataset_detail import DatasetDetail, DeadLetterDetail
from headrace.monitor.figures import DeadLetterSample
from headrace.monitor.problems import Overview
from headrace.repair.preview import Preview

DATASET_ROOT, DEAD_LETTER_ROOT = "../", "../../../"  # the ways to the main page


@dataclass(slots=True)
class DeadLetterPage:
    """What the page of a dead letter shows. preview, preview_error: of a dry run that was asked for."""

    overview: Overview
    dead_letter: DeadLetterDetail
    declared: Dataset | None
    preview: Preview | None = None
    preview_error: str | None = None
    may_replay: bool = False


def render_message(root: str, heading: str, text: str, again_s: int | None = None, again_query: str = "") -> str:
    """A page without contents. again_s: seconds after which the browser asks again, with again_query.

    The query is named because a browser does not fetch an address with a fragment again: it scrolls.
    """
    return TEMPLATES.get_template("message.html").render(
        root=root, version=VERSION, heading=heading, text=text, again_s=again_s, again_query=again_query
    )


def render_dataset(
    overview: Overview, name: str, detail: DatasetDetail, declared: Dataset | None, *, is_readable: bool
) -> str:
    """The page of a dataset. declared: None if its declaration cannot be used, or is gone."""
    status = overview.status
    dataset = next((each for each in status.datasets if each.dataset == name), None)
    partitions = dataset.partitions if dataset is not None else ()
    models = {model.model: model for model in status.models}
    fault = overview.faults.get(name)
    state = overview.states.get(name, "empty")
    return TEMPLATES.get_template("dataset.html").render(
        root=DATASET_ROOT,
        version=VERSION,
        again_s=None,
        again_query=None,
        name=name,
        status=status,
        dataset=dataset,
        state=state,
        state_text=STATES[state],
        is_declared=overview.is_declared(name),
        dag_id=overview.dag_of(name),
        # the messages of import errors are for those whom Airflow shows them, on the main page
        problems=[each for each in overview.problems if name in each.datasets and each.kind != "import_error"],
        partitions=partitions[:PARTITIONS],
        partitions_left=max(len(partitions) - PARTITIONS, 0),
        reasons_shown=REASONS,
        samples=_samples(overview, name) if is_readable else {},
        detail=detail,
        marts=[(mart, models.get(mart.model)) for mart in detail.marts],
        contract=None if declared is None else describe.document(declared),
        fault=None if fault is None else str(fault.error),
        ago=lambda at: ago(at, status.at),
    )


def render_dead_letter(page: DeadLetterPage) -> str:
    """The page of a dead letter, with the dry run if there is one."""
    dead_letter, status = page.dead_letter, page.overview.status
    return TEMPLATES.get_template("dead_letter.html").render(
        root=DEAD_LETTER_ROOT,
        version=VERSION,
        again_s=None,
        again_query=None,
        dead_letter=dead_letter,
        value=shown_value(dead_letter.value, dead_letter.value_size),
        key=shown_value(dead_letter.key, dead_letter.key_size),
        headers=shown_headers(dead_letter.stored_headers),
        topic=None if page.declared is None else page.declared.source.dead_letter_topic,
        message_key=f"{dead_letter.dataset}/{dead_letter.coordinate.replace(':', '/')}",
        show=Command("dead-letters", dead_letter.dataset, "--show", dead_letter.coordinate),
        replay=Command("replay", dead_letter.dataset, "--reason", dead_letter.reason),
        may_replay=page.may_replay,
        preview=page.preview,
        preview_error=page.preview_error,
        ago=lambda at: ago(at, status.at),
    )


def _samples(overview: Overview, name: str) -> Mapping[str, list[DeadLetterSample]]:
    found: dict[str, list[Any]] = {}
    for sample in overview.status.dead_letters:
        if sample.dataset == name:
            found.setdefault(sample.reason, []).append(sample)
    return found
