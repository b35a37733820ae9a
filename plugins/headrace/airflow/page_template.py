"""The page's HTML: Jinja templates that escape everything, and the formats of figures."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from headrace.airflow.page_selection import REASONS, STATES, Selection, select
from headrace.command import Command
from headrace.durations import duration
from headrace.escaping import visible
from headrace.monitor.figures import BatchStatus
from headrace.monitor.problem import Problem
from headrace.monitor.problems import Overview
from headrace.monitor.runbook import FILE, anchor
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
    return _TEMPLATES.get_template("page.html").render(
        figures=figures, error=error, again_s=again_s, version=version, refresh_s=REFRESH_S
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
    return _TEMPLATES.get_template("figures.html").render(
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
        ago=lambda at: _ago(at, status.at),
        page_address=lambda page: _page_address(selection.query, page),
    )


def render_login(code: int) -> str:
    """The page for a user who is not logged in, or may not see the page."""
    return _TEMPLATES.get_template("login.html").render(code=code)


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
    return _TEMPLATES.get_template("runbook.html").render(version=version, html=html)


def _dag_of(problem: Problem, overview: Overview, triggerable: Collection[str]) -> str | None:
    """The DAG that does the same as the problem's command, if the user may trigger it."""
    by_command = {"build": "build_marts"}
    if problem.dataset is not None and problem.kind != "declaration":
        by_command |= {"drain": (dag := overview.dag_of(problem.dataset)), "load": dag}
    found = by_command.get(problem.command.arguments[0])
    return found if found in triggerable else None


def _page_address(query: str, page: int) -> str:
    """The address of another page of the same search, relative to the page."""
    given = {"q": query} if query else {}
    return f"?{urlencode({**given, 'page': page})}#datasets"


def _ago(at: datetime | None, now: datetime) -> str:
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


def _clock(at: datetime | int) -> str:
    """UTC: seconds for a datetime, minutes for a minute in seconds since 1970."""
    return f"{at.astimezone(UTC):%H:%M:%S}" if isinstance(at, datetime) else f"{datetime.fromtimestamp(at, UTC):%H:%M}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finish,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["command"] = Command
_TEMPLATES.filters |= {
    "beginning": lambda text: text if len(text) <= TEXT_LENGTH_MAX else f"{text[:TEXT_LENGTH_MAX]}…",
    "duration": lambda seconds: NOTHING if seconds is None else duration(seconds),
    "count": _count,
    "utc": _utc,
    "clock": _clock,
    "with_code": _with_code,
    "path": _path,
    "run_address": _run_address,
}
