"""Reloads: a range is read again from the topic and replaces exactly what was staged of it."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Event
from typing import Any

import psutil
import psycopg
import pytest

from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, SourceChanged
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.marts.build import build
from headrace.repair.options import RepairOptions
from headrace.repair.reload import ReloadResult, reload_range
from headrace.repair.replay import replay
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import topics
from tests.support.adoption import force_adopt
from tests.support.command_line import assert_refused, run
from tests.support.declarations import change_contract
from tests.support.interrupts import apart, at, killed_at, signal_itself, wait_until_stopped
from tests.support.jobs import job, jobs, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_nothing_left, coordinates
from tests.support.reloads import state
from tests.support.replays import refund
from tests.support.stage import Stage

START_MS = 1_700_000_000_000
START = datetime.fromtimestamp(START_MS / 1000, UTC)

# a row's content: all but the batch that staged it
CONTENT = (
    "select jobidentifier, jobcreatedate, jobdate, jobstatus, location, revenue, servicename, userid, _generation, "
    "_partition, _offset, _timestamp, _key, _headers, _deleted, _extra from staging.jobs order by _partition, _offset"
)


def reloaded(stage: Stage, start: object, end: object, partition: int | None = None, **options: Any) -> ReloadResult:
    dataset = stage.deployment.dataset("jobs")
    return reload_range(
        stage.deployment, dataset, str(start), str(end), partition=partition, options=RepairOptions(**options)
    )


def assert_proven(stage: Stage) -> None:
    verification = verify(stage.deployment, "jobs", deep=True)
    assert verification.is_clean, list(verification.lines())
    assert_nothing_left(stage)


def lines(stage: Stage) -> list[tuple[Any, ...]]:
    return stage.query(
        "select partition, start_offset, end_offset, staged, dead, tombstones, empty from headrace.batches "
        "where kind = 'reload' order by seq"
    )


def send_timed(stage: Stage, count: int, partitions: int = 3) -> None:
    """Jobs one second apart, dealt out to partitions in turn."""
    with topics.producer(servers(stage)) as client:
        for n in range(count):
            client.send(
                topic_of(stage),
                partition=n % partitions,
                key=b"%d" % n,
                value=job(n),
                timestamp_ms=START_MS + 1_000 * n,
            )
        client.flush()


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
    assert lines(stage) == [(1, 1, 450, 448, 0, 1, 0)]
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
    assert [line[:3] for line in lines(stage)] == [(0, 4, 8), (1, 3, 7), (2, 3, 7)]
    zoned = begin.astimezone(datetime.strptime("+0530", "%z").tzinfo)
    one = reloaded(stage, zoned.isoformat(), (end - timedelta(microseconds=1)).isoformat(), 2)
    assert [(each.partition, each.start, each.end) for each in one.partitions] == [(2, 3, 7)]
    # a microsecond behind a record's millisecond: the record is before it
    late = reloaded(stage, (begin + timedelta(microseconds=1)).isoformat(), end.isoformat(), 1)
    assert [(each.start, each.end) for each in late.partitions] == [(4, 7)]
    nothing = reloaded(stage, "2100-01-01", "2100-01-02")
    assert nothing.summary() == "jobs: nothing to reload: no record of that time below the checkpoints"
    assert len(lines(stage)) == 5
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
    assert lines(stage) == [(0, 0, 7, 1, 1, 1, 4)]
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


def test_reload_of_what_is_no_longer_served_is_refused_with_what_can_be_had(stage: Stage) -> None:
    send_timed(stage, 60)
    drain_dataset(stage.deployment, "jobs")
    topics.delete_records(servers(stage), topic_of(stage), {0: 5})
    before = state(stage)
    with pytest.raises(DatasetError) as refused:
        reloaded(stage, 3, 9, 0)
    assert str(refused.value) == (
        "jobs[0]: [3, 5) is no longer served, the log starts at 5; nothing was changed; available: "
        "`headrace reload jobs --partition 0 --from 5 --to 9`"
    )
    with pytest.raises(DatasetError, match="nothing of the range is available; what is staged stays"):
        reloaded(stage, 3, 5, 0)
    with pytest.raises(DatasetError) as refused:
        reloaded(stage, START.isoformat(), (START + timedelta(seconds=30)).isoformat())
    assert "jobs[0]: offset 0, of that time, is no longer served, the log starts at 5" in str(refused.value)
    assert state(stage) == before
    commands = re.findall("`headrace reload jobs --partition (.) --from (.*?) --to (.*?)`", str(refused.value))
    assert commands == [("0", "5", "10"), ("1", "0", "10"), ("2", "0", "10")]
    for partition, start, end in commands:
        reloaded(stage, start, end, int(partition))
    # the time of nothing that is gone
    reloaded(stage, (START + timedelta(seconds=15)).isoformat(), (START + timedelta(seconds=30)).isoformat())
    assert lines(stage)[3:] == [(p, 5, 10, 5, 0, 0, 0) for p in range(3)]
    verification = verify(stage.deployment, "jobs", deep=True)
    assert verification.is_clean, list(verification.lines())


NO_RANGES = [
    (0, 5, None, "offsets are those of one partition, expected --partition, one of 0, 1, 2; times reload them all"),
    (0, 5, 3, "jobs[3]: no such partition, expected one of 0, 1, 2"),
    ("2026-01-01", "2026-01-02", 3, "jobs[3]: no such partition"),
    (5, 5, 0, "found --from 5 and --to 5, expected --to above --from"),
    ("2026-01-02", "2026-01-01", None, "expected --to above --from"),
    (5, "2026-01-01", 0, "found --from 5 and --to 2026-01-01, expected two offsets or two times"),
    ("-1", 5, 0, "found --from '-1', expected an offset, as 1200, or a time, as 2026-01-31T09:30:00Z"),
    (0, "yesterday", 0, "found --to 'yesterday', expected an offset"),
    (0, 10**30, 0, "found --to '1000"),
    ("0001-01-01T00:00+10", 5, 0, "found --from '0001-01-01T00:00+10', expected an offset"),
]


def test_reload_of_what_is_no_range_is_refused(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    before = state(stage)
    for start, end, partition, message in NO_RANGES:
        with pytest.raises(DatasetError, match=re.escape(message)):
            reloaded(stage, start, end, partition)
    assert state(stage) == before


def test_reload_of_a_source_that_is_not_the_one_that_was_read_is_refused(stage: Stage) -> None:
    with pytest.raises(DatasetError, match="jobs: nothing was ingested yet; `headrace drain jobs` begins"):
        reloaded(stage, 0, 5, 0)
    with pytest.raises(DatasetError, match=r"users: comes from a file, .*: load the file again, `headrace load users"):
        reload_range(stage.deployment, stage.deployment.dataset("users"), "0", "5")
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 3)
    send_jobs(stage, 60)
    before = state(stage)
    with pytest.raises(SourceChanged, match="it was deleted and created again"):
        reloaded(stage, 0, 5, 0)
    assert state(stage) == before


def test_reload_whose_generation_is_closed_meanwhile_changes_nothing(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")

    def adopt_it() -> None:
        force_adopt(stage.deployment, stage.deployment.dataset("jobs"))

    with pytest.raises(SourceChanged, match="generation 1 was closed while it was read again"):
        reloaded(stage, 0, 5, 0, barrier=at("read", adopt_it, occurrence=1))
    assert stage.value("select count(*) from staging._replaced_jobs") == 0
    assert lines(stage) == []


@pytest.mark.parametrize("step", ["shelved", "held", "before_commit"])
def test_reload_killed_at_any_step_changes_nothing_and_the_next_one_does_it(step: str, stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [*jobs(300), (0, b"bad", b"bad")])
    drain_dataset(stage.deployment, "jobs")
    content = stage.query(CONTENT)
    stage.execute("update staging.jobs set location = 'WRONG'")
    before = state(stage)
    killed_at(step, reloaded, stage, "1970-01-01", "2100-01-01")
    assert_nothing_left(stage)
    assert state(stage) == before
    reloaded(stage, "1970-01-01", "2100-01-01")
    assert stage.query(CONTENT) == content
    assert_proven(stage)


def test_reload_lets_a_drain_go_on_while_it_reads(stage: Stage) -> None:
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    sent: list[tuple[int, int]] = []

    def drain_more() -> None:
        sent.extend(send_jobs(stage, 90))
        drain_dataset(stage.deployment, "jobs")

    result = reloaded(stage, "1970-01-01", "2100-01-01", barrier=at("read", drain_more, occurrence=1))
    assert [(each.start, each.end) for each in result.partitions] == [(0, 100)] * 3
    assert len(sent) == 90
    assert len(coordinates(stage)) == 390
    batches = "select distinct kind from staging.jobs inner join headrace.batches on _batch_id = batch_id where _offset"
    assert stage.query(f"{batches} < 100") == [("reload",)]
    assert stage.query(f"{batches} >= 100") == [("drain",)]
    assert_proven(stage)


def test_reload_and_drain_that_meet_take_turns(stage: Stage) -> None:
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    send_jobs(stage, 90)
    holding, waiting = Event(), Event()

    def hold() -> None:
        holding.set()
        assert waiting.wait(20)

    with ThreadPoolExecutor(2) as pool:
        reload = pool.submit(reloaded, stage, 0, 100, 0, barrier=at("held", hold, occurrence=1))
        assert holding.wait(20)
        drain = pool.submit(drain_dataset, stage.deployment, "jobs")
        with psycopg.connect(stage.dsn, autocommit=True) as connection:
            waits = (
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            for _ in range(200):
                if connection.execute(waits).fetchone() != (0,):
                    break
                connection.execute("select pg_sleep(0.05)")
            else:
                pytest.fail("the drain did not wait")
        waiting.set()
        reload.result(30)
        drain.result(30)
    assert len(coordinates(stage)) == 390
    assert_proven(stage)


def test_reload_frozen_with_its_lock_is_ended_by_a_drain_and_changes_nothing(stage: Stage) -> None:
    settings = replace(stage.deployment.settings, lock_timeout_ms=100, stuck_after_ms=400)
    stage = replace(stage, deployment=Deployment.from_settings(settings))
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    before = state(stage)
    send_jobs(stage, 90)
    barrier = at("replaced", partial(signal_itself, signal.SIGSTOP), occurrence=1)
    with apart(reloaded, stage, "1970-01-01", "2100-01-01", barrier=barrier) as frozen:
        wait_until_stopped(frozen)
        drain_dataset(stage.deployment, "jobs")
        psutil.Process(frozen.pid).resume()
        frozen.join(20)
        assert frozen.exitcode == 1
    assert len(coordinates(stage)) == 390
    assert state(stage)[1:3] == before[1:3]
    assert lines(stage) == []
    assert_proven(stage)


def test_reloads_of_the_same_range_at_once_leave_one_row_each(stage: Stage) -> None:
    send_jobs(stage, 300)
    drain_dataset(stage.deployment, "jobs")
    content = stage.query(CONTENT)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: reloaded(stage, 0, 100, 1), range(3)))
    assert stage.query(CONTENT) == content
    assert stage.value("select count(*) from staging._replaced_jobs") == 300
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
    assert lines(stage) == [(0, 0, 3, 2, 0, 0, 1)]
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
    assert lines(stage) == [(0, 0, 3_000, 3_000, 0, 0, 0)]


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


def test_reload_command_says_what_it_did_or_why_not(stage: Stage) -> None:
    send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    outcome = run(stage, "reload", "jobs", "--from", "2", "--to", "7", "--partition", "1")
    assert (outcome.status, outcome.stderr) == (0, ""), outcome
    assert outcome.stdout == "jobs[1]: [2, 7) read again: 5 staged, 0 tombstones, 5 rows replaced\n"
    assert_refused(run(stage, "reload", "jobs", "--from", "2", "--to", "7"), "expected --partition, one of 0, 1, 2")
    assert run(stage, "reload", "jobs", "--from", "2").status == 2
    assert len(lines(stage)) == 1
