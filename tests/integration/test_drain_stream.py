"""A stream has the guarantee of topics: exactly once, or refused with the range and the command."""

import signal
from pathlib import Path

import pytest

from headrace.callbacks import Barrier
from headrace.exceptions import DatasetError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.plan import Plan
from headrace.ingest.runner import drain_plan, plan, remaining_plan
from headrace.repair.reload import reload_range
from headrace.sample.generate import generate
from headrace.sample.produce import produce
from headrace.sources import redis
from tests.support import streams
from tests.support.interrupts import STEPS, drain, drain_that_gets
from tests.support.ledger_checks import assert_ledger, assert_nothing_left, coordinates
from tests.support.stage import Stage
from tests.support.stream_checks import assert_ingested, checkpoint


def test_drain_of_a_stream_stages_or_dead_letters_every_entry_once(telemetry: Stage, tmp_path: Path) -> None:
    path = tmp_path / "telemetry.ndjson"
    produced = list(generate("telemetry", 500, 3, 10, telemetry.deployment.settings.data_dir))
    path.write_bytes(b"".join(produced))
    assert produce(telemetry.deployment, telemetry.deployment.dataset("telemetry"), path) == len(produced)
    _, result = drain_dataset(telemetry.deployment, "telemetry")
    assert result.staged + result.dead == len(produced)
    assert result.dead > 10
    ids = [entry_id for entry_id, _ in streams.entries(telemetry)]
    assert_ingested(telemetry, ids)
    plan, nothing = drain_dataset(telemetry.deployment, "telemetry")
    assert nothing.summary(plan) == "telemetry: nothing new"
    more = streams.send(telemetry, 7)
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ingested(telemetry, ids + more)


def test_retry_of_a_pinned_plan_goes_on_behind_what_its_killed_attempt_committed(telemetry: Stage) -> None:
    ids = streams.send(telemetry, 50)
    deployment, dataset = telemetry.deployment, telemetry.deployment.dataset("telemetry")
    pinned = Plan.from_dict(plan(deployment, dataset).to_dict())
    drain_dataset(deployment, "telemetry", max_records=20)
    assert drain_plan(deployment, dataset, remaining_plan(deployment, pinned)).records == 30
    assert_ingested(telemetry, ids)


def test_drain_of_odd_entries_makes_dead_letters_with_their_reasons(telemetry: Stage) -> None:
    good = streams.reading(1)
    twice = [part for pair in good.items() for part in pair] + [b"kpi", b"humidity"]
    entries: list[streams.EntryFields] = [
        good,
        twice,
        streams.reading(2) | {b"zone": b"\xff\xfe"},
        streams.reading(3) | {b"\xc3\x28": b"x"},
        streams.reading(4) | {b"zone": b"a\0b"},
        streams.reading(5, value="-1"),
        streams.reading(6, value="NaN"),
        {b"data": b"not json"},
        {b"data": b"{not json"},
        {b"a": b""},
        streams.reading(7) | {b"f%d" % n: b"x" for n in range(20_000)},
    ]
    ids = streams.add(telemetry.deployment.redis(), streams.stream_of(telemetry), entries)
    drain_dataset(telemetry.deployment, "telemetry")
    reasons = telemetry.query('select "offset", reason from headrace.dead_letters order by 1')
    assert reasons == [
        (1, "duplicate_key"), (2, "invalid_utf8"), (3, "invalid_utf8"), (4, "nul_character"), (5, "out_of_range"),
        (6, "wrong_type"), (7, "missing_field"), (8, "invalid_json"), (9, "missing_field"),
    ]  # fmt: skip
    assert_ingested(telemetry, ids)


@pytest.mark.parametrize("is_known", [False, True])
def test_drain_limited_again_and_again_reads_every_entry_once(is_known: bool, telemetry: Stage) -> None:
    ids = streams.send(telemetry, 50)
    if is_known:
        plan(telemetry.deployment, telemetry.deployment.dataset("telemetry"))
    streams.command(telemetry, "XDEL", ids[10], ids[11], ids[30], ids[49])
    for _ in range(20):
        drain_dataset(telemetry.deployment, "telemetry", max_records=7)
    kept = [entry_id for n, entry_id in enumerate(ids) if n not in (10, 11, 30, 49)]
    assert [bytes(key) for (key,) in telemetry.query("select _key from staging.telemetry order by _offset")] == kept
    assert checkpoint(telemetry)[0] == 50
    assert_ledger(telemetry, dataset="telemetry")
    more = streams.send(telemetry, 3)
    drain_dataset(telemetry.deployment, "telemetry")
    assert [bytes(key) for (key,) in telemetry.query("select _key from staging.telemetry where _offset >= 50")] == more


# its group


def test_group_mirrors_the_checkpoint_and_decides_nothing(telemetry: Stage) -> None:
    ids = streams.send(telemetry, 30)
    drain_dataset(telemetry.deployment, "telemetry")
    found = streams.group(telemetry)
    assert found
    assert (found["lag"], found["entries-read"], found["last-delivered-id"]) == (0, 30, ids[-1])
    streams.command(telemetry, "XGROUP DESTROY", "headrace.telemetry")
    before = checkpoint(telemetry)
    _, result = drain_dataset(telemetry.deployment, "telemetry")
    assert (result.batches, checkpoint(telemetry)) == (0, before)
    ids += streams.send(telemetry, 5)
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ingested(telemetry, ids)
    streams.command(telemetry, "XGROUP SETID", "headrace.telemetry", ids[3])  # as a stranger might
    ids += streams.send(telemetry, 5)
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ingested(telemetry, ids)
    found = streams.group(telemetry)
    assert found
    assert (found["lag"], found["entries-read"]) == (0, 40)


def test_reload_of_a_stream_is_refused_with_what_to_do_in_its_place(telemetry: Stage) -> None:
    streams.send(telemetry, 10)
    drain_dataset(telemetry.deployment, "telemetry")
    with pytest.raises(DatasetError, match=r"comes from a stream, expected a topic.*staged rows stay"):
        reload_range(telemetry.deployment, telemetry.deployment.dataset("telemetry"), "0", "5")
    assert_ledger(telemetry, dataset="telemetry")


# killed


def drain_in_small_chunks(stage: Stage, barrier: Barrier, name: str) -> None:
    redis.CHUNK_ENTRIES = 30
    drain(stage, barrier, name)


@pytest.mark.parametrize("step", STEPS)
def test_drain_of_a_stream_killed_at_any_step_goes_on_where_it_was(step: str, telemetry: Stage) -> None:
    ids = streams.send(telemetry, 100)
    with drain_that_gets(signal.SIGKILL, step, telemetry, "telemetry", drain=drain_in_small_chunks) as process:
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
    assert_nothing_left(telemetry)
    assert_ledger(telemetry, dataset="telemetry")
    assert 0 < len(coordinates(telemetry, "telemetry")) < 100
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ingested(telemetry, ids)


def test_drain_killed_between_its_last_commit_and_its_group_has_lost_and_doubled_nothing(telemetry: Stage) -> None:
    ids = streams.send(telemetry, 40)
    with drain_that_gets(signal.SIGKILL, "committed", telemetry, "telemetry", occurrence=2) as process:
        process.join(20)
        assert process.exitcode == -signal.SIGKILL
    assert streams.group(telemetry) is None
    assert_ingested(telemetry, ids)
    drain_dataset(telemetry.deployment, "telemetry")
    ids += streams.send(telemetry, 1)
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ingested(telemetry, ids)
    found = streams.group(telemetry)
    assert found
    assert (found["lag"], found["entries-read"]) == (0, 41)
