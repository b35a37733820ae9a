"""Replays: dead letters that the contract now accepts become rows, once, under their own coordinates."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from headrace.exceptions import DatasetError
from headrace.ingest.parallel import drain_dataset
from headrace.repair.generations import adopt
from headrace.verify import verify
from tests.support import topics
from tests.support.declarations import allow_refunds, change_contract
from tests.support.interrupts import at, killed_at
from tests.support.jobs import job, jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.replays import HEADERS, refund, replayed
from tests.support.stage import Stage

FAR_FUTURE_MS = 2**62


def state(stage: Stage) -> list[list[tuple[Any, ...]]]:
    """All that a replay may write."""
    return [
        stage.query("select * from staging.jobs order by _generation, _partition, _offset"),
        stage.query('select * from headrace.dead_letters order by generation, partition, "offset"'),
        stage.query("select * from headrace.batches order by seq"),
        stage.query("select * from headrace.checkpoints order by 1, 2, 3"),
        stage.query("select last_seq from headrace.datasets order by 1"),
    ]


def assert_proven(stage: Stage) -> None:
    """The ledger checks, and verify."""
    assert_ledger(stage)
    assert verify(stage.deployment, "jobs", deep=True).findings == []


def test_replay_stages_what_passes_under_its_own_coordinates(stage: Stage) -> None:
    with topics.producer(servers(stage)) as client:
        client.send(
            topic_of(stage), partition=1, key=b"101", value=refund(101, NOTE="kept"), timestamp_ms=1_551_434_400_123,
            headers=HEADERS,
        )  # fmt: skip
        client.flush()
    others = [(0, b"1", job(1)), (1, b"bad", b"bad"), (1, b"102", refund(102)), (2, b"103", refund(103))]
    topics.send(servers(stage), topic_of(stage), others)
    drain_dataset(stage.deployment, "jobs")
    dead_letter = stage.query('select "timestamp", key, headers from headrace.dead_letters where key = %s', b"101")[0]
    checkpoints = state(stage)[3]
    assert_proven(stage)
    allow_refunds(stage)
    result = replayed(stage)
    assert (result.staged, result.tombstones, result.batches, result.remaining) == (3, 0, 2, {"invalid_json": 1})
    assert not result.changed
    assert result.summary() == (
        "jobs: 3 of 4 dead letters were replayed: 3 staged, 0 tombstones, 2 batches; 1 still fail: invalid_json 1"
    )
    rows = stage.query(
        "select jobidentifier, revenue::text, _generation, _partition, _offset, _timestamp, _key, _headers, _extra, "
        "_deleted from staging.jobs where revenue < 0 order by 1"
    )
    assert rows[0] == (101, "-1.5", 1, 1, 0, *dead_letter, {"NOTE": "kept"}, False)
    assert [row[:5] for row in rows[1:]] == [(102, "-1.5", 1, 1, 2), (103, "-1.5", 1, 2, 0)]
    assert len(dead_letter[2]) == len(HEADERS)
    assert stage.query(
        "select seq, partition, start_offset, end_offset, staged, dead, tombstones, empty, bytes, first_record_at "
        "is not null, last_record_at >= first_record_at from headrace.batches where kind = 'replay' order by seq"
    ) == [
        (4, 1, 0, 3, 2, 0, 0, 0, len(refund(101, NOTE="kept")) + len(refund(102)) + 6, True, True),
        (5, 2, 0, 1, 1, 0, 0, 0, len(refund(103)) + 3, True, True),
    ]
    assert stage.query(
        "select count(*) from headrace.dead_letters as d inner join staging.jobs as j on "
        '(d.generation, d.partition, d."offset", d.replayed_by) = (j._generation, j._partition, j._offset, j._batch_id)'
    ) == [(3,)]
    assert state(stage)[3] == checkpoints
    assert_proven(stage)
    assert_nothing_left(stage)


def test_replay_twice_finds_nothing_the_second_time(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101)), (0, b"bad", b"bad")])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    assert replayed(stage).passed == 1
    before = state(stage)
    again = replayed(stage)
    assert (again.passed, again.records) == (0, 1)
    assert again.summary() == (
        "jobs: 0 of 1 dead letters were replayed: 0 staged, 0 tombstones, 0 batches; 1 still fail: invalid_json 1"
    )
    assert state(stage) == before


def test_replay_of_one_reason_leaves_the_others(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101)), (0, b"102", job(102, JOBSTATUS="UNKNOWN"))])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    change_contract(stage, ('"NO SUCCESS"]', '"NO SUCCESS", "UNKNOWN"]'))
    nothing = replayed(stage, reason="wrong_type")
    assert nothing.summary() == (
        "jobs: nothing to replay: no dead letter of reason wrong_type; there are invalid_value 1, out_of_range 1"
    )
    assert replayed(stage, reason="invalid_value").passed == 1
    assert stage.query("select jobidentifier from staging.jobs") == [(102,)]
    assert replayed(stage).passed == 1
    assert replayed(stage).summary() == "jobs: nothing to replay: no dead letters"
    assert_proven(stage)


def test_replay_in_a_dry_run_tells_the_same_and_changes_nothing(stage: Stage) -> None:
    topics.send(
        servers(stage), topic_of(stage), [(0, b"101", refund(101)), (1, b"102", refund(102)), (1, b"bad", b"bad")]
    )
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    before = state(stage)
    dry = replayed(stage, dry_run=True)
    assert state(stage) == before
    assert dry.summary().startswith("jobs: 2 of 3 dead letters would be replayed: 2 staged, ")
    assert dry.summary().replace("would be", "were") == replayed(stage).summary()
    assert_proven(stage)


def test_replay_of_what_fails_for_another_reason_now_says_so_and_keeps_the_old_one(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101, JOBSTATUS="x")), (0, b"bad", b"bad")])
    change_contract(stage, ('JOBSTATUS: Literal["SUCCESS", "NO SUCCESS"]', "JOBSTATUS: Text"))
    drain_dataset(stage.deployment, "jobs")
    change_contract(stage, ("JOBSTATUS: Text", 'JOBSTATUS: Literal["SUCCESS"]'))
    allow_refunds(stage)
    before = state(stage)
    result = replayed(stage)
    assert result.changed == {("out_of_range", "invalid_value"): 1}
    assert result.summary().endswith(
        "2 still fail: invalid_json 1, out_of_range 1; for another reason than the one that they keep: "
        "out_of_range now invalid_value 1"
    ) or result.summary().endswith(
        "2 still fail: out_of_range 1, invalid_json 1; for another reason than the one that they keep: "
        "out_of_range now invalid_value 1"
    )
    assert state(stage) == before


def test_replay_of_tombstones_and_of_times_beyond_all_bounds_keeps_them(stage: Stage) -> None:
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 1, message_timestamp_after_max_ms=str(2**63 - 1))
    change_contract(stage, ("JOBIDENTIFIER: Integer", "JOBIDENTIFIER: Annotated[Integer, Field(le=9)]"))
    key = b"10"
    with topics.producer(servers(stage)) as client:
        client.send(topic_of(stage), partition=0, key=key, value=None, timestamp_ms=FAR_FUTURE_MS)
        client.send(topic_of(stage), partition=0, key=key, value=job(int(key)), timestamp_ms=FAR_FUTURE_MS)
        client.flush()
    drain_dataset(stage.deployment, "jobs")
    name = stage.value("select current_database()")
    stage.execute(f"alter database {name} set timezone = 'Asia/Tokyo'")
    change_contract(stage, ("Annotated[Integer, Field(le=9)]", "Integer"))
    result = replayed(stage)
    assert (result.staged, result.tombstones, result.batches) == (1, 1, 1)
    assert stage.query(
        "select jobidentifier, _deleted, _timestamp = '9999-12-30 23:59:59.999+00' from staging.jobs order by _offset"
    ) == [(10, True, True), (10, False, True)]
    assert stage.query("select staged, tombstones from headrace.batches where kind = 'replay'") == [(1, 1)]
    assert_proven(stage)


def test_replay_covers_every_generation(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101))])
    drain_dataset(stage.deployment, "jobs")
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 3)
    adopt(stage.deployment, stage.deployment.dataset("jobs"))
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101, USERID=8))])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    assert replayed(stage).batches == 2
    assert stage.query("select _generation, userid from staging.jobs order by 1") == [(1, 7), (2, 8)]
    assert_proven(stage)


@pytest.mark.parametrize(("bound", "limit"), [("PAGE_ROWS", 3), ("PAGE_BYTES", 900)])  # a refund has some 370 bytes
def test_replay_in_small_pages_comes_to_the_same(
    bound: str, limit: int, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"headrace.repair.replay.{bound}", limit)
    messages: list[topics.Message] = [
        (n % 3, b"%d" % (100 + n), refund(100 + n, LOCATION="x" * 200) if n % 4 else b"bad") for n in range(40)
    ]
    messages.insert(7, (1, b"904", job(904, LOCATION="x" * 5_000)))
    sent = topics.send(servers(stage), topic_of(stage), messages)
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    seen: list[tuple[int, int]] = []
    result = replayed(stage, on_progress=lambda done, total: seen.append((done, total)))
    assert (result.staged, result.batches) == (30, 3)
    assert result.remaining == {"invalid_json": 10, "too_large": 1}
    assert 9 <= len(seen) <= 16
    assert seen[-1] == (41, 41)
    assert_ledger(stage, sent)
    assert_proven(stage)


def test_replay_of_rows_that_postgres_does_not_store_leaves_them_dead(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"%d" % (100 + n), refund(100 + n)) for n in range(9)])
    drain_dataset(stage.deployment, "jobs")
    stage.execute(
        "create function refuse() returns trigger language plpgsql as $$begin if new._offset in (2, 5) then raise "
        "sqlstate '22000' using message = 'no'; end if; return new; end$$",
        "create trigger refuse before insert on staging.jobs for each row execute function refuse()",
    )
    allow_refunds(stage)
    result = replayed(stage)
    assert (result.staged, result.changed) == (7, {("out_of_range", "rejected_by_postgres"): 2})
    assert stage.query('select "offset", reason from headrace.dead_letters where replayed_by is null order by 1') == [
        (2, "out_of_range"),
        (5, "out_of_range"),
    ]
    stage.execute("drop trigger refuse on staging.jobs")
    assert_proven(stage)
    assert replayed(stage).staged == 2
    assert_proven(stage)


def test_replay_leaves_what_a_reader_of_files_took_for_no_row(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101)), (0, b"102", refund(102))])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    stage.execute("update headrace.dead_letters set reason = 'malformed_row' where key = '101'")
    result = replayed(stage)
    assert (result.staged, result.remaining, result.changed) == (1, {"malformed_row": 1}, {})
    assert stage.query("select jobidentifier from staging.jobs") == [(102,)]


def test_replay_with_a_new_optional_field_adds_its_column(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101, NOTE="n"))])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    change_contract(stage, ("    USERID: Integer", "    USERID: Integer\n    NOTE: Text | None = None"))
    assert replayed(stage, dry_run=True).staged == 1
    assert (
        stage.value(
            "select count(*) from information_schema.columns where table_schema = 'staging' and column_name = 'note'"
        )
        == 0
    )
    assert replayed(stage).staged == 1
    assert stage.query("select note, _extra from staging.jobs") == [("n", None)]
    assert_proven(stage)


def test_replay_into_a_damaged_table_fails_loudly_and_changes_nothing(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(0, b"101", refund(101))])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    stage.execute("alter table staging.jobs alter column userid type text")
    before = state(stage)
    with pytest.raises(DatasetError, match=r"staging.jobs.userid: found text, expected bigint; nothing was changed"):
        replayed(stage)
    assert state(stage) == before


@pytest.mark.parametrize("step", ["staged", "before_commit"])
def test_replay_killed_before_its_commit_changes_nothing_and_can_be_run_again(stage: Stage, step: str) -> None:
    topics.send(servers(stage), topic_of(stage), [(n % 3, b"%d" % (100 + n), refund(100 + n)) for n in range(30)])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    before = state(stage)
    killed_at(step, replayed, stage)
    assert_nothing_left(stage)
    assert state(stage) == before
    assert replayed(stage).staged == 30
    assert_proven(stage)


def test_replays_at_once_stage_each_dead_letter_once_and_drains_go_on(stage: Stage) -> None:
    topics.send(servers(stage), topic_of(stage), [(n % 3, b"%d" % (100 + n), refund(100 + n)) for n in range(60)])
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    topics.send(servers(stage), topic_of(stage), jobs(60))
    arrived = Event()

    def waits() -> None:
        arrived.set()
        Event().wait(0.5)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(replayed, stage, barrier=at("staged", waits, occurrence=1))
        assert arrived.wait(20)
        second, drained = pool.submit(replayed, stage), pool.submit(drain_dataset, stage.deployment, "jobs")
        assert first.result(30).staged == 60
        assert second.result(30).records == 0
        assert drained.result(30)[1].staged == 60
    assert_proven(stage)
    assert stage.value("select count(*) from staging.jobs") == 120
