"""Reloads: a range is read again from the topic, and exactly its rows are replaced."""

from datetime import UTC, datetime, timedelta

import pytest

from headrace.exceptions import DatasetError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.repair.replay import replay
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.declarations import change_contract
from tests.support.jobs import job, jobs, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_proven, coordinates
from tests.support.reloads import CONTENT, START, START_MS, reload_lines, reloaded, send_timed, state
from tests.support.replays import refund
from tests.support.stage import Stage


def test_reload_by_offsets_replaces_exactly_that_range(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(1, b"901", job(901)), (1, b"901", None)])
    send_jobs(stage, 1_500)
    drain_dataset(stage.deployment, "jobs")
    truth = stage.query(CONTENT)
    stage.execute("update staging.jobs set location = 'WRONG', revenue = 0")
    before = state(stage)
    result = reloaded(stage, 1, 450, 1)
    assert result.summary() == "jobs[1]: [1, 450) read again: 448 staged, 1 tombstones, 449 rows replaced"
    inside = [row for row in truth if row[9] == 1 and 1 <= row[10] < 450]
    assert [row for row in stage.query(CONTENT) if row in truth] == inside
    assert len(inside) == 449
    assert stage.value("select count(*) from staging.jobs where location = 'WRONG'") == 1_502 - 449 - 0
    batch_id, seq = stage.query("select batch_id, seq from headrace.batches where kind = 'reload'")[0]
    assert stage.query("select distinct _partition, _batch_id from staging.jobs where _offset between 1 and 449 "
                       "and _partition = 1") == [(1, batch_id)]  # fmt: skip
    assert stage.query(
        "select count(*), count(*) filter (where location = 'WRONG' or _deleted), min(_offset), max(_offset) "
        "from staging._replaced_jobs where _replaced_by = %s and _partition = 1",
        batch_id,
    ) == [(449, 449, 1, 449)]
    assert reload_lines(stage) == [(1, 1, 450, 448, 0, 1, 0)]
    assert seq == stage.value("select last_seq from headrace.datasets where dataset = 'jobs'")
    after = state(stage)
    assert after[4] == before[4]
    assert after[2] == before[2]


def test_reload_of_everything_is_proven_and_twice_gives_the_same(stage: Stage) -> None:
    bad: list[topics.Message] = [(n % 3, b"bad-%d" % n, b"bad") for n in range(5)]
    topics.send(servers(stage), topic_of(stage), [*jobs(100), *bad, *jobs(20)])
    drain_dataset(stage.deployment, "jobs")
    content, dead_letters = stage.query(CONTENT), state(stage)[2]
    stage.execute("update staging.jobs set location = 'WRONG' where _offset % 2 = 0")
    assert not verify(stage.deployment, "jobs", deep=True).is_clean
    for _ in range(2):
        result = reloaded(stage, "1970-01-01", "2100-01-01")
        assert [(each.partition, each.dead, each.still_dead) for each in result.partitions] == [
            (0, 0, 2), (1, 0, 2), (2, 0, 1),
        ]  # fmt: skip
        assert stage.query(CONTENT) == content
        assert state(stage)[2] == dead_letters
        assert_proven(stage)
    assert stage.value("select count(*) from staging._replaced_jobs") == 240


def test_reload_by_times_takes_the_records_of_that_time_in_every_partition(stage: Stage) -> None:
    send_timed(stage, 60)
    drain_dataset(stage.deployment, "jobs")
    begin, end = START + timedelta(seconds=10), START + timedelta(seconds=22)
    reloaded(stage, begin.isoformat(), end.strftime("%Y-%m-%d %H:%M:%SZ"))
    again = stage.query(
        "select extract(epoch from _timestamp)::int - %s from staging.jobs where _batch_id in "
        "(select batch_id from headrace.batches where kind = 'reload') order by 1",
        START_MS // 1000,
    )
    assert again == [(second,) for second in range(10, 22)]
    assert [line[:3] for line in reload_lines(stage)] == [(0, 4, 8), (1, 3, 7), (2, 3, 7)]
    zoned = begin.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    one = reloaded(stage, zoned.isoformat(), (end - timedelta(microseconds=1)).isoformat(), 2)
    assert [(each.partition, each.start, each.end) for each in one.partitions] == [(2, 3, 7)]
    # a microsecond behind a record's millisecond: the record is before it
    late = reloaded(stage, (begin + timedelta(microseconds=1)).isoformat(), end.isoformat(), 1)
    assert [(each.start, each.end) for each in late.partitions] == [(4, 7)]
    nothing = reloaded(stage, "2100-01-01", "2100-01-02")
    assert nothing.summary() == "jobs: nothing to reload: no record of that time below the checkpoints"
    assert len(reload_lines(stage)) == 5
    assert_proven(stage)


