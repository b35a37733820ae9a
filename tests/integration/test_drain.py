"""The drain against a real broker and a real Postgres."""

import json
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from headrace.exceptions import TopicMissing
from headrace.ingest.parallel import drain_dataset
from tests.support import topics
from tests.support.jobs import job, jobs, produce_jobs, send_jobs, servers, topic_of
from tests.support.ledger_checks import assert_ledger, assert_nothing_left, coordinates, totals
from tests.support.stage import Stage


def test_drain_of_a_topic_stages_or_dead_letters_every_record_once(stage: Stage, tmp_path: Path) -> None:
    produced = produce_jobs(stage, tmp_path / "jobs.kafka", 2_000)
    plan, result = drain_dataset(stage.deployment, "jobs")
    assert result.records == plan.lag == 2_000
    assert result.batches >= 3
    staged = stage.query("select _key from staging.jobs")
    dead = stage.query("select key, value from headrace.dead_letters")
    assert len(staged) + len(dead) == 2_000
    assert {key + b"|" + value for key, value in dead} <= set(produced)
    keys = sorted(line.partition(b"|")[0] for line in produced)
    assert sorted([key for (key,) in staged] + [key for key, _ in dead]) == keys
    assert_ledger(stage)
    assert_nothing_left(stage)


def test_drain_with_nothing_new_writes_no_ledger_line(stage: Stage, tmp_path: Path) -> None:
    produce_jobs(stage, tmp_path / "jobs.kafka", 300)
    drain_dataset(stage.deployment, "jobs")
    before = stage.value("select count(*) from headrace.batches")
    plan, result = drain_dataset(stage.deployment, "jobs")
    assert result.batches == 0
    assert result.summary(plan) == "jobs: nothing new"
    assert stage.value("select count(*) from headrace.batches") == before


def test_drain_of_an_empty_topic_and_of_what_comes_later_reads_only_what_is_new(stage: Stage) -> None:
    _, nothing = drain_dataset(stage.deployment, "jobs")
    assert nothing.batches == 0
    sent = send_jobs(stage, 30)
    drain_dataset(stage.deployment, "jobs")
    sent += send_jobs(stage, 7)
    _, result = drain_dataset(stage.deployment, "jobs")
    assert result.records == 7
    assert_ledger(stage, sent)


def test_drain_stages_a_row_as_it_was_sent(stage: Stage) -> None:
    extra = '"X": 123456789012345678901234567890.5, "Y": {"deep": [1e400, "é"]}'
    payload = job(11, REVENUE=0.07, USERID=2**63 - 1)[:-1] + f", {extra}}}".encode()
    with topics.producer(servers(stage)) as client:
        client.send(
            topic_of(stage), partition=1, key=b"11", value=payload, timestamp_ms=1_551_434_400_123,
            headers=[("trace", b"a"), ("trace", b"b"), ("binary", b"\x00\xff"), ("nul", b"a\0b"), ("é", "ü".encode())],
        )  # fmt: skip
        client.flush()
    drain_dataset(stage.deployment, "jobs")
    row = stage.query(
        "select jobidentifier, revenue, userid, jobcreatedate = '2019-03-01 10:00:00+00', _generation, _partition, "
        "_offset, _timestamp = '2019-03-01 10:00:00.123+00', _key, _deleted, _extra::text, _headers from staging.jobs"
    )[0]
    assert row[:-2] == (11, Decimal("0.07"), 2**63 - 1, True, 1, 1, 0, True, b"11", False)
    exact = json.loads(row[-2], parse_float=Decimal, parse_int=Decimal)
    assert exact == json.loads(f"{{{extra}}}", parse_float=Decimal, parse_int=Decimal)
    assert row[-1] == [
        {"key": "trace", "value": "a"},
        {"key": "trace", "value": "b"},
        {"key": "binary", "base64": "AP8="},
        {"key": "nul", "base64": "YQBi"},
        {"key": "é", "value": "ü"},
    ]


def test_drain_stages_tombstones_with_their_key_alone(stage: Stage) -> None:
    sent = topics.send(
        servers(stage),
        topic_of(stage),
        [
            (0, b"1", job(1)),
            (0, b"1", None),
            (0, b"2", job(3)),
            (0, b"k" * 300, None),
            (0, b"\0", None),
        ],
    )
    _, result = drain_dataset(stage.deployment, "jobs")
    assert (result.staged, result.tombstones, result.dead) == (1, 1, 3)
    assert stage.query("select jobidentifier, userid, _deleted from staging.jobs order by _offset") == [
        (1, 7, False),
        (1, None, True),
    ]
    assert stage.query('select "offset", key, value is null, reason from headrace.dead_letters order by 1') == [
        (2, b"2", False, "key_mismatch"),
        (3, b"k" * 300, True, "key_mismatch"),
        (4, b"\0", True, "key_mismatch"),
    ]
    assert_ledger(stage, sent)


