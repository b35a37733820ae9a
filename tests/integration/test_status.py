"""The figures of page, JSON, Prometheus and `headrace status`, from rows inserted by the tests."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace.command import Command
from headrace.exceptions import SourceUnavailable
from headrace.ingest import observations
from headrace.monitor.problems import find_problems
from headrace.monitor.series import RANGES, read_series
from headrace.postgres.connection import database as connected
from tests.support.stage import Stage, offline_stage
from tests.support.status_rows import batch, begin, jobs, note, observe, read, update_totals


@pytest.fixture
def stage(database: str, session_home: Path) -> Stage:
    return offline_stage(database, session_home)


def test_status_before_anything_was_ingested_has_every_dataset_and_no_problem(stage: Stage) -> None:
    overview = find_problems(read(stage), stage.deployment.settings)
    assert [dataset.dataset for dataset in overview.status.datasets] == sorted(overview.limits)
    assert set(overview.states.values()) == {"empty"}
    assert overview.problems == []


def test_status_adds_up_the_partitions(stage: Stage) -> None:
    begin(stage, partitions=2)
    batch(stage, 0, 0, 100, staged="90", dead="8", tombstones="2")
    batch(stage, 1, 0, 50)
    observe(stage, 0, 130)
    observe(stage, 1, 50)
    found = jobs(stage)
    # recent dead letters are counted, and none is stored
    assert (found.staged, found.dead, found.tombstones, found.recent_dead) == (140, 8, 2, 0)
    assert (found.lag, [each.lag for each in found.partitions]) == (30, [30, 0])
    assert found.staging_freshness_s == 3.0
    assert found.rows_per_s == round(150 / 4)
    assert (found.batches, found.has_marts, found.generation, found.topic) == (2, False, 1, "j")


def test_status_says_how_long_the_first_unread_record_has_waited(stage: Stage) -> None:
    begin(stage)
    batch(stage, 0, 0, 100, last_record_at="now() - interval '10 min'")
    observe(stage, 0, 100, "now() - interval '8 min'")
    note(stage)
    observe(stage, 0, 300, "now() - interval '4 min'")  # record 100 came right behind the look of eight minutes ago
    note(stage)
    waited = jobs(stage).lag_s
    assert waited is not None
    assert waited == pytest.approx(480, abs=5)
    batch(stage, 0, 100, 200, last_record_at="now() - interval '7 min'")
    waited = jobs(stage).lag_s
    assert waited is not None
    assert waited == pytest.approx(360, abs=5)  # halfway between the two looks
    batch(stage, 0, 200, 300)
    assert jobs(stage).lag_s == 0


def test_status_without_samples_takes_the_last_read_record_or_says_that_it_does_not_know(stage: Stage) -> None:
    begin(stage)
    observe(stage, 0, 100)
    assert (jobs(stage).lag, jobs(stage).lag_s, jobs(stage).stale_s) == (100, None, None)
    batch(stage, 0, 0, 50, last_record_at="now() - interval '90 s'")
    assert jobs(stage).lag_s == pytest.approx(90, abs=5)


def test_status_measures_marts_by_the_slowest_claim(stage: Stage) -> None:
    begin(stage)
    batch(stage, 0, 0, 10, last_record_at="now() - interval '60 s'")
    batch(stage, 0, 10, 20, committed_at="now() - interval '30 s'", first_record_at="now() - interval '40 s'")
    stage.execute(
        "insert into headrace.claims (schema, identifier, dataset, to_seq, seen, claimed_at) values "
        "('marts', 'jobs', 'jobs', 2, '{}', now()), "
        "('marts', 'jobs_per_minute', 'jobs', 1, '{}', now() - interval '20 s'), "
        "('dev', 'jobs', 'jobs', 0, '{}', now())"
    )
    found = jobs(stage)
    assert (found.has_marts, found.unbuilt_batches) == (True, 1)
    assert found.mart_freshness_s == pytest.approx(40, abs=5)
    assert found.unbuilt_s == pytest.approx(30, abs=5)
    assert found.stale_s == pytest.approx(40, abs=5)
    stage.execute("update headrace.claims set to_seq = 2, claimed_at = now() where schema = 'marts'")
    assert (jobs(stage).unbuilt_batches, jobs(stage).unbuilt_s, jobs(stage).stale_s) == (0, 0, 0)


def test_totals_that_were_folded_give_the_same_sums(stage: Stage) -> None:
    begin(stage, partitions=2)
    for number in range(5):
        batch(stage, number % 2, number * 10, number * 10 + 10, dead="1", staged="9")
    before = jobs(stage)
    update_totals(stage, lines=5)
    assert stage.query("select * from headrace.totals") == []  # too few to bother
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: update_totals(stage), range(4)))
    assert stage.query("select partition, to_seq, staged, dead from headrace.totals order by 1") == [
        (0, 5, 27, 3), (1, 5, 18, 2),
    ]  # fmt: skip
    assert (jobs(stage).staged, jobs(stage).dead) == (before.staged, before.dead) == (45, 5)
    batch(stage, 0, 50, 60)
    assert (jobs(stage).staged, jobs(stage).dead) == (55, 5)
    update_totals(stage)
    assert (jobs(stage).staged, jobs(stage).dead) == (55, 5)


def test_samples_keep_the_worst_of_a_minute_and_for_a_week_one_an_hour(stage: Stage) -> None:
    begin(stage)
    minute = "date_trunc('minute', now())"
    for end, at in ((100, f"{minute} + interval '1 s'"), (700, f"{minute} + interval '2 s'"), (300, "now()")):
        observe(stage, 0, end, at)
        note(stage)
    assert stage.query("select end_offset from headrace.samples") == [(700,)]
    # after a day one sample of each hour is kept, the last; after eight days none
    for age, kept in (("9 days", [(300,)]), ("25 hours", [(301,), (300,)])):
        stage.execute(f"update headrace.samples set minute = date_trunc('hour', minute) - interval '{age}'")
        stage.execute(
            "insert into headrace.samples select dataset, generation, partition, minute + interval '9 min', "
            "end_offset + 1, next_offset, observed_at from headrace.samples"
        )
        note(stage)
        assert stage.query("select end_offset from headrace.samples order by minute") == kept


def test_history_shows_records_and_lag_by_minute(stage: Stage) -> None:
    begin(stage)
    minute = "date_trunc('minute', now())"
    observe(stage, 0, 1000, f"{minute} - interval '10 min'")
    note(stage)
    batch(stage, 0, 0, 400, committed_at=f"{minute} - interval '8 min' + interval '5 s'")
    batch(stage, 0, 400, 1000, committed_at=f"{minute} - interval '7 min' + interval '5 s'")
    minutes = read(stage).history
    assert list(minutes.rows["jobs"])[-12:] == [0, 0, 0, 400, 600, 0, 0, 0, 0, 0, 0, 0]
    assert list(minutes.lag["jobs"])[-12:] == [None, 1000, 1000, 1000, 600, 0, 0, 0, 0, 0, 0, 0]
    assert minutes.starts[-1] % 60 == 0
    assert len(minutes.starts) == len(minutes.rows["jobs"]) == 60


def test_longer_ranges_sum_the_same_figures_in_wider_buckets(stage: Stage) -> None:
    begin(stage)
    hour = "date_trunc('day', now()) - interval '40 h'"
    for minutes, end in ((0, 700), (5, 900)):
        observe(stage, 0, end, f"{hour} + interval '{minutes} min'")
        note(stage)
    batch(
        stage, 0, 0, 400, committed_at=f"{hour} + interval '7 min'", started_at=f"{hour} + interval '6 min 50 s'",
        last_record_at=f"{hour} + interval '2 min'", staged="398", dead="2",
    )  # fmt: skip
    later = f"{hour} + interval '3 h'"
    batch(stage, 0, 400, 1000, committed_at=later, started_at=f"{later} - interval '10 s'")
    status = read(stage)
    with connected(stage.deployment.connect("test")) as connection:
        found = {name: read_series(connection, status.at, status.datasets, each) for name, each in RANGES.items()}
    week = found["7d"]
    at = next(number for number, rows in enumerate(week.rows["jobs"]) if rows)
    assert list(week.rows["jobs"])[at : at + 3] == [400, 600, 0]
    assert list(week.lag["jobs"])[at - 1 : at + 3] == [None, 900, 500, 0]
    assert (sum(week.dead["jobs"]), week.freshness_s["jobs"][at], week.rows_per_s["jobs"]) == (2, 300.0, 50.0)
    assert (week.starts[at + 1] - week.starts[at], len(week.starts)) == (7200, 84)
    assert not any(found["24h"].rows["jobs"])
    assert found["24h"].dead == {}


def test_error_of_a_plan_is_kept_until_the_next_one_sees_the_source(stage: Stage) -> None:
    with connected(stage.deployment.connect("test")) as connection:
        observations.save_error(
            connection, "jobs", SourceUnavailable("no broker; run `headrace up`", command=Command("up"))
        )
    overview = find_problems(read(stage), stage.deployment.settings)
    assert overview.states["jobs"] == "failing"
    assert [(each.text, str(each.command)) for each in overview.problems] == [
        ("no broker; run `headrace up`", "headrace up")
    ]
    begin(stage)
    observe(stage, 0, 0)
    assert jobs(stage).last_error is None


def test_dead_letters_are_sampled_by_reason_and_cut(stage: Stage) -> None:
    begin(stage)
    batch(stage, 0, 0, 30, staged="0", dead="30")
    for offset in range(30):
        reason = "invalid_json" if offset % 3 else "too_large"
        stage.execute(
            'insert into headrace.dead_letters (dataset, generation, partition, "offset", value, reason, detail, '
            f"batch_id) select 'jobs', 1, 0, {offset}, convert_to(repeat('<b>é', 5000), 'UTF8'), '{reason}', 'd', "
            "batch_id from headrace.batches"
        )
    status = read(stage)
    assert [(each.reason, each.offset) for each in status.dead_letters] == [
        ("invalid_json", 29), ("invalid_json", 28), ("too_large", 27), ("too_large", 24),
    ]  # fmt: skip
    for dead_letter in status.dead_letters:
        assert dead_letter.size == 25_000
        assert dead_letter.value is not None
        assert dead_letter.value.startswith("<b>é<b>é")
        assert len(dead_letter.value) <= 201
    assert jobs(stage).dead_by_reason == {"invalid_json": 20, "too_large": 10}


def seconds(action: Callable[[], object]) -> float:
    began = time.monotonic()
    action()
    return time.monotonic() - began


def test_status_of_a_long_ledger_reads_little_of_it(stage: Stage) -> None:
    begin(stage, partitions=3)
    stage.execute(
        """
        insert into headrace.batches (
            batch_id, dataset, seq, generation, partition, start_offset, end_offset, staged, first_record_at,
            last_record_at, started_at, committed_at, kind
        )
        select
            gen_random_uuid(), 'jobs', n, 1, n % 3, n * 100, n * 100 + 100, 100, at, at, at, at + interval '1 s',
            'drain'
        from generate_series(1, 100000) as n
        cross join lateral (select now() - make_interval(secs => 100000 - n) as at) as times
        """,
        "update headrace.datasets set last_seq = 100000 where dataset = 'jobs'",
        "update headrace.checkpoints set next_offset = 10000000 where dataset = 'jobs'",
        """
        insert into headrace.dead_letters (dataset, generation, partition, "offset", value, reason, detail, batch_id)
        select 'jobs', 1, n % 3, n, 'v', case when n % 2 = 0 then 'even' else 'odd' end, 'd', batch_id
        from generate_series(1, 100000) as n
        cross join (select batch_id from headrace.batches where seq = 1) as b
        """,
        "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
        "values ('marts', 'jobs', 'jobs', 99990, '{}')",
        "vacuum analyze headrace.batches",
        "vacuum analyze headrace.dead_letters",
    )
    for partition in range(3):
        observe(stage, partition, 10_000_100)
    note(stage)
    found = jobs(stage)
    assert (found.staged, found.lag, found.unbuilt_batches) == (10_000_000, 300, 10)
    once = "select count(to_jsonb(b)) from headrace.batches as b"
    ratio = min(seconds(lambda: jobs(stage)) for _ in range(3)) / min(
        seconds(lambda: stage.query(once)) for _ in range(3)
    )
    print(f"{ratio:.2f} of reading each batch once")
    assert ratio < 0.5, ratio


def test_view_has_one_row_per_partition_for_psql(stage: Stage) -> None:
    begin(stage, partitions=3)
    columns: Any = stage.query(
        "select column_name from information_schema.columns where table_schema = 'headrace' and table_name = 'status'"
    )
    assert {("lag",), ("lag_s",), ("mart_freshness_s",), ("dead_by_reason",), ("last_error",)} <= set(columns)
    assert stage.value("select count(*) from headrace.status") == 3