def test_reload_ends_at_the_checkpoint_and_says_so(stage: Stage) -> None:
    send_timed(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    send_timed(stage, 30)
    checkpoints = state(stage)[4]
    assert reloaded(stage, 5, 20, 0).summary() == (
        "jobs[0]: [5, 10) read again: 5 staged, 0 tombstones, 5 rows replaced; "
        "asked for up to 20, cut to the checkpoint"
    )
    by_time = reloaded(stage, START.isoformat(), "2100-01-01")
    assert [(each.start, each.end) for each in by_time.partitions] == [(0, 10)] * 3
    assert state(stage)[4] == checkpoints
    with pytest.raises(DatasetError, match=r"\[0\]: the checkpoint is 10, expected --from below it, got 10"):
        reloaded(stage, 10, 20, 0)
    drain_dataset(stage.deployment, "jobs")
    assert len(coordinates(stage)) == 60
    assert_proven(stage)


def test_reload_under_another_contract_moves_records_between_rows_and_dead_letters(stage: Stage) -> None:
    messages: list[topics.Message] = [
        (0, b"1", refund(1)),  # dead; passes when refunds are allowed
        (0, b"2", job(2)),
        (0, b"3", job(3, LOCATION="far")),  # fails when LOCATION is short
        (0, b"4", b"bad"),  # dead whatever the contract
        (0, b"5", refund(5)),  # dead, replayed, then dead again
        (0, b"6", refund(6, LOCATION="far")),  # dead for another reason
        (0, b"7", None),
    ]
    topics.send(servers(stage), topic_of(stage), messages)
    drain_dataset(stage.deployment, "jobs")
    (drained,) = stage.query("select batch_id from headrace.batches")[0]
    jobs_file = stage.deployment.settings.datasets_dir / "jobs.py"
    strict = jobs_file.read_text()
    change_contract(stage, ("REVENUE: Annotated[Numeric, Field(ge=0)]", "REVENUE: Annotated[Numeric, Field(ge=-1.5)]"))
    topics.send(servers(stage), topic_of(stage), [(0, b"8", job(8))])
    assert replay(stage.deployment, stage.deployment.dataset("jobs")).staged == 3
    jobs_file.write_text(strict)
    change_contract(stage, ("LOCATION: Text", "LOCATION: Literal['LOC_1']"))
    result = reloaded(stage, 0, 7, 0).partitions[0]
    assert (result.staged, result.tombstones, result.replaced) == (1, 1, 6)
    assert (result.dead, result.reopened, result.still_dead, result.resolved) == (1, 3, 1, 0)
    assert result.summary("jobs").endswith("1 new dead letters, 3 dead again, 1 dead as before")
    (batch_id,) = stage.query("select batch_id from headrace.batches where kind = 'reload'")[0]
    assert stage.query('select "offset", reason, batch_id, replayed_by from headrace.dead_letters order by 1') == [
        (0, "out_of_range", drained, None),
        (2, "invalid_value", batch_id, None),
        (3, "invalid_json", drained, None),
        (4, "out_of_range", drained, None),
        (5, "invalid_value", drained, None),
    ]
    assert reload_lines(stage) == [(0, 0, 7, 1, 1, 1, 4)]
    assert_proven(stage)

    jobs_file.write_text(strict.replace("REVENUE: Annotated[Numeric, Field(ge=0)]", "REVENUE: Numeric"))
    result = reloaded(stage, 0, 7, 0).partitions[0]
    assert (result.staged, result.tombstones, result.replaced) == (5, 1, 2)
    assert (result.dead, result.reopened, result.still_dead, result.resolved) == (0, 0, 1, 4)
    assert stage.query("select jobidentifier from staging.jobs order by _offset") == [(n,) for n in (1, 2, 3, 5, 6, 7)]
    assert_proven(stage)


def test_reload_by_todays_contract_fills_a_new_column(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"1", job(1, CHANNEL="web")), (0, b"2", job(2))])
    drain_dataset(stage.deployment, "jobs")
    change_contract(stage, ("    USERID: Integer\n", "    USERID: Integer\n    CHANNEL: Text | None = None\n"))
    reloaded(stage, 0, 2, 0)
    assert stage.query("select channel, _extra from staging.jobs order by _offset") == [("web", None), (None, None)]
    assert stage.query("select channel, _extra from staging._replaced_jobs order by _offset") == [
        (None, {"CHANNEL": "web"}),
        (None, None),
    ]
    assert_proven(stage)