def test_drain_keeps_times_of_any_kind(stage: Stage) -> None:
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 1, message_timestamp_after_max_ms=str(2**63 - 1), retention_ms="-1")
    times = [0, 1, 1_551_434_400_123, 253_402_300_799_999, 2**62]
    with topics.producer(servers(stage)) as client:
        for n, time in enumerate(times):
            client.send(topic_of(stage), partition=0, key=b"%d" % n, value=job(n), timestamp_ms=time)
        client.flush()
    _, result = drain_dataset(stage.deployment, "jobs")
    assert result.staged == len(times)
    found = stage.query("select (extract(epoch from _timestamp) * 1000)::bigint from staging.jobs order by _offset")
    assert [ms for (ms,) in found] == [*times[:3], 253_402_214_399_999, 253_402_214_399_999]
    assert_ledger(stage)


def test_drain_dead_letters_huge_values_and_keys_with_their_bytes(stage: Stage) -> None:
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), 1, max_message_bytes="30000000")
    huge_value, huge_key = job(904, LOCATION="x" * 10_000_000), b"k" * 10_000_000
    messages: list[topics.Message] = [(0, b"904", huge_value), (0, huge_key, job(905)), (0, huge_key, None)]
    sent = topics.send(servers(stage), topic_of(stage), [*messages, (0, b"1", job(1))])
    _, result = drain_dataset(stage.deployment, "jobs")
    assert (result.staged, result.dead) == (1, 3)
    found = stage.query('select reason, key, value from headrace.dead_letters order by "offset"')
    reasons = ["too_large", "key_mismatch", "key_mismatch"]
    assert found == [(reason, key, value) for reason, (_, key, value) in zip(reasons, messages, strict=True)]
    assert_ledger(stage, sent)


def test_drain_limited_in_records_reads_no_more_and_goes_on_next_time(stage: Stage) -> None:
    sent = send_jobs(stage, 60)
    counts = []
    for _ in range(4):
        _, result = drain_dataset(stage.deployment, "jobs", max_records=25)
        counts.append(result.records)
    assert counts == [25, 25, 10, 0]
    assert_ledger(stage, sent)


def test_drain_limited_in_time_commits_what_it_read_and_goes_on_next_time(stage: Stage) -> None:
    sent = send_jobs(stage, 1_200)
    _, result = drain_dataset(stage.deployment, "jobs", max_seconds=0)
    assert 0 < result.records < 1_200
    assert len(coordinates(stage)) == result.records
    assert_ledger(stage)
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_drain_in_three_processes_comes_to_the_same_as_in_one(stage: Stage, tmp_path: Path) -> None:
    produce_jobs(stage, tmp_path / "jobs.kafka", 1_500)
    seen: list[tuple[int, int]] = []
    plan, result = drain_dataset(
        stage.deployment, "jobs", parallel=3, on_progress=lambda done, total: seen.append((done, total))
    )
    assert result.records == plan.lag == 1_500
    assert seen[-1] == (1_500, 1_500)
    assert_ledger(stage)
    assert len(coordinates(stage)) == 1_500
    assert set(result.next_offsets) == set(plan.ranges)
    assert_nothing_left(stage)


def test_drain_of_nothing_but_aborted_records_moves_the_checkpoint_with_zero_rows(stage: Stage) -> None:
    topics.send_in_transaction(servers(stage), topic_of(stage), jobs(9, 1), commit=False)
    topics.wait_for_end(servers(stage), topic_of(stage), [10, 0, 0])
    _, result = drain_dataset(stage.deployment, "jobs")
    assert (result.batches, result.records, result.empty) == (1, 0, 10)
    assert stage.query("select start_offset, end_offset, staged, empty from headrace.batches") == [(0, 10, 0, 10)]
    _, result = drain_dataset(stage.deployment, "jobs")
    assert result.batches == 0
    assert_ledger(stage, [])


def test_drain_stops_at_an_open_transaction_and_says_who_waits(stage: Stage) -> None:
    sent = send_jobs(stage, 2, 1)
    with topics.producer(servers(stage), transactional_id=f"{topic_of(stage)}-open") as client:
        client.init_transactions()
        client.begin_transaction()
        client.send(topic_of(stage), partition=0, key=b"906", value=job(906))
        client.flush()
        sent += send_jobs(stage, 3, 1)
        plan, result = drain_dataset(stage.deployment, "jobs")
        assert result.records == 2
        assert result.summary(plan).endswith("4 offsets wait behind an open transaction")
        assert stage.value("select sum(behind_open_transaction) from headrace.status where dataset = 'jobs'") == 4
        client.abort_transaction()
    topics.wait_for_end(servers(stage), topic_of(stage), [7, 0, 0])
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


