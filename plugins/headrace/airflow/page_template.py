"""The page's HTML: Jinja templates that escape everything, and the formats of figures."""

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from headrace.airflow.page_charts import MEASURES, small_charts
from headrace.airflow.page_selection import REASONS, STATES, Selection, select
from headrace.command import Command
from headrace.durations import duration
from headrace.escaping import visible
from headrace.monitor.figures import BatchStatus, DatasetStatus
from headrace.monitor.problem import Problem
from headrace.monitor.problems import Overview
from headrace.monitor.runbook import FILE, anchor
from headrace.monitor.series import HOUR, RANGES
from headrace.postgres.ledger import RunContext

REFRESH_S = 5
TEXT_LENGTH_MAX = 2000  # of a problem's text
NOTHING = "\N{EN DASH}"


def render_page(
    version: str, figures: str | None = None, *, error: str | None = None, again_s: int | None = None
) -> str:
    """The whole page; figures: the result of render_figures, or None with an `error`.

    again_s: seconds after which the browser asks again, also without JavaScript.
    """
    return TEMPLATES.get_template("page.html").render(
        figures=figures, error=error, again_s=again_s, version=version, refresh_s=REFRESH_S, root="", again_query=None
    )


def render_figures(
    overview: Overview,
    triggerable: Collection[str],
    selection: Selection | None = None,
    *,
    stale_reason: str | None = None,
    readable: Collection[str] | None = None,
) -> str:
    """The figures; triggerable: the DAGs that the user may trigger.

    selection: which figures; None for the first page. stale_reason: why they are not current. readable: the datasets
    whose dead letters the user may see; None for all.
    """
    status = overview.status
    selection = selection or select(overview)
    shown = {each.dataset for each in selection.datasets} if readable is None else readable
    samples: dict[tuple[str, str], list[Any]] = {}
    for dead_letter in status.dead_letters:
        if dead_letter.dataset in shown:
            samples.setdefault((dead_letter.dataset, dead_letter.reason), []).append(dead_letter)
    errors = sum(problem.severity == "error" for problem in overview.problems)
    return TEMPLATES.get_template("figures.html").render(
        root="",
        overview=overview,
        status=status,
        selection=selection,
        stale_reason=stale_reason,
        errors=errors,
        states=STATES,
        problems=[(problem, _dag_of(problem, overview, triggerable)) for problem in selection.problems],
        reasons=[each for each in selection.datasets if each.dead_by_reason],
        reasons_shown=REASONS,
        samples=samples,
        triggerable=triggerable,
        models=selection.models,
        history=selection.history,
        ago=lambda at: ago(at, status.at),
        ranges=list(RANGES.values()),
        measures=MEASURES,
        charts=small_charts(selection.charted, [each.dataset for each in selection.datasets]),
        recent_dead=lambda dataset: _recent_dead(dataset, selection),
        rows_per_s=lambda dataset: _rows_per_s(dataset, selection),
        address=lambda fragment, **changed: _address(selection, fragment, changed),
    )


def render_login(code: int) -> str:
    """The page for a user who is not logged in, or may not see the page."""
    return TEMPLATES.get_template("login.html").render(code=code)


def render_runbook(version: str) -> str:
    """The runbook, docs/runbook.md, with an anchor for each section; links to other documents are text."""
    from markdown_it import MarkdownIt

    text = re.sub(r"\[([^]]+)\]\(([\w./-]+\.md)[^)]*\)", r"\1 (docs/\2)", FILE.read_text())
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for heading, content in pairwise(tokens):
        if heading.type == "heading_open":
            heading.attrSet("id", anchor(content.content))
    html = markdown.renderer.render(tokens, markdown.options, {})
    return TEMPLATES.get_template("runbook.html").render(version=version, html=html)


def _dag_of(problem: Problem, overview: Overview, triggerable: Collection[str]) -> str | None:
    """The DAG that does the same as the problem's command, if the user may trigger it."""
    by_command = {"build": "build_marts"}
    if problem.dataset is not None and problem.kind != "declaration":
        by_command |= {"drain": (dag := overview.dag_of(problem.dataset)), "load": dag}
    found = by_command.get(problem.command.arguments[0])
    return found if found in triggerable else None


def _recent_dead(dataset: DatasetStatus, selection: Selection) -> int:
    """Dead letters of the range; of the last hour those of the state's own query, as in JSON and problems."""
    if selection.charted.range is HOUR:
        return dataset.recent_dead
    return sum(selection.charted.series.dead.get(dataset.dataset, ()))


def _rows_per_s(dataset: DatasetStatus, selection: Selection) -> float | None:
    if selection.charted.range is HOUR:
        return dataset.rows_per_s
    return selection.charted.series.rows_per_s.get(dataset.dataset)


def _address(selection: Selection, fragment: str, changed: Mapping[str, object]) -> str:
    """The address of the same search and range with changes, relative to the page; None removes a parameter."""
    charted = selection.charted
    given: dict[str, object] = {
        "q": selection.query or None,
        "range": None if charted.range is HOUR else charted.range.name,
        "scale": "shared" if charted.is_shared else None,
        "page": None if selection.page == 1 else selection.page,
    }
    kept = {name: value for name, value in (given | dict(changed)).items() if value is not None}
    return f"?{urlencode(kept)}#{fragment}"


def ago(at: datetime | None, now: datetime) -> str:
    """How long ago something was, in words."""
    if at is None:
        return NOTHING
    seconds = round((now - at).total_seconds())
    return "now" if seconds < 1 else f"{seconds} s ago" if seconds < 10 else f"{duration(seconds)} ago"


def _run_address(run: BatchStatus | RunContext) -> str:
    """Airflow's address of the task that ran, with its log, or of its run if the map index is unknown."""
    address = f"dags/{_path(run.dag_id)}/runs/{_path(run.run_id)}"
    if run.task_id is None or run.map_index is None:
        return address
    address += f"/tasks/{_path(run.task_id)}"
    address = address if run.map_index < 0 else f"{address}/mapped/{run.map_index}"
    attempt = run.try_number if isinstance(run, RunContext) else None
    return address if attempt is None else f"{address}?try_number={attempt}"


def _path(text: object) -> str:
    return quote(str(text), safe="")


def _with_code(text: str, command: Command) -> Markup:
    """Escaped text in which this command is marked as code."""
    line = Markup("<code>{}</code>").format(str(command))
    return line.join(escape(part) for part in visible(text).split(f"`{command}`"))


def _finish(value: object) -> object:
    """A value for a template, in visible characters: HTML's escaping does not change text that reorders or hides."""
    return value if isinstance(value, Markup) else visible(str(value))


def _count(number: float | None) -> str:
    return NOTHING if number is None else f"{number:,.0f}"


def _utc(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%H:%M:%S}"


def _bucket(start: int, bucket_s: int) -> str:
    """The start of a bucket of time, UTC; with its day where the range has several."""
    return f"{datetime.fromtimestamp(start, UTC):{'%H:%M' if bucket_s <= 300 else '%d %b %H:%M'}}"


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finish,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals["command"] = Command
TEMPLATES.filters |= {
    "beginning": lambda text: text if len(text) <= TEXT_LENGTH_MAX else f"{text[:TEXT_LENGTH_MAX]}…",
    "duration": lambda seconds: NOTHING if seconds is None else duration(seconds),
    "count": _count,
    "utc": _utc,
    "clock": _clock,
    "bucket": _bucket,
    "with_code": _with_code,
    "path": _path,
    "run_address": _run_address,
}
