"""`headrace verify telemetry --deep` reads the stream again with an independent reader, and names every defect."""

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.repair.generations import accept_loss, adopt
from headrace.repair.replay import replay
from headrace.sources.base import Range
from headrace.sources.redis import RedisSource
from headrace.verify import verify
from headrace.verify.readers import StreamReader
from headrace.verify.report import DatasetReport, Finding, Verification
from tests.support import streams
from tests.support.stage import Stage

DEAD = 30
# what either side makes of an entry's fields must be the same bytes, by two ways
FIELDS: list[streams.EntryFields] = [
    {b"value": b"1.50", b"text": b"1"},
    {b"value": b"01", b"text": b"-0"},
    {b"value": b"-0.0e+7", b"text": b""},
    {b"value": b"NaN"},
    {b"value": b"-Infinity"},
    {b"value": b" 1"},
    {b"value": b"1\n"},
    {b"value": b""},
    {b"value": b"-"},
    {b"value": b"1."},
    {b"value": b".5"},
    {b"value": b"1e5"},
    {b"value": b"1" * 5_000},
    {b"value": "\N{ARABIC-INDIC DIGIT ONE}".encode()},
    {b"value": b"1\x002"},
    {b"a": bytes(range(256)), b'"\\\n': b"\xff"},
    {b"data": b'{"value": 1}'},
    {b"data": b" \n{broken"},
    {b"data": b"[1]"},
    [b"value", b"1", b"value", b"2"],
    {b"f%d" % n: b"x" for n in range(2_000)},
]


@pytest.fixture
def drained(telemetry: Stage) -> Stage:
    """Thirty readings, a dead letter, ten readings."""
    streams.send(telemetry, 30)
    streams.add(telemetry.deployment.redis(), streams.stream_of(telemetry), [streams.reading(30, value="-1")])
    streams.send(telemetry, 10, first=31)
    drain_dataset(telemetry.deployment, "telemetry")
    return telemetry


def deep(stage: Stage) -> Verification:
    return verify(stage.deployment, "telemetry", deep=True)


def report(stage: Stage) -> DatasetReport:
    """The report of a deep verification, which is clean."""
    verification = deep(stage)
    assert verification.is_clean, list(verification.lines())
    return verification.reports[0]


def change(stage: Stage, statement: str) -> None:
    """Change the database as no loader would: constraints by trigger are off."""
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(statement.encode())


def first_of(stage: Stage, check: str) -> Finding:
    verification = deep(stage)
    found = [finding for finding in verification.findings if finding.check == check]
    assert found, list(verification.lines())
    return found[0]


def test_verify_deep_of_a_stream_is_clean(drained: Stage) -> None:
    streams.send(drained, 5)  # not read yet: not compared
    found = report(drained)
    assert found.counts["records re-read"] == found.counts["hashes equal"] == 41
    assert (found.counts["staged rows"], found.counts["dead letters"]) == (40, 1)
    assert {"source", "records", "hashes", "empty"} <= set(found.checks)
    assert found.notes == []
    assert found.ranges == ["[0] [0, 41)"]


