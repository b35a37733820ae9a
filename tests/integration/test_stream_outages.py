"""Drains of a stream whose Valkey or Postgres is killed: an error in one line, or a retry that continues."""

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
from headrace.deployment import Deployment
from headrace.exceptions import DatabaseUnavailable, SourceUnavailable
from headrace.ingest.parallel import drain_dataset
from headrace.local import postgres, services, valkey
from headrace.settings import Settings
from tests.support import streams
from tests.support.interrupts import at, drain
from tests.support.ledger_checks import assert_ledger
from tests.support.local_servers import discard
from tests.support.stage import Stage, telemetry_stage
from tests.support.stream_checks import assert_ingested


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
    discard(settings)
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
