"""`headrace status` on terminals."""

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from headrace.command import Command
from headrace.exceptions import DatabaseUnavailable
from headrace.monitor import text as status_text
from headrace.monitor.problems import AlertThresholds, Overview, find_problems_by
from tests.support.statuses import build, dataset, model, partition, status

BUSY = find_problems_by(
    status(
        dataset(
            "telemetry",
            lag=12_345_678,
            lag_s=200_000.0,
            staging_freshness_s=7500.0,
            mart_freshness_s=7500.0,
            staged=987_654_321,
            dead=1_234_567,
            rows_per_s=123_456.0,
            last_error="no broker\x1b[2J `headrace up`",
            last_command=Command("up"),
            dead_by_reason={"wrong_type": 7},
            ignored=2_000,
            followed_by="host:1",
            partitions=[partition(0, lag=12_345_678, lag_s=200_000.0)],
        ),
        dataset("rides", generation=None),
        models=[model()],
        builds=[build()],
    ),
    {"telemetry": AlertThresholds(), "rides": AlertThresholds()},
)


def lines(overview: Overview, width: int = 80, partitions: bool = False) -> list[str]:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(status_text.renderable(overview, partitions=partitions))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("partitions", [False, True])
def test_status_is_whole_at_80_columns(partitions: bool) -> None:
    found = lines(BUSY, partitions=partitions)
    assert all(len(line) <= 80 for line in found)
    headings = next(line for line in found if line.startswith("dataset"))
    assert headings.split() == ["dataset", "state", "lag", "waits", "staging", "mart", "rows", "dead", "rows/s"]
    row = next(line for line in found if line.startswith("telemetry"))
    for text in ("failing", "12.3M", "2 d 8 h", "2 h 5 min", "988M", "1.23M", "123,456"):
        assert text in row
    assert "…" not in "".join(found)


def test_status_begins_with_problems_and_their_commands() -> None:
    found = lines(BUSY)
    assert found[0].startswith("error: telemetry: no broker\\x1b[2J")
    assert found[1] == "  -> headrace up"
    assert any(line.startswith("marts: 1 models, 0 failing") for line in found)
    assert "telemetry: 2,000 records ignored, which its condition leaves out" in found


def test_status_shows_names_of_others_as_they_are_and_visible() -> None:
    odd = "[red]x[/red]\x1b[2J\u202e"
    found = lines(
        find_problems_by(status(dataset(odd, followed_by=odd), models=[]), {odd: AlertThresholds()}), width=200
    )
    assert sum("[red]x[/red]\\x1b[2J\\u202e" in line for line in found) == 2
    assert "".join(found).isprintable()


def test_status_of_nothing_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    status_text.render(find_problems_by(status(dataset("jobs", generation=None)), {"jobs": AlertThresholds()}))
    assert "`headrace load users` and `headrace drain jobs` begin" in " ".join(capsys.readouterr().out.split())


def answering(*answers: Overview | BaseException) -> Callable[[], Overview]:
    """A function that returns or raises one answer after the other."""
    left = iter(answers)

    def read() -> Overview:
        response = next(left)
        if isinstance(response, BaseException):
            raise response
        return response

    return read


def test_watch_refreshes_says_what_fails_and_ends_with_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_text, "WATCH_S", 0.0)
    read = answering(BUSY, DatabaseUnavailable("postgres: gone"), BUSY, KeyboardInterrupt())
    console = Console(width=100, height=40, file=io.StringIO(), force_terminal=True)
    status_text.watch(read, console=console)
    file = console.file
    assert isinstance(file, io.StringIO)
    assert file.getvalue().count("telemetry") >= 3
    assert "postgres: gone" in file.getvalue()


def test_watch_shows_every_table_beside_long_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_text, "WATCH_S", 0.0)
    models = [model(f"model_{n}", status="error", message="long " * 100) for n in range(6)]
    overview = find_problems_by(
        status(dataset("telemetry"), models=models, builds=[build(status="error")]), {"telemetry": AlertThresholds()}
    )
    read = answering(overview, KeyboardInterrupt())
    console = Console(width=80, height=40, file=io.StringIO(), force_terminal=True)
    status_text.watch(read, console=console)
    file = console.file
    assert isinstance(file, io.StringIO)
    assert "marts: 6 models, 6 failing" in file.getvalue()
