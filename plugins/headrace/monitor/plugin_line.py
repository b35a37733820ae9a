"""The line of `headrace status --check`, as Nagios, Icinga and their successors read it.

Source of the rules: the Monitoring Plugins Development Guidelines, https://www.monitoring-plugins.org/doc/guidelines.html:
text, a vertical bar, performance data as 'label'=value[unit];[warn];[crit];[min], and the exit status.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from headrace.exceptions import HeadraceError
from headrace.monitor.problem import Problem
from headrace.monitor.problems import Overview
from headrace.output import shown

NAMED_PROBLEMS = 3  # a pager shows one line; the page and `headrace status` have the others
TEXT_LENGTH_MAX = 200  # characters of a problem's text: some quote whole messages of dbt
DATASETS_MAX = 40  # with their own performance data: Nagios cuts a plugin's output at 8 KiB


class PluginStatus(IntEnum):
    """The exit statuses that the guidelines define."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class PluginLine:
    """The exit status of a plugin, and its line."""

    status: PluginStatus
    text: str


def plugin_line(overview: Overview) -> PluginLine:
    """CRITICAL with an error among the problems, WARNING with a warning, otherwise OK."""
    errors = sum(problem.severity == "error" for problem in overview.problems)
    warnings = len(overview.problems) - errors
    status = PluginStatus.CRITICAL if errors else PluginStatus.WARNING if warnings else PluginStatus.OK
    counted = ", ".join(_counted(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number)
    named = "; ".join(_named(problem) for problem in overview.problems[:NAMED_PROBLEMS])
    more = len(overview.problems) - NAMED_PROBLEMS
    text = f"{counted}: {named}" if counted else f"no problems, {_counted(len(overview.status.datasets), 'dataset')}"
    if more > 0:
        text += f"; and {more} more"
    figures = [f"'errors'={errors};;0;0", f"'warnings'={warnings};0;;0", *_figures(overview)]
    return PluginLine(status, f"{_headed(status, text)} | {' '.join(figures)}")


def unknown(error: BaseException) -> PluginLine:
    """UNKNOWN, with the reason why there are no figures."""
    text = str(error) if isinstance(error, HeadraceError) else f"{type(error).__name__}: {error}"
    return PluginLine(PluginStatus.UNKNOWN, _headed(PluginStatus.UNKNOWN, shown(" ".join(text.split()))))


def _headed(status: PluginStatus, text: str) -> str:
    """The text behind service and status; a bar would begin the performance data."""
    return f"HEADRACE {status.name} - {text.replace('|', '/')}"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _named(problem: Problem) -> str:
    text = problem.text
    if len(text) > TEXT_LENGTH_MAX:
        text = f"{text[: TEXT_LENGTH_MAX - 1]}…"
    return f"{problem.about}: {text}"


def _figures(overview: Overview) -> Iterator[str]:
    """Sums, then lag and staleness of each dataset that limits them. A value that is not known is U.

    lag, dead: records. stale: seconds since the oldest record that is not in every mart.
    """
    datasets = overview.status.datasets
    yield f"'lag'={sum(dataset.lag for dataset in datasets)};;;0"
    yield f"'dead'={sum(dataset.dead for dataset in datasets)}c;;;0"
    limited = [
        (dataset, limits)
        for dataset in datasets
        if (limits := overview.limits.get(dataset.dataset)) is not None
        and (limits.max_lag is not None or limits.max_freshness_s is not None)
    ]
    for dataset, limits in limited[:DATASETS_MAX]:
        if limits.max_lag is not None:
            yield f"'{dataset.dataset}_lag'={dataset.lag};;{limits.max_lag};0"
        if limits.max_freshness_s is not None:
            stale = "U" if dataset.stale_s is None else f"{dataset.stale_s:.0f}s"
            yield f"'{dataset.dataset}_stale'={stale};;{limits.max_freshness_s:g};0"
