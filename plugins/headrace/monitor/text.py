"""A status for a terminal of 80 columns: problems first, a line per dataset, then builds."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from headrace.durations import count, duration
from headrace.exceptions import HeadraceError
from headrace.monitor.problems import Overview
from headrace.output import shown

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

WATCH_S = 2.0
WATCHED_LENGTH = (
    160  # limit of a problem's text with --watch: a full message of dbt would push the tables off the screen
)
NOTHING = "nothing was ingested yet; `headrace load users` and `headrace drain jobs` begin"
COLORS = {
    "broken": "red",
    "failing": "red",
    "late": "red",
    "unseen": "yellow",
    "paused": "yellow",
    "behind": "yellow",
    "building": "cyan",
    "empty": "dim",
    "removed": "dim",
}
HEADINGS = ("dataset", "state", "lag", "waits", "staging", "mart", "rows", "dead", "rows/s")
LEGEND = (
    "lag: unread records, the first of which waits; staging, mart: how long the newest record took from the source to "
    "there; rows/s: while draining, over the last hour"
)


def render(overview: Overview, *, partitions: bool = False) -> None:
    """Print a status."""
    from rich.console import Console

    console = Console(highlight=False)
    if all(dataset.is_empty for dataset in overview.status.datasets) and not overview.problems:
        console.print(NOTHING)
        return
    console.print(renderable(overview, partitions=partitions))


def watch(read: Callable[[], Overview], *, partitions: bool = False, console: "Console | None" = None) -> None:
    """Print it again every two seconds until Ctrl-C; an error is shown and retried."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    live = Live(console=console or Console(highlight=False), auto_refresh=False, screen=True)
    shown: RenderableType = Text("reading ...")
    try:
        with live:
            while True:
                try:
                    overview = read()
                    shown = Group(
                        Text(f"{overview.status.at.astimezone():%H:%M:%S}  Ctrl-C ends", style="dim"),
                        renderable(overview, partitions=partitions, text_length=WATCHED_LENGTH),
                    )
                    live.update(shown, refresh=True)
                except HeadraceError as error:
                    live.update(Group(Text(str(error), style="red"), shown), refresh=True)
                time.sleep(WATCH_S)
    except KeyboardInterrupt:
        return


def renderable(overview: Overview, *, partitions: bool = False, text_length: int | None = None) -> "RenderableType":
    """Problems, datasets, dead letters and models. text_length: limit of a problem's text; None: none."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = []
    for problem in overview.problems:
        color = "red" if problem.severity == "error" else "yellow"
        text = problem.text
        if text_length is not None and len(text) > text_length:
            text = text[: text_length - 1] + "…"
        line = Text.assemble((f"{problem.severity}: ", f"bold {color}"), f"{problem.about}: {text}")
        parts += [line, Text.assemble("  -> ", (str(problem.command), "bold"))]
        age = problem.age(overview.status.at)
        began = () if age is None or problem.since is None else (f"since {problem.since:%Y-%m-%d %H:%M} UTC, {age}",)
        parts.append(Text("     " + "; ".join((*began, problem.runbook)), style="dim"))
        if problem.log_text is not None:
            parts.append(Text(f"     log: {problem.log_text}", style="dim"))
    if parts:
        parts.append(Text())
    parts.append(_datasets(overview, partitions))
    parts.append(Text(LEGEND, style="dim"))
    lines = [*_remarks(overview), *_models(overview)]
    return Group(*parts, *(Text(shown(line)) for line in lines))


def _datasets(overview: Overview, partitions: bool) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), expand=False)
    for heading in HEADINGS:
        is_text = heading in ("dataset", "state")
        # only the column of the dataset's name may wrap
        table.add_column(heading, justify="left" if is_text else "right", no_wrap=heading != "dataset", overflow="fold")
    for dataset in overview.status.datasets:
        state = overview.states[dataset.dataset]
        if dataset.is_empty:
            table.add_row(Text(shown(dataset.dataset)), Text(state, style=COLORS.get(state, "green")))
            continue
        table.add_row(
            Text(shown(dataset.dataset)),
            Text(state, style=COLORS.get(state, "green")),
            count(dataset.lag),
            duration(dataset.lag_s) if dataset.lag else "",
            duration(dataset.staging_freshness_s),
            duration(dataset.mart_freshness_s),
            count(dataset.staged),
            count(dataset.dead),
            count(dataset.rows_per_s),
        )
        for each in dataset.partitions if partitions else ():
            table.add_row(
                Text(shown(f"  {each.label}"), style="dim"),
                Text(f"at {each.next_offset}", style="dim"),
                count(each.lag),
                duration(each.lag_s) if each.lag else "",
                duration(each.staging_freshness_s),
                "",
                count(each.staged),
                count(each.dead),
                count(each.rows_per_s),
            )
    return table


def _remarks(overview: Overview) -> Iterator[str]:
    for dataset in overview.status.datasets:
        if dataset.dead_by_reason:
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in dataset.dead_by_reason.items())
            known = f"; {dataset.acknowledged:,} of them acknowledged" if dataset.acknowledged else ""
            yield f"{dataset.dataset}: dead letters: {reasons}{known}"
        if dataset.ignored:
            yield f"{dataset.dataset}: {dataset.ignored:,} records ignored, which its condition leaves out"
        if dataset.behind_open_transaction:
            yield f"{dataset.dataset}: {dataset.behind_open_transaction:,} offsets wait behind an open transaction"
        if dataset.followed_by:
            yield f"{dataset.dataset}: followed by {dataset.followed_by}"


def _models(overview: Overview) -> Iterator[str]:
    models = [model for model in overview.status.models if model.kind == "model"]
    if not overview.status.builds or not models:
        return
    last = overview.status.builds[0]
    ago = duration((overview.status.at - last.finished_at).total_seconds())
    failed = sum(model.status == "error" or bool(model.failed_tests) for model in models)
    behind = sum(model.unbuilt_batches > 0 for model in models)
    yield (
        f"marts: {len(models)} models, {failed} failing, {behind} with batches to build; "
        f"last build {ago} ago, {last.status}, {duration(last.seconds)}"
    )
