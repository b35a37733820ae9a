"""What a page shows of very many datasets: its size is bounded, and a search finds the others."""

from typing import Any

import pytest

from headrace.airflow.page_selection import DATASETS, OTHERS, PROBLEMS, SERIES, select
from headrace.airflow.page_template import render_figures
from headrace.monitor.metrics import exposition
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from tests.support.statuses import build, dataset, dead_letter, model, partition, status

MANY = 2_000


@pytest.fixture(scope="module")
def overview() -> Overview:
    """Every dataset behind its limit, with dead letters and a model; those of the first page have forty partitions."""
    names = [f"d{number:04d}" for number in range(MANY)]
    partitions = [partition(number) for number in range(40)]
    given: dict[str, Any] = {"lag": 9, "dead_by_reason": {"invalid_json": 3}}
    return find_problems_by(
        status(
            *(dataset(name, **given, partitions=partitions) for name in names[:DATASETS]),
            *(dataset(name, **given) for name in names[DATASETS:]),
            models=[model(name) for name in names],
            builds=[build()],
            dead_letters=[dead_letter(dataset=name) for name in names],
        ),
        {name: AlertThresholds(max_lag=5) for name in names},
    )


def test_page_of_many_datasets_is_small_and_counts_the_rest(overview: Overview) -> None:
    html = render_figures(overview, ())
    assert len(html) < 500_000
    assert f"{PROBLEMS} of 2,000 problems" in html
    assert "1,975 more: search for a dataset below" in html
    assert "2,000 of 2,000 datasets" in html
    assert "Page 1 of 40" in html
    assert html.count('data-label="State"') == DATASETS
    assert "1,800 more: <code>headrace status --partitions</code>" in html
    assert "1,950 more: <code>headrace status --json</code> has them." in html


def test_what_programs_read_of_many_datasets_is_complete(overview: Overview) -> None:
    assert exposition(overview).count(b"headrace_lag_records{") == MANY + 39 * DATASETS
    document = overview.document()
    assert len(document["datasets"]) == len(document["problems"]) == MANY


def test_search_finds_by_name_topic_and_state(overview: Overview) -> None:
    found = select(overview, "D099", 1)
    assert [each.dataset for each in found.datasets] == [f"d099{digit}" for digit in range(10)]
    assert (found.datasets_found, found.problems_found) == (10, 10)
    assert select(overview, "late 0424").datasets_found == 1
    assert select(overview, "up to date").datasets_found == 0
    assert select(overview, "no such thing").datasets == []


@pytest.mark.parametrize(("page", "shown", "first"), [(1, 1, 0), (7, 7, 300), (40, 40, 1950), (41, 40, 1950)])
def test_pages_hold_all_datasets_one_after_the_other(overview: Overview, page: int, shown: int, first: int) -> None:
    found = select(overview, "", page)
    assert (found.page, found.pages, found.datasets[0].dataset) == (shown, 40, f"d{first:04d}")


def test_links_to_pages_keep_the_search(overview: Overview) -> None:
    html = render_figures(overview, (), select(overview, 'd "&', 1))
    assert 'value="d &#34;&amp;"' in html
    html = render_figures(overview, (), select(overview, "d0 late", 2))
    assert 'rel="next" href="?q=d0+late&amp;page=3#datasets"' in html
    assert 'rel="prev" href="?q=d0+late&amp;page=1#datasets"' in html


def test_charts_draw_the_largest_and_the_sum_of_the_others(overview: Overview) -> None:
    rows = select(overview).history["rows"]
    assert isinstance(rows, dict)
    assert len(rows) == SERIES
    assert rows[OTHERS] == [5 * (MANY - SERIES + 1)] * 60


def test_page_of_a_few_datasets_has_neither_pages_nor_counts() -> None:
    html = render_figures(find_problems_by(status(dataset("jobs")), {"jobs": AlertThresholds()}), ())
    assert "Page 1" not in html
    assert "1 of 1 datasets" not in html
    assert '<input type="search"' in html
