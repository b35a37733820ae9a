"""A broker that is out of reach is a few lines of log, however often kafka-python tries."""

import logging
from collections.abc import Iterator

import pytest

from headrace.exceptions import SourceUnavailable
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_log import OncePerCause, once_per_cause


@pytest.fixture
def client() -> Iterator[logging.Logger]:
    """kafka-python's logger without level or handler."""
    logger = logging.getLogger("kafka")
    before = logger.level, logger.handlers, logger.propagate
    logger.level, logger.handlers, logger.propagate = logging.NOTSET, [], True
    yield logger
    logger.level, logger.handlers, logger.propagate = before


def test_broker_out_of_reach_is_named_once_per_cause(client: logging.Logger, caplog: pytest.LogCaptureFixture) -> None:
    once_per_cause()
    once_per_cause()
    caplog.set_level(logging.DEBUG)
    source = KafkaSource("topic", {"bootstrap_servers": ["127.0.0.1:1"], "bootstrap_timeout_ms": 400})
    with pytest.raises(SourceUnavailable):
        source.describe()
    lines = [record.getMessage() for record in caplog.records if record.name.startswith(("kafka", "headrace"))]
    assert lines[0] == "kafka-python: Connection failed: KafkaConnectionError: 111 ECONNREFUSED"
    assert len(lines) <= 4  # it wrote four for each of five attempts
    assert len(set(lines)) == len(lines)


def test_cause_that_lasts_is_written_again_after_a_while(
    client: logging.Logger, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("headrace.sources.kafka_log.time.monotonic", lambda: now)
    client.addHandler(OncePerCause())
    client.propagate = False
    caplog.set_level(logging.INFO)
    for now in (0.0, 1.0, 59.0, 60.0, 61.0):
        logging.getLogger("kafka.net").warning("attempt %d: %s", now, OSError("refused"))
    assert [record.getMessage() for record in caplog.records] == [
        "kafka-python: attempt 0: refused", "kafka-python: attempt 60: refused",
    ]  # fmt: skip


@pytest.mark.parametrize("chosen", ["level", "handler"])
def test_logging_that_a_deployment_chose_is_left_alone(client: logging.Logger, chosen: str) -> None:
    if chosen == "level":
        client.setLevel(logging.DEBUG)
    else:
        client.addHandler(logging.NullHandler())
    once_per_cause()
    assert client.propagate
    assert not any(isinstance(handler, OncePerCause) for handler in client.handlers)
