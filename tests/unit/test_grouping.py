"""One problem per cause, from statuses that were made up."""

from pathlib import Path
from typing import Any

from headrace.command import Command
from headrace.monitor.problems import AlertThresholds, Overview, find_problems, find_problems_by, over_thresholds
from headrace.postgres.connection import DISK_FULL
from headrace.postgres.ledger import RunContext
from headrace.settings import Settings
from tests.support.statuses import dataset, model, seconds_ago, status

BROKER = "Kafka at kafka:9092 does not answer"
NAMES = ("events", "jobs", "rides", "telemetry")


def of_several(**values: Any) -> Overview:
    return find_problems_by(status(*(dataset(name, **values) for name in NAMES)), dict.fromkeys(NAMES, LIMITED))


LIMITED = AlertThresholds(max_lag=5, max_freshness_s=60)


def test_broker_that_does_not_answer_is_one_problem_of_all_its_datasets() -> None:
    run = RunContext("ingest_jobs", "scheduled__1", "drain", 2, 3)
    overview = of_several(
        last_error="kafka: kafka:9092 did not answer",
        last_cause=BROKER,
        last_command=Command("up"),
        error_since=seconds_ago(240),
        last_run=run,
        drain_error="kafka: kafka:9092 did not answer",
        drain_cause=BROKER,
        observed_at=seconds_ago(240),  # which alone is a missing check, and too old
        lag=9,
    )
    (problem,) = overview.problems
    assert problem.line() == (
        f"{BROKER}: 4 datasets (events, jobs, rides, telemetry): kafka: kafka:9092 did not answer; run `headrace up`"
    )
    assert (problem.kind, problem.datasets, problem.dataset) == ("source", list(NAMES), None)
    assert (problem.since, problem.age(overview.status.at)) == (seconds_ago(240), "4 min")
    assert problem.runbook == "docs/runbook.md#a-service-does-not-answer"
    assert problem.log_text == "Airflow: DAG ingest_jobs, run scheduled__1, task drain[3], try 2"
    document = overview.document()["problems"][0]
    assert (document["age_s"], document["datasets"], document["log"]) == (240.0, list(NAMES), problem.log_text)
    assert "cause" not in document
    assert {each.kind for each in over_thresholds(overview)} == {"lag", "freshness"}  # check_freshness fails as before
    assert set(overview.states.values()) == {"failing"}


def test_two_causes_are_two_problems_and_an_error_of_its_own_stays_the_datasets() -> None:
    overview = find_problems_by(
        status(
            dataset("events", last_error="gone", last_cause=BROKER),
            dataset("jobs", last_error="gone", last_cause=BROKER, drain_error="full", drain_cause="Postgres is full"),
            dataset("rides", drain_error="full", drain_cause="Postgres is full"),
            dataset("telemetry", last_error="telemetry: another stream", drain_error="no entry there"),
        ),
        dict.fromkeys(NAMES, AlertThresholds()),
    )
    assert {problem.about: list(problem.datasets) for problem in overview.problems} == {
        BROKER: ["events", "jobs"], "Postgres is full": ["jobs", "rides"], "telemetry": ["telemetry"],
    }  # fmt: skip


def test_missing_checks_of_several_datasets_are_one_problem_with_one_command() -> None:
    overview = of_several(observed_at=seconds_ago(400))
    (problem,) = overview.problems
    assert (problem.severity, problem.about) == ("error", "sources are not checked")  # all are older than allowed
    assert str(problem.command) == "headrace drain events jobs rides telemetry"
    many = [f"d{number}" for number in range(300)]
    (problem,) = find_problems_by(
        status(*(dataset(name, observed_at=seconds_ago(400)) for name in many)), dict.fromkeys(many, AlertThresholds())
    ).problems
    assert problem.text.startswith("300 datasets (d0, d1, d2, d3, d4 and 295 more): ")
    assert str(problem.command) == "headrace follow"


def test_failed_model_is_one_problem_with_those_behind_it_and_the_batches_that_wait() -> None:
    models = [
        model("jobs", status="error", message="division by zero", reads=["jobs"], failing_since=seconds_ago(90)),
        model("top_users", status="skipped", behind=["jobs"]),
        model("jobs_per_minute", status="skipped", behind=["jobs"]),
        model("users", reads=["users"]),
    ]
    jobs = dataset("jobs", unbuilt_batches=4, unbuilt_s=1000.0, stale_s=1000.0)
    overview = find_problems_by(status(jobs, models=models), {"jobs": LIMITED})
    (problem,) = overview.problems
    assert (problem.kind, problem.about, problem.since) == ("model", "marts.jobs", seconds_ago(90))
    assert problem.text.endswith("division by zero; 2 behind it not built: marts.top_users, marts.jobs_per_minute")
    assert str(problem.command) == "headrace build --select jobs+"
    assert problem.models == ("marts.jobs", "marts.top_users", "marts.jobs_per_minute")


def test_full_disk_is_one_problem_of_drains_and_models() -> None:
    message = "Database Error in model jobs: could not extend file: No space left on device"
    overview = find_problems_by(
        status(
            dataset("jobs", drain_error="No space left on device", drain_cause=DISK_FULL),
            models=[model("jobs", status="error", message=message), model("users", status="error", message=message)],
        ),
        {"jobs": AlertThresholds()},
    )
    (problem,) = overview.problems
    assert problem.about == "Postgres has no space left"
    assert problem.text.startswith("1 dataset (jobs) and 2 models (marts.jobs, marts.users): its drain failed")
    assert problem.runbook == "docs/runbook.md#the-databases-disk-is-full"


def test_failed_test_that_reads_two_models_is_one_problem() -> None:
    test = "jobs_equal_minutes: 3 rows"
    overview = find_problems_by(
        status(models=[model("jobs", failed_tests=[test]), model("jobs_per_minute", failed_tests=[test])]), {}
    )
    (problem,) = overview.problems
    assert list(problem.models) == ["marts.jobs", "marts.jobs_per_minute"]


def test_module_that_several_declarations_import_is_one_problem(tmp_path: Path) -> None:
    for name in ("jobs", "rides"):
        (tmp_path / f"{name}.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "users.py").write_text("(\n")
    overview = find_problems(status(), Settings(datasets_dir=tmp_path))
    assert [list(problem.datasets) for problem in overview.problems] == [["jobs", "rides"], ["users"]]
    assert str(overview.problems[0].command) == "headrace describe jobs rides"
    assert all(problem.since is not None for problem in overview.problems)
