"""What a search on a page of very many datasets costs the process that serves it."""

import time

from headrace.airflow.page_selection import select
from headrace.airflow.page_template import render_figures
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from tests.support.statuses import dataset, dead_letter, model, status


def test_search_among_ten_thousand_datasets_is_rendered_within_half_a_second() -> None:
    names = [f"d{number:05d}" for number in range(10_000)]
    overview = find_problems_by(
        status(
            *(dataset(name, lag=9, dead_by_reason={"invalid_json": 3}) for name in names),
            models=[model(name) for name in names],
            dead_letters=[dead_letter(dataset=name) for name in names],
        ),
        {name: AlertThresholds(max_lag=5) for name in names},
    )
    assert min(_seconds(overview) for _ in range(3)) < 0.5


def _seconds(overview: Overview) -> float:
    began = time.thread_time()
    render_figures(overview, (), select(overview, "d0999", 1))
    return time.thread_time() - began
