"""Errors of Kafka's clients as Headrace's types and messages."""

from collections.abc import Mapping
from typing import Any

from kafka.errors import KafkaError, LogTruncationError, OffsetOutOfRangeError, UnknownTopicOrPartitionError

from headrace.command import Command
from headrace.exceptions import HeadraceError, SourceChanged, SourceError, SourceUnavailable, TopicMissing
from headrace.sources.kafka_batches import UnreadableBatch
from headrace.sources.kafka_security import refusal


def as_source_error(error: KafkaError, config: Mapping[str, Any], topic: str) -> HeadraceError:
    """Headrace's error for one of a client with these options."""
    if isinstance(error, UnreadableBatch):
        return error.as_ours()
    if (refused := refusal(error, config, topic)) is not None:
        return refused
    if isinstance(error, OffsetOutOfRangeError | LogTruncationError):
        return SourceChanged(
            f"{topic}: the broker no longer serves an offset that it listed a moment ago: {error}; "
            "retention or a recreated topic overtook this run; run the drain again to see the range"
        )
    if isinstance(error, UnknownTopicOrPartitionError):
        return TopicMissing(f"{topic}: the topic vanished while it was read: {error}")
    if getattr(error, "retriable", False):
        return SourceUnavailable(
            f"kafka: {address(config)} did not answer: {_one_line(error)}; start the broker (`headrace up`) or "
            "correct HEADRACE_KAFKA_BOOTSTRAP_SERVERS",
            command=Command("up"),
            cause=no_answer(config),
        )
    return SourceError(f"{topic}: {_one_line(error)}; a new process may try again")


def no_answer(config: Mapping[str, Any]) -> str:
    """The cause of every error that comes from brokers that do not answer."""
    return f"Kafka at {address(config)} does not answer"


def address(config: Mapping[str, Any]) -> str:
    """The brokers' addresses from the options."""
    servers = config["bootstrap_servers"]
    return servers if isinstance(servers, str) else ",".join(servers)


def _one_line(error: BaseException) -> str:
    name = type(error).__name__
    return " ".join(f"{name}: {str(error).removeprefix(f'{name}: ')}".split())
