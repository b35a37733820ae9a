"""The small charts of a dataset: inline SVG with a text alternative, rendered on the server."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from markupsafe import Markup

from headrace.durations import duration
from headrace.escaping import visible
from headrace.monitor.figures import TimeSeries
from headrace.monitor.series import HOUR, RANGES, TimeRange

HEIGHT = 20  # of a chart in its own units; its width is the number of buckets
DAY_S = 86_400
NO_BUCKETS = TimeSeries(HOUR.bucket_s, (), {}, {})

Values = Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Charted:
    """What the charts show. note: why they show nothing, or old figures. version: of `series`, for equal pages."""

    range: TimeRange
    series: TimeSeries
    note: str | None = None
    version: float = 0.0
    is_shared: bool = False  # one scale for the small charts of all datasets on the page, not one for each


def range_of(name: str) -> TimeRange:
    """A range by its name in the address; the hour for any other text."""
    return RANGES.get(name, HOUR)


@dataclass(frozen=True, slots=True)
class SmallChart:
    """A chart and the figure beside it."""

    figure: str
    svg: Markup


def small_charts(charted: Charted, datasets: Sequence[str]) -> dict[str, dict[str, SmallChart]]:
    """The charts of each dataset by what they measure; empty without buckets."""
    series = charted.series
    if not series.starts:
        return {}
    rows = {measure.title: measure.values(series) for measure in MEASURES}
    most = {
        title: max((_most(values[name]) for name in datasets if name in values), default=0.0)
        for title, values in rows.items()
    }
    return {
        name: {
            measure.title: _chart(
                measure,
                name,
                rows[measure.title].get(name, ()),
                charted,
                most[measure.title] if charted.is_shared else 0.0,
            )
            for measure in MEASURES
        }
        for name in datasets
        if name in series.rows
    }


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure with a chart. is_sum: whether its buckets add up; else the largest one counts."""

    title: str
    words: str
    kind: str  # a class of page.css
    is_sum: bool
    values: Callable[[TimeSeries], Mapping[str, Values]]
    text: Callable[[float], str]


MEASURES = (
    Measure("Records", "records committed", "rows", True, lambda series: series.rows, "{:,.0f}".format),
    Measure("Lag", "unread records", "lag", False, lambda series: series.lag, "{:,.0f}".format),
    Measure("Dead letters", "dead letters", "dead", True, lambda series: series.dead, "{:,.0f}".format),
    Measure("Source → staging", "from source to staging", "fresh", False, lambda series: series.freshness_s, duration),
)


def _chart(measure: Measure, dataset: str, values: Values, charted: Charted, scale: float) -> SmallChart:
    known = [value for value in values if value is not None]
    if not known and not measure.is_sum:
        return SmallChart("\N{EN DASH}", _svg(measure, values, 1, f"{dataset}: {measure.words}: unknown"))
    most = _most(values)
    figure = measure.text(sum(known) if measure.is_sum else most)
    label = f"{dataset}, last {charted.range.label}: {figure} {measure.words}"
    if measure.is_sum and most:
        label += f", at most {measure.text(most)} per {charted.range.bucket_label}"
    if most:
        start = charted.series.starts[list(values).index(most)]
        label += f", at {datetime.fromtimestamp(start, UTC):%d %b %H:%M} UTC"
    shown = figure if measure.is_sum or not most else f"\N{LESS-THAN OR EQUAL TO} {figure}"
    return SmallChart(shown, _svg(measure, values, scale or most, label))


def _most(values: Values) -> float:
    return max((value for value in values if value is not None), default=0.0)


SVG = Markup(
    '<svg class="small {kind}" role="img" aria-label="{label}" viewBox="0 0 {width} {height}" '
    'preserveAspectRatio="none"><path d="{path}"/></svg>'
)


def _svg(measure: Measure, values: Values, scale: float, label: str) -> Markup:
    width = max(len(values), 1)
    return SVG.format(kind=measure.kind, label=visible(label), width=width, height=HEIGHT, path=_steps(values, scale))


def _steps(values: Values, scale: float) -> str:
    """The outline of bars without gaps: a step for each run of equal heights. A value above 0 is never invisible."""
    path, height = f"M0 {HEIGHT}", 0
    for number, value in enumerate(values):
        wanted = max(round(HEIGHT * value / scale), 1) if value and scale else 0
        if wanted != height:
            path += f"H{number}V{HEIGHT - wanted}"
            height = wanted
    return f"{path}H{len(values)}V{HEIGHT}z"
