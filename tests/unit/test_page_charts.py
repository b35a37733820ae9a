"""The small charts of the page: their outlines, their texts, and the links between ranges."""

import re

from headrace.airflow.page_charts import Charted, small_charts
from headrace.airflow.page_selection import select
from headrace.airflow.page_template import render_figures
from headrace.monitor.figures import TimeSeries
from headrace.monitor.problems import AlertThresholds, find_problems_by
from headrace.monitor.series import RANGES
from tests.support.statuses import NOW, dataset, status

DAY = RANGES["24h"]
START = int(NOW.timestamp())
SERIES = TimeSeries(
    1200,
    [START, START + 1200, START + 2400],
    rows={"jobs": [0, 40, 20], "rides": [0, 0, 4]},
    lag={"jobs": [None, 1000, 1], "rides": [None, None, None]},
    dead={"jobs": [0, 2, 0]},
    freshness_s={"jobs": [None, 90.0, None]},
    rows_per_s={"jobs": 321.4},
)


def test_chart_is_an_outline_with_a_text_that_says_the_same() -> None:
    charts = small_charts(Charted(DAY, SERIES), ["jobs", "rides", "unknown"])
    assert list(charts) == ["jobs", "rides"]
    rows, lag = charts["jobs"]["Records"], charts["jobs"]["Lag"]
    assert 'd="M0 20H1V0H2V10H3V20z"' in rows.svg
    assert 'aria-label="jobs, last 24 h: 60 records committed, at most 40 per 20 min, at 01 Mar 12:20 UTC"' in rows.svg
    assert (rows.figure, lag.figure) == ("60", "≤ 1,000")
    assert 'd="M0 20H1V0H2V19H3V20z"' in lag.svg  # a value above 0 is seen
    assert charts["jobs"]["Source → staging"].figure == "≤ 2 min"
    assert charts["rides"]["Lag"].figure == "\N{EN DASH}"
    assert charts["rides"]["Dead letters"].figure == "0"


def test_shared_scale_makes_datasets_comparable() -> None:
    charts = small_charts(Charted(DAY, SERIES, is_shared=True), ["jobs", "rides"])
    assert 'd="M0 20H2V18H3V20z"' in charts["rides"]["Records"].svg
    assert 'd="M0 20H2V0H3V20z"' in small_charts(Charted(DAY, SERIES), ["rides"])["rides"]["Records"].svg


def test_figures_follow_the_range_and_links_keep_search_and_range() -> None:
    overview = find_problems_by(
        status(dataset("jobs", dead_by_reason={"invalid_json": 3}, recent_dead=1)), {"jobs": AlertThresholds()}
    )
    html = render_figures(overview, (), select(overview, "jobs", 1, Charted(DAY, SERIES)))
    assert '<td data-label="Rows/s" class="number">321</td>' in html
    assert "3 not replayed, 2 new in the last 24 h" in html
    assert "Last 24 h <small>UTC</small>" in html
    assert '<input type="hidden" name="range" value="24h">' in html
    addresses = re.findall(r'<a href="([^"]+)"( aria-current="true")?>(\w+)</a>', html)
    assert ("?q=jobs#datasets", "", "1h") in addresses
    assert ("?q=jobs&amp;range=24h#datasets", ' aria-current="true"', "24h") in addresses
    assert ("?q=jobs&amp;range=24h&amp;scale=shared#each-heading", "", "shared") in addresses
    hour = render_figures(overview, (), select(overview))
    assert "3 not replayed, 1 new in the last hour" in hour
    assert 'name="range"' not in hour