ROW = "_generation = 1 and _offset = %d"
DEFECTS = {
    "a value": (f"update staging.telemetry set value = value + 0.01 where {ROW % 7}", "hashes", 7),
    "a time": (f"update staging.telemetry set ts = ts + interval '1 microsecond' where {ROW % 7}", "hashes", 7),
    "an id": (f"update staging.telemetry set _key = '1-1' where {ROW % 7}", "hashes", 7),
    "a key that is no id": (f"update staging.telemetry set _key = 'x' where {ROW % 7}", "hashes", 7),
    "a dead letter": (
        "update headrace.dead_letters set value = set_byte(value, 5, get_byte(value, 5) # 1)", "hashes", DEAD,
    ),
    "a row that is gone while its line agrees": (
        f"delete from staging.telemetry where {ROW % 7}; "
        "update headrace.batches set staged = staged - 1, empty = empty + 1 where start_offset = 0",
        "records",
        7,
    ),
    "a dead letter that is gone while its line agrees": (
        "delete from headrace.dead_letters; update headrace.batches set empty = empty + dead, dead = 0 where dead > 0",
        "records",
        DEAD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_verify_deep_of_a_stream_finds(name: str, drained: Stage) -> None:
    statement, check, offset = DEFECTS[name]
    change(drained, statement)
    finding = first_of(drained, check)
    assert (finding.partition, finding.offset) == (0, offset)


@pytest.mark.parametrize("name", ["a value", "a key that is no id", "a row that is gone while its line agrees"])
def test_verify_deep_finds_it_where_entries_were_deleted_too(name: str, telemetry: Stage) -> None:
    ids = streams.send(telemetry, 30)
    streams.command(telemetry, "XDEL", *ids[10:15])
    drain_dataset(telemetry.deployment, "telemetry")
    streams.command(telemetry, "XDEL", ids[2], ids[20])
    statement, check, offset = DEFECTS[name]
    before = report(telemetry)
    assert before.counts["hashes equal"] == 30 - 5 - 2
    assert "2 rows whose records XDEL or XTRIM removed since: not compared" in before.notes
    first = telemetry.value("select min(_offset) from staging.telemetry")
    at = first + 7
    change(telemetry, statement.replace("_offset = 7", f"_offset = {at}").replace("start_offset = 0", "staged = 20"))
    assert first_of(telemetry, check).offset == at
    assert offset == 7


def test_verify_deep_finds_a_row_that_stands_again_where_an_entry_was_deleted(drained: Stage) -> None:
    ids = streams.send(drained, 10, first=41)
    streams.command(drained, "XDEL", ids[3])
    drain_dataset(drained.deployment, "telemetry")
    assert report(drained).counts["hashes equal"] == 50
    twin = (
        "create temp table twin as select * from staging.telemetry where _offset = 45; "
        "update twin set _offset = 50; insert into staging.telemetry select * from twin; "
        "update headrace.batches set staged = staged + 1, empty = empty - 1 where start_offset = 41"
    )
    change(drained, twin)
    assert verify(drained.deployment, "telemetry").is_clean  # so the deep check alone tells
    finding = first_of(drained, "records")
    assert finding.offset == 50
    assert finding.expected == "it only at 45"


def test_verify_deep_does_not_compare_what_was_trimmed(drained: Stage) -> None:
    streams.command(drained, "XTRIM", "MAXLEN", 16)
    found = report(drained)
    assert "[0] no longer served: not compared [0, 25)" in found.notes
    assert found.counts["hashes equal"] == 16
    streams.command(drained, "XTRIM", "MAXLEN", 0)
    assert "[0] no longer served: not compared [0, 41)" in report(drained).notes


def test_verify_of_a_trimmed_stream_names_the_range_that_was_never_read_until_it_is_accepted(drained: Stage) -> None:
    streams.send(drained, 20)
    streams.command(drained, "XTRIM", "MAXLEN", 5)
    finding = first_of(drained, "source")
    assert finding.offset == 41
    assert "`headrace accept-loss telemetry --partition 0 --to 56` continues after it" in finding.remedy
    accept_loss(drained.deployment, drained.deployment.dataset("telemetry"), 0, 56)
    drain_dataset(drained.deployment, "telemetry")
    assert report(drained).counts["hashes equal"] == 5


@pytest.mark.parametrize("deeply", [False, True])
def test_verify_of_a_stream_that_was_recreated_says_so_until_it_is_adopted(deeply: bool, drained: Stage) -> None:
    streams.command(drained, "DEL")
    streams.send(drained, 60)
    verification = verify(drained.deployment, "telemetry", deep=deeply)
    assert [finding.check for finding in verification.findings] == ["source"]
    assert "deleted and created again" in verification.findings[0].found
    assert "`headrace adopt telemetry` closes generation 1" in verification.findings[0].remedy
    adopt(drained.deployment, drained.deployment.dataset("telemetry"))
    drain_dataset(drained.deployment, "telemetry")
    found = report(drained)
    assert found.counts["hashes equal"] == 60
    assert f"generation 1 came from an earlier {streams.stream_of(drained)}: not compared" in found.notes


def test_verify_deep_after_a_replay_is_clean(drained: Stage) -> None:
    declared = drained.deployment.settings.datasets_dir / "telemetry.py"
    declared.write_text(declared.read_text().replace("Field(ge=0)", "Field(ge=-100)"))
    dataset = drained.deployment.dataset("telemetry")
    assert replay(drained.deployment, dataset).staged == 1
    assert report(drained).counts["hashes equal"] == 41
    streams.command(drained, "XDEL", streams.command(drained, "XRANGE", "-", "+", "COUNT", 1)[0][0])
    assert report(drained).counts["hashes equal"] == 40


def test_verify_without_a_server_notes_it_and_deep_fails(drained: Stage) -> None:
    settings = replace(drained.deployment.settings, redis_url="redis://127.0.0.1:1/0")
    deployment = Deployment.from_settings(settings)
    verification = verify(deployment, "telemetry")
    assert verification.is_clean
    assert "the source could not be asked: redis: 127.0.0.1:1 did not answer" in verification.reports[0].notes[0]
    verification = verify(deployment, "telemetry", deep=True)
    assert not verification.is_clean
    assert "did not answer" in verification.errors[0]


@pytest.fixture
def both(redis_url: str, stream: str) -> Iterator[tuple[RedisSource, StreamReader]]:
    """The loader's way and the verification's, to the same entries."""
    ids = streams.add(redis_url, stream, FIELDS)
    source = RedisSource(stream, redis_url)
    reader = StreamReader(stream, redis_url, ids[-1].decode(), lambda _start, _end: iter(()))
    yield source, reader
    source.close()
    reader.close()


def test_stream_reader_and_source_agree_on_fields_of_any_bytes(
    both: tuple[RedisSource, StreamReader], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.verify.readers.PAGE_ENTRIES", 3)
    source, reader = both
    state = source.describe().partitions[0]
    chunks = source.read({0: Range(0, state.end_offset, state.start_position, state.end_position)})
    ours = [(r.offset, r.key, r.value, tuple(r.headers), r.timestamp) for chunk in chunks for r in chunk.records]
    assert list(reader.visible_records(0, 0, len(FIELDS))) == ours
    assert list(reader.visible_records(0, 4, 9)) == ours[4:9]
    assert len(ours) == len(FIELDS)