def test_drain_of_a_topic_that_does_not_exist_is_refused(stage: Stage) -> None:
    topics.delete(servers(stage), topic_of(stage))
    with pytest.raises(TopicMissing, match=r"no such topic at .*; create it"):
        drain_dataset(stage.deployment, "jobs")


@pytest.mark.parametrize("topic_name", ["jobs.v2-{}_x", "..{}", "J{}.-_"])
def test_drain_of_a_topic_with_an_odd_name_works(topic_name: str, stage: Stage) -> None:
    name = topic_name.format(topic_of(stage).replace("_", "-"))
    declared = stage.deployment.settings.datasets_dir / "jobs.py"
    declared.write_text(declared.read_text().replace(f'topic="{topic_of(stage)}"', f'topic="{name}"'))
    topics.create(servers(stage), name, 2)
    sent = topics.send(servers(stage), name, jobs(10, 2))
    drain_dataset(stage.deployment, "jobs")
    assert_ledger(stage, sent)


DETAILS = """
from typing import Any, Literal

from pydantic import BaseModel

from headrace.contract import EpochMilliseconds, Float, Identifier, Integer
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Detail(BaseModel):
    model_config = CONTRACT_CONFIG

    ID: Integer
    AT: EpochMilliseconds
    PAYLOAD: dict[str, Any] | None = None
    LIST: list[Any] = []
    RATE: Float | None = None
    OK: bool | None = None
    KIND: Literal["a", "b"] = "a"
    COUNT: int | None = None


DATASET = Dataset(name="details", contract=Detail, source=KafkaTopic(topic="TOPIC"), key="ID")
"""


def test_drain_of_every_kind_of_column_keeps_values_and_big_numbers_in_json(stage: Stage) -> None:
    (stage.deployment.settings.datasets_dir / "details.py").write_text(DETAILS.replace("TOPIC", topic_of(stage)))
    big = '{"n": 123456789012345678901234567890, "e": 1e400, "d": 0.1234567890123456789, "t": "é"}'
    values = [
        b'{"ID":1,"AT":1551434400123,"PAYLOAD":' + big.encode() + b',"LIST":[1.50,null],"RATE":1,"OK":true,"KIND":"b"}',
        b'{"ID":2,"AT":1551434400123}',
        b'{"ID":3,"AT":1551434400123,"COUNT":9223372036854775808}',
        b'{"ID":4,"AT":1551434400123,"PAYLOAD":{"n":1e2000}}',
        b'{"ID":5,"AT":1551434400123,"PAYLOAD":{"n":"\\u0000"}}',
    ]
    sent = topics.send(servers(stage), topic_of(stage), [(0, b"%d" % n, value) for n, value in enumerate(values, 1)])
    sent += topics.send(servers(stage), topic_of(stage), [(0, b"9" * 30, None), (0, b"1_0", None), (0, b"1", None)])
    _, result = drain_dataset(stage.deployment, "details")
    assert (result.staged, result.dead, result.tombstones) == (2, 5, 1)
    first, second, third = stage.query(
        "select id, payload::text, list::text, rate, ok, kind, count, _deleted from staging.details order by _offset"
    )
    exact = partial(json.loads, parse_float=Decimal, parse_int=Decimal)
    assert exact(first[1]) == exact(big)
    assert (first[0], *first[2:]) == (1, "[1.50, null]", 1.0, True, "b", None, False)
    assert second == (2, None, "[]", None, None, "a", None, False)
    assert third == (1, None, None, None, None, None, None, True)
    assert_ledger(stage, sent, "details")


def test_drain_finds_new_partitions_and_reads_them_from_their_start(stage: Stage) -> None:
    sent = send_jobs(stage, 9)
    drain_dataset(stage.deployment, "jobs")
    with topics.admin(servers(stage)) as client:
        client.create_partitions({topic_of(stage): 5})
    topics.wait_for_end(servers(stage), topic_of(stage), [3, 3, 3, 0, 0])
    sent += send_jobs(stage, 10, 5)
    _, result = drain_dataset(stage.deployment, "jobs")
    assert result.records == 10
    assert_ledger(stage, sent)
    assert len(stage.query("select 1 from headrace.checkpoints")) == 5


def test_drain_with_a_smaller_byte_limit_comes_to_the_same_in_more_batches(stage: Stage) -> None:
    sent = send_jobs(stage, 300)
    deployment = replace(
        stage.deployment, settings=replace(stage.deployment.settings, batch_bytes=1_000, batch_rows=20)
    )
    _, result = drain_dataset(deployment, "jobs")
    assert result.batches >= 15
    assert_ledger(stage, sent)
    assert totals(stage)["sums"] == [(300, 0, 0, 0, 0)]
