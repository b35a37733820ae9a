"""The line of `headrace status --check`, and its exit status."""

import re
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headrace.cli import main
from headrace.monitor import problems as problems_module
from headrace.monitor import status as status_module
from headrace.monitor.plugin_line import DATASETS_MAX, plugin_line
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from tests.support.statuses import dataset, model, status

# the guidelines: 'label'=value[UOM];[warn];[crit];[min];[max]
FIGURE = re.compile(r"'[^'=]+'=(U|[0-9.]+)(s|c|%|B|KB|MB|TB)?(;[0-9.]*){0,4}")


def overview(*, limits: AlertThresholds | None = None, **values: Any) -> Overview:
    return find_problems_by(status(dataset(**values)), {"jobs": limits or AlertThresholds()})


def check(monkeypatch: pytest.MonkeyPatch, found: Overview) -> Result:
    monkeypatch.setattr(status_module, "read_status", lambda _connect: found.status)
    monkeypatch.setattr(problems_module, "find_problems", lambda _status, _settings, _health: found)
    return CliRunner().invoke(
        main, ["status", "--check"], env={"HEADRACE_HOME": "/nonexistent", "HEADRACE_POSTGRES_DSN": "postgresql:///x"}
    )


@pytest.mark.parametrize(
    ("values", "exit_code", "beginning"),
    [
        ({}, 0, "HEADRACE OK - no problems, 1 dataset | 'errors'=0;;0;0 'warnings'=0;0;;0 'lag'=0;;;0"),
        ({"recent_dead": 7, "dead_by_reason": {"wrong_type": 7}}, 1, "HEADRACE WARNING - 1 warning: jobs: 7 records "),
        ({"last_error": "jobs: no broker"}, 2, "HEADRACE CRITICAL - 1 error: jobs: no broker | 'errors'=1;;0;0"),
    ],
    ids=["ok", "warning", "critical"],
)
def test_check_ends_with_the_status_of_the_worst_problem(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], exit_code: int, beginning: str
) -> None:
    result = check(monkeypatch, overview(**values))
    assert result.exit_code == exit_code, result.output
    assert result.stdout.startswith(beginning)
    assert result.stdout.count("\n") == 1


def test_check_without_a_database_is_unknown() -> None:
    for settings in ({}, {"HEADRACE_POSTGRE_DSN": "x"}):
        result = CliRunner().invoke(main, ["status", "--check"], env={"HEADRACE_HOME": "/nonexistent"} | settings)
        assert result.exit_code == 3, result.output
        assert result.stdout.startswith("HEADRACE UNKNOWN - ")
        assert "|" not in result.stdout
        assert result.stderr == ""


def test_check_after_an_unexpected_error_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_connect: object) -> None:
        raise ZeroDivisionError("a defect\nof two lines")

    monkeypatch.setattr(status_module, "read_status", fail)
    result = CliRunner().invoke(
        main, ["status", "--check"], env={"HEADRACE_HOME": "/nonexistent", "HEADRACE_POSTGRES_DSN": "postgresql:///x"}
    )
    assert (result.exit_code, result.stdout) == (3, "HEADRACE UNKNOWN - ZeroDivisionError: a defect of two lines\n")


@pytest.mark.parametrize("other", ["--json", "--watch", "--partitions"])
def test_check_excludes_other_outputs(other: str) -> None:
    assert CliRunner().invoke(main, ["status", "--check", other]).exit_code == 2


def test_text_cannot_begin_the_figures_or_a_second_line() -> None:
    found = plugin_line(overview(last_error="a | 'errors'=0\nb"))
    text, bar, figures = found.text.partition(" | ")
    assert (text, bar) == ("HEADRACE CRITICAL - 1 error: jobs: a / 'errors'=0 b", " | ")
    assert "\n" not in found.text
    assert all(FIGURE.fullmatch(figure) for figure in figures.split())


def test_figures_have_the_limits_of_declarations() -> None:
    limits = AlertThresholds(max_lag=10, max_freshness_s=300.0)
    line = plugin_line(overview(limits=limits, lag=12, lag_s=2.5, stale_s=2.5)).text
    assert "'jobs_lag'=12;;10;0 'jobs_stale'=2s;;300;0" in line
    assert "'jobs_stale'=U;;300;0" in plugin_line(overview(limits=limits, stale_s=None)).text


def test_many_problems_and_datasets_stay_within_8_kib() -> None:
    names = [f"dataset_{number:03}" for number in range(300)]
    found = find_problems_by(
        status(
            *(dataset(dataset=name, last_error=f"of {name} {'x' * 10_000}") for name in names),
            models=[model(status="error")],
        ),
        {name: AlertThresholds(max_lag=1, max_freshness_s=60.0) for name in names},
    )
    line = plugin_line(found).text
    assert len(line.encode()) < 8192
    assert "; and 298 more | 'errors'=301;;0;0" in line
    assert line.count("_lag'") == DATASETS_MAX