def test_reload_keeps_the_rows_whose_records_compaction_took(stage: Stage) -> None:
    topics.send_in_transaction(servers(stage), topic_of(stage), [(0, b"1", job(1))], commit=True)  # the marker is 1
    topics.send(servers(stage), topic_of(stage), [(0, b"2", job(2))])
    topics.wait_for_end(servers(stage), topic_of(stage), [3, 0, 0])
    drain_dataset(stage.deployment, "jobs")
    # as if offset 1 had been a record when it was drained
    stage.execute(
        "update headrace.batches set staged = 3, empty = 0",
        "create temporary table one as select * from staging.jobs where _offset = 0; "
        "update one set _offset = 1, jobidentifier = 24; insert into staging.jobs select * from one",
    )
    result = reloaded(stage, 0, 3, 0)
    assert result.summary().endswith("2 rows replaced, 1 rows kept, whose records compaction removed")
    assert stage.query("select _offset, jobidentifier from staging.jobs order by 1") == [(0, 1), (1, 24), (2, 2)]
    assert reload_lines(stage) == [(0, 0, 3, 2, 0, 0, 1)]
    assert verify(stage.deployment, "jobs").is_clean


def test_reload_of_rows_that_postgres_does_not_store_makes_dead_letters_of_them(stage: Stage) -> None:
    # a text without a limit, and an index that somebody put on it: no page holds 3,000 characters at random
    change_contract(stage, ("    SERVICENAME: Text\n", "    SERVICENAME: str\n"))
    long = "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(1_500))
    messages: list[topics.Message] = [(0, b"%d" % n, job(n, SERVICENAME=long if n == 3 else "s")) for n in range(9)]
    topics.send(servers(stage), topic_of(stage), messages)
    drain_dataset(stage.deployment, "jobs")
    stage.execute("delete from staging.jobs where _offset = 3", "create index on staging.jobs (servicename)")
    stage.execute("update headrace.batches set staged = 8, empty = 1")
    result = reloaded(stage, 0, 9, 0).partitions[0]
    assert (result.staged, result.dead) == (8, 1)
    assert stage.query('select "offset", reason from headrace.dead_letters') == [(3, "rejected_by_postgres")]
    assert verify(stage.deployment, "jobs").is_clean


def test_reload_in_chunks_holds_no_more_than_one(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    send_jobs(stage, 3_000, partitions=1)
    drain_dataset(stage.deployment, "jobs")
    steps: list[str] = []
    reloaded(stage, 0, 3_000, 0, barrier=steps.append)
    assert steps.count("shelved") >= 3_000 // stage.deployment.settings.batch_rows
    assert reload_lines(stage) == [(0, 0, 3_000, 3_000, 0, 0, 0)]


def test_reload_leaves_marts_as_a_full_refresh_makes_them(stage: Stage) -> None:
    declared = Settings().datasets_dir
    for name in ("events", "rides", "telemetry"):
        (stage.deployment.settings.datasets_dir / f"{name}.py").write_text((declared / f"{name}.py").read_text())
    initialise(stage.deployment)
    messages: list[topics.Message] = [
        (n % 3, b"%d" % (n % 40), job(n % 40, JOBCREATEDATE=f"2019-03-01 10:{n % 60:02}:00", REVENUE=n))
        for n in range(120)
    ]
    messages += [(0, b"907", refund(907)), (0, b"908", job(908)), (0, b"908", None)]
    topics.send(servers(stage), topic_of(stage), messages)
    drain_dataset(stage.deployment, "jobs")
    # the rows as a contract of another day staged them: other minutes, places and sums; one is no job of today's
    stage.execute(
        "update staging.jobs set jobcreatedate = jobcreatedate + interval '90 minutes', location = 'ELSEWHERE', "
        "revenue = revenue + 1 where _offset % 3 = 0",
        "update staging.jobs set jobidentifier = 909 where _partition = 1 and _offset = 5",
        "update headrace.datasets set built = gen_random_uuid()",
    )
    settings = stage.deployment.settings
    build(settings, select="users jobs+", tests=False)
    assert stage.value("select count(*) from marts.jobs where location = 'ELSEWHERE'") > 0
    change_contract(stage, ("REVENUE: Annotated[Numeric, Field(ge=0)]", "REVENUE: Numeric"))
    reloaded(stage, "1970-01-01", "2100-01-01")
    build(settings, select="users jobs+", tests=False)
    incremental = marts(stage)
    assert stage.query("select count(*) from marts.jobs where location = 'ELSEWHERE' or jobidentifier = 909") == [(0,)]
    assert stage.value("select count(*) from marts.jobs") == 41
    assert stage.value("select min(minute) from marts.jobs_per_minute") == datetime(2019, 3, 1, 10, tzinfo=UTC)
    build(settings, select="users jobs+", tests=False, full_refresh=True)
    assert marts(stage) == incremental
    verification = verify(stage.deployment, "jobs", deep=True)
    assert verification.is_clean, list(verification.lines())


def marts(stage: Stage) -> dict[str, set[tuple[str]]]:
    """Every mart's rows, as text."""
    names = stage.query("select tablename from pg_tables where schemaname = 'marts'")
    return {name: set(stage.query(f"select {name}::text from marts.{name}")) for (name,) in names}
