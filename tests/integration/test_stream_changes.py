"""Streams that changed: refused, with the range at risk and the command that accepts it."""

import pytest

from headrace.exceptions import DatasetError, SourceChanged, TopicMissing
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import drain_plan, plan
from headrace.repair.generations import accept_loss, adopt
from tests.support import streams
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage
from tests.support.stream_checks import KEYS, assert_ingested, checkpoint, recreate, stream_lines


@pytest.mark.parametrize("count", [1, 20, 90])
def test_stream_recreated_is_refused_and_adopted(count: int, telemetry: Stage) -> None:
    old = streams.send(telemetry, 30)
    drain_dataset(telemetry.deployment, "telemetry")
    new = recreate(telemetry, count)
    before = stream_lines(telemetry)
    for _ in range(2):
        with pytest.raises(SourceChanged) as caught:
            drain_dataset(telemetry.deployment, "telemetry")
        assert "the stream was deleted and created again, or restored to an earlier state" in str(caught.value)
        assert f"at risk: records of the old one: {streams.stream_of(telemetry)}[0] from 30 on; " in str(caught.value)
        assert "`headrace adopt telemetry` closes generation 1" in str(caught.value)
    assert stream_lines(telemetry) == before
    assert adopt(telemetry.deployment, telemetry.deployment.dataset("telemetry")) == 2
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ingested(telemetry, new)
    assert {bytes(key) for (key,) in telemetry.query(KEYS)} == {*old, *new}
    assert telemetry.value("select count(*) from staging.telemetry where _generation = 1") == 30
    assert ("adopt", 2, 0, 0, 0, 0) in stream_lines(telemetry)


@pytest.mark.parametrize("count", [10, 30, 90])
def test_stream_recreated_after_it_was_planned_is_refused_before_anything_is_stored(
    count: int, telemetry: Stage
) -> None:
    streams.send(telemetry, 30)
    dataset = telemetry.deployment.dataset("telemetry")
    planned = plan(telemetry.deployment, dataset)
    recreate(telemetry, count)
    with pytest.raises(SourceChanged, match=r"while it was read; at risk: \[0, 30\)"):
        drain_plan(telemetry.deployment, dataset, planned)
    assert_ledger(telemetry, [], "telemetry")


def test_stream_that_is_gone_is_refused(telemetry: Stage) -> None:
    streams.send(telemetry, 30)
    drain_dataset(telemetry.deployment, "telemetry")
    streams.command(telemetry, "DEL")
    with pytest.raises(TopicMissing, match="no such stream"):
        drain_dataset(telemetry.deployment, "telemetry")
    assert_ledger(telemetry, dataset="telemetry")


def test_stream_that_was_set_back_is_refused_and_adopted(telemetry: Stage) -> None:
    ids = streams.send(telemetry, 30)
    drain_dataset(telemetry.deployment, "telemetry")
    # as a server that came back with yesterday's snapshot
    entries = streams.entries(telemetry, last=ids[19])
    streams.command(telemetry, "DEL")
    flat = [[part for pair in fields.items() for part in pair] for _, fields in entries]
    streams.add(telemetry.deployment.redis(), streams.stream_of(telemetry), flat, (i.decode() for i, _ in entries))
    with pytest.raises(SourceChanged, match=r"its last id is .*; at risk: .* from 30 on; `headrace adopt telemetry`"):
        drain_dataset(telemetry.deployment, "telemetry")
    adopt(telemetry.deployment, telemetry.deployment.dataset("telemetry"))
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ledger(telemetry, [(0, n) for n in range(20)], "telemetry")


def test_trimming_that_overtook_the_checkpoint_is_refused_and_accepted_as_a_loss(telemetry: Stage) -> None:
    dataset = telemetry.deployment.dataset("telemetry")
    ids = streams.send(telemetry, 30)
    drain_dataset(telemetry.deployment, "telemetry")
    ids += streams.send(telemetry, 30)
    streams.command(telemetry, "XTRIM", "MAXLEN", 15)
    with pytest.raises(SourceChanged) as caught:
        drain_dataset(telemetry.deployment, "telemetry")
    assert "telemetry[0]: retention overtook the checkpoint: [30, 45) is no longer served and was never read; " in str(
        caught.value
    )
    assert "`headrace accept-loss telemetry --partition 0 --to 45` continues after it" in str(caught.value)
    for wrong in (30, 46, 60):
        with pytest.raises(DatasetError, match="only offsets that the source no longer serves can be lost"):
            accept_loss(telemetry.deployment, dataset, 0, wrong)
    assert accept_loss(telemetry.deployment, dataset, 0, 40) == (30, 40)
    with pytest.raises(SourceChanged, match=r"\[40, 45\)"):
        drain_dataset(telemetry.deployment, "telemetry")
    assert accept_loss(telemetry.deployment, dataset, 0, 45) == (40, 45)
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ledger(telemetry, [(0, n) for n in range(60) if not 30 <= n < 45], "telemetry")
    assert {bytes(key) for (key,) in telemetry.query(KEYS)} == set(ids[:30] + ids[45:])


def test_stream_that_was_emptied_unread_is_refused_and_accepted_as_a_loss(telemetry: Stage) -> None:
    dataset = telemetry.deployment.dataset("telemetry")
    streams.send(telemetry, 30)
    drain_dataset(telemetry.deployment, "telemetry")
    streams.send(telemetry, 10)
    streams.command(telemetry, "XTRIM", "MAXLEN", 0)
    with pytest.raises(SourceChanged, match=r"\[30, 40\) is no longer served"):
        drain_dataset(telemetry.deployment, "telemetry")
    assert accept_loss(telemetry.deployment, dataset, 0, 40) == (30, 40)
    for _ in range(2):
        drain_dataset(telemetry.deployment, "telemetry")
        assert checkpoint(telemetry)[0] == telemetry.value(
            "select sum(end_offset - start_offset) from headrace.batches"
        )
        streams.send(telemetry, 5)


def test_stream_that_is_trimmed_behind_the_checkpoint_loses_nothing(telemetry: Stage) -> None:
    ids: list[bytes] = []
    for keep in (7, 1, 0, 0, 3):
        ids += streams.send(telemetry, 10)
        drain_dataset(telemetry.deployment, "telemetry")
        streams.command(telemetry, "XTRIM", "MAXLEN", keep)
    assert_ingested(telemetry, ids)


def test_first_contact_with_a_trimmed_stream_says_so_in_the_ledger(telemetry: Stage) -> None:
    ids = streams.send(telemetry, 30)
    streams.command(telemetry, "XTRIM", "MAXLEN", 10)
    drain_dataset(telemetry.deployment, "telemetry")
    assert stream_lines(telemetry) == [("adopt", 1, 0, 20, 0, 0), ("drain", 1, 20, 30, 10, 0)]
    assert_ingested(telemetry, ids[20:], first=20)


def test_entries_that_were_deleted_unread_are_passed_over(telemetry: Stage) -> None:
    streams.send(telemetry, 10)
    drain_dataset(telemetry.deployment, "telemetry")
    ids = streams.send(telemetry, 30)
    streams.command(telemetry, "XDEL", *ids[5:25])
    drain_dataset(telemetry.deployment, "telemetry")
    assert telemetry.value("select count(*) from staging.telemetry") == 20
    assert telemetry.value("select sum(empty) from headrace.batches") == 20
    assert checkpoint(telemetry) == (40, ids[-1].decode())
