"""Telemetry's stream has the guarantee that topics have: exactly once, or refused with the range and the command."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from headrace import retries
from headrace.callbacks import Barrier
from headrace.deployment import Deployment
from headrace.exceptions import DatabaseUnavailable, DatasetError, SourceChanged, SourceUnavailable, TopicMissing
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.plan import Plan
from headrace.ingest.runner import drain_plan, plan, remaining_plan
from headrace.local import postgres, services, valkey
from headrace.repair.generations import accept_loss, adopt
from headrace.repair.reload import reload_range
from headrace.sample.generate import generate
from headrace.sample.produce import produce
from headrace.settings import Settings
from headrace.sources import redis
from tests.support import streams
from tests.support.interrupts import STEPS, at, drain, drain_that_gets
from tests.support.ledger_checks import assert_ledger, assert_nothing_left, coordinates
from tests.support.stage import Stage, telemetry_stage

KEYS = "select _key from staging.telemetry union all select key from headrace.dead_letters order by 1"


def assert_ingested(stage: Stage, ids: list[bytes], *, first: int = 0) -> None:
    """Assert that these entries, numbered from `first`, were ingested once each, and that the books say so."""
    assert_ledger(stage, [(0, first + n) for n in range(len(ids))], "telemetry")
    keys = [bytes(key) for (key,) in stage.query(KEYS)]
    assert len(keys) == len(set(keys))
    assert set(ids) <= set(keys)
    assert_nothing_left(stage)


def checkpoint(stage: Stage) -> tuple[int, str]:
    found = stage.query(
        "select next_offset, source_position from headrace.checkpoints inner join headrace.generations "
        "using (dataset, generation) where is_open"
    )[0]
    return found[0], found[1]


def lines(stage: Stage) -> list[tuple[object, ...]]:
    return stage.query(
        "select kind, generation, start_offset, end_offset, staged, empty from headrace.batches order by seq"
    )


def recreate(stage: Stage, count: int) -> list[bytes]:
    streams.command(stage, "DEL")
    return streams.send(stage, count)


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


# not what it was


@pytest.mark.parametrize("count", [1, 20, 90])
def test_stream_recreated_is_refused_and_adopted(count: int, telemetry: Stage) -> None:
    old = streams.send(telemetry, 30)
    drain_dataset(telemetry.deployment, "telemetry")
    new = recreate(telemetry, count)
    before = lines(telemetry)
    for _ in range(2):
        with pytest.raises(SourceChanged) as caught:
            drain_dataset(telemetry.deployment, "telemetry")
        assert "the stream was deleted and made anew, or set back" in str(caught.value)
        assert f"at risk: what the old one held from {streams.stream_of(telemetry)}[0] from 30 on; " in str(
            caught.value
        )
        assert "`headrace adopt telemetry` closes generation 1" in str(caught.value)
    assert lines(telemetry) == before
    assert adopt(telemetry.deployment, telemetry.deployment.dataset("telemetry")) == 2
    drain_dataset(telemetry.deployment, "telemetry")
    assert_ingested(telemetry, new)
    assert {bytes(key) for (key,) in telemetry.query(KEYS)} == {*old, *new}
    assert telemetry.value("select count(*) from staging.telemetry where _generation = 1") == 30
    assert ("adopt", 2, 0, 0, 0, 0) in lines(telemetry)


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
    assert "`headrace accept-loss telemetry --partition 0 --to 45` goes on behind it" in str(caught.value)
    for wrong in (30, 46, 60):
        with pytest.raises(DatasetError, match="only what the source no longer serves can be given up"):
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
    assert lines(telemetry) == [("adopt", 1, 0, 20, 0, 0), ("drain", 1, 20, 30, 10, 0)]
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


def test_reload_of_a_stream_is_refused_with_what_to_do_in_its_place(telemetry: Stage) -> None:
    streams.send(telemetry, 10)
    drain_dataset(telemetry.deployment, "telemetry")
    with pytest.raises(DatasetError, match=r"comes from a stream, expected a topic.*what was staged stays"):
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


# servers that go and come back


@dataclass(frozen=True, slots=True)
class KillableService:
    """A stage whose Valkey, or Postgres, is the test's own: it may be killed."""

    stage: Stage
    local: Settings
    service: str

    def kill(self) -> None:
        """Kill the server's process group, as a power cut would."""
        process = (valkey if self.service == "redis" else postgres).service(self.local.home)
        pid = process.pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    def start(self) -> None:
        """Start it again, on the same port, with what it has on disk."""
        services.up(self.local, only=(self.service,), print_line=lambda _: None)


