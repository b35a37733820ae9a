"""Servers that accept connections and never answer: every client of ours gives up, in one line."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.exceptions import DatabaseUnavailable, HeadraceError, SourceUnavailable
from headrace.monitor.status import read_status
from headrace.postgres.connection import connector
from headrace.postgres.liveness import CONNECT_TIMEOUT_S
from headrace.settings import Settings
from headrace.sources import kafka, kafka_handshake, redis
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_security import from_settings
from headrace.sources.redis import RedisSource
from tests.stalling_proxy import StallingProxy


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a listener that accepts and never answers."""
    with StallingProxy() as listener:
        yield listener.port


def refused(action: Callable[[], object], kind: type[HeadraceError], seconds: float = 30) -> str:
    """What it says, long before clients give up that were not told when to: no measure of its speed."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        action()
    assert time.monotonic() - began < seconds
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_postgres_that_never_answers_is_given_up_after_the_dsns_connect_timeout(silent: int) -> None:
    connect = connector(f"postgresql://hr@127.0.0.1:{silent}/sales?connect_timeout=2", "test")
    said = refused(lambda: read_status(connect), DatabaseUnavailable, CONNECT_TIMEOUT_S - 1)
    assert said.startswith("postgres: connection timeout expired; expected a server that answers")


def test_status_of_a_database_that_never_answers_ends_in_one_line(silent: int, tmp_path: Path) -> None:
    dsn = f"postgresql://hr@127.0.0.1:{silent}/sales?connect_timeout=2"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("headrace")), "status"],
        env={"HEADRACE_HOME": str(tmp_path), "HEADRACE_POSTGRES_DSN": dsn},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "connection timeout expired" in done.stderr


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_broker_that_never_answers_is_given_up(silent: int, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "BOOTSTRAP_TIMEOUT_MS", 1_000)
    monkeypatch.setattr(kafka_handshake, "HANDSHAKE_S", 0.5)
    monkeypatch.setattr("headrace.sources.kafka_probe.TIMEOUT_S", 0.5)
    settings = Settings(kafka_bootstrap_servers=f"127.0.0.1:{silent}", kafka_security_protocol=protocol)  # type: ignore[arg-type]
    source = KafkaSource("jobs", from_settings(settings))
    said = refused(source.describe, SourceUnavailable)
    assert said.startswith(f"kafka: 127.0.0.1:{silent} did not answer")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_redis_that_never_answers_is_given_up(silent: int, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "READ_TIMEOUT_S", 0.5)
    source = RedisSource("events", f"{scheme}://127.0.0.1:{silent}/0")
    said = refused(source.describe, SourceUnavailable)
    assert said.startswith(f"redis: 127.0.0.1:{silent} did not answer")