@pytest.fixture
def home() -> Iterator[Settings]:
    path = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))
    path.chmod(0o755)
    settings = Settings(home=path)
    yield settings
    services.down(settings, print_line=lambda _: None)
    shutil.rmtree(path)


@pytest.fixture
def own_valkey(home: Settings, database: str, stream: str, tmp_path: Path, session_home: Path) -> KillableService:
    url = str(services.up(home, only=("redis",), print_line=lambda _: None)["redis"]["address"])
    return KillableService(telemetry_stage(database, url, stream, tmp_path / "datasets", session_home), home, "redis")


@pytest.fixture
def own_postgres(home: Settings, redis_url: str, stream: str, tmp_path: Path, session_home: Path) -> KillableService:
    dsn = str(services.up(home, only=("postgres",), print_line=lambda _: None)["postgres"]["address"])
    return KillableService(
        telemetry_stage(dsn, redis_url, stream, tmp_path / "datasets", session_home), home, "postgres"
    )


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], None]], list[float]]:
    """A function that has something done in place of each pause before a retry, by its number; returns the pauses."""

    def during(action: Callable[[int], None]) -> list[float]:
        made: list[float] = []

        def pause(seconds: float) -> None:
            made.append(seconds)
            action(len(made))

        monkeypatch.setattr(retries, "pause", pause)
        return made

    return during


def _nothing(_attempt: int) -> None:
    pass


@pytest.mark.parametrize("step", ["fetched", "committed"])
def test_drain_whose_valkey_is_killed_fails_in_one_line_and_goes_on_after_its_restart(
    step: str, own_valkey: KillableService, pauses: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.redis.CHUNK_ENTRIES", 30)
    stage = own_valkey.stage
    ids = streams.send(stage, 100)
    waited = pauses(_nothing)
    with pytest.raises(SourceUnavailable) as caught:
        drain(stage, at(step, own_valkey.kill, occurrence=2), "telemetry")
    assert "\n" not in str(caught.value)
    assert "did not answer" in str(caught.value)
    assert len(waited) == stage.deployment.settings.max_retries == 3
    assert_ledger(stage, dataset="telemetry")
    own_valkey.start()
    with streams.client(stage.deployment.redis()) as client:
        assert client.xlen(streams.stream_of(stage)) == 100  # all that it had answered is on disk
    drain_dataset(stage.deployment, "telemetry")
    ids += streams.send(stage, 10)
    drain_dataset(stage.deployment, "telemetry")
    assert_ingested(stage, ids)


def test_drain_waits_for_a_valkey_that_comes_back(
    own_valkey: KillableService, pauses: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.redis.CHUNK_ENTRIES", 30)
    stage = own_valkey.stage
    ids = streams.send(stage, 100)
    waited = pauses(lambda attempt: own_valkey.start() if attempt == 3 else None)
    drain(stage, at("committed", own_valkey.kill, occurrence=2), "telemetry")
    assert len(waited) == 3
    assert_ingested(stage, ids)
    found = streams.group(stage)
    assert found
    assert (found["lag"], found["entries-read"]) == (0, 100)


def test_drain_that_may_not_try_again_fails_at_once(
    own_valkey: KillableService, pauses: Callable[..., list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.redis.CHUNK_ENTRIES", 5)
    streams.send(own_valkey.stage, 10)
    waited = pauses(_nothing)
    settings = replace(own_valkey.stage.deployment.settings, max_retries=0)
    with pytest.raises(SourceUnavailable):
        drain(
            replace(own_valkey.stage, deployment=Deployment.from_settings(settings)),
            at("fetched", own_valkey.kill, occurrence=1),
            "telemetry",
        )
    assert waited == []


@pytest.mark.parametrize("step", ["fetched", "advanced", "staged", "before_commit", "committed"])
def test_drain_waits_for_a_postgres_that_comes_back(
    step: str, own_postgres: KillableService, pauses: Callable[..., list[float]]
) -> None:
    stage = own_postgres.stage
    ids = streams.send(stage, 60)
    waited = pauses(lambda attempt: own_postgres.start() if attempt == 2 else None)

    def kill() -> None:
        own_postgres.kill()
        with suppress(psycopg.OperationalError):
            while True:  # until its port is closed
                psycopg.connect(stage.dsn, connect_timeout=2).close()

    drain(stage, at(step, kill, occurrence=1), "telemetry")
    assert len(waited) == 2
    assert_ingested(stage, ids)


def test_run_that_finds_postgres_down_says_so_at_once(
    own_postgres: KillableService, pauses: Callable[..., list[float]]
) -> None:
    own_postgres.kill()
    waited = pauses(_nothing)
    with pytest.raises(DatabaseUnavailable, match="expected a server that answers"):
        drain_dataset(own_postgres.stage.deployment, "telemetry")
    assert waited == []
