"""Sending a file's records to a dataset's topic."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from headrace.dataset import Dataset, KafkaTopic
from headrace.exceptions import DatasetError, FileSourceError, SourceUnavailable, TopicMissing
from headrace.kafka_source import KafkaSource, ensure_topic
from headrace.source import Range

SEPARATOR = b"|"
Progress = Callable[[int, int], None]  # records sent, records in all


def produce(
    dataset: Dataset,
    client_config: Mapping[str, Any],
    path: Path,
    *,
    transactional_id: str | None = None,
    progress: Progress = lambda _sent, _total: None,
) -> int:
    """Send every line of a file to the dataset's topic, keyed, and return how many were sent.

    Lines are `key|value`, as Kafka's console producer reads them with key.separator=|, or JSON documents, whose
    key is the dataset's key field. The topic is created with the declared partitions if it is absent. The
    producer is idempotent; with a transactional_id all records become visible together or not at all.

    The file is read through before anything is sent: FileSourceError names the first line that cannot be sent.
    """
    if not isinstance(dataset.source, KafkaTopic):
        raise DatasetError(f"{dataset.name}: comes from a file, expected a topic; use `headrace load {dataset.name}`")
    total = sum(1 for _ in read_keyed_lines(path, dataset.key))
    topic = dataset.source.topic
    ensure_topic(client_config, topic, dataset.source.partitions)
    failures: list[BaseException] = []
    try:
        producer = KafkaProducer(
            **client_config,
            bootstrap_timeout_ms=8_000,
            enable_idempotence=True,
            acks="all",
            transactional_id=transactional_id,
            transaction_timeout_ms=300_000,
            linger_ms=20,
            batch_size=512 * 1024,
            max_request_size=16 * 1024 * 1024,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )
        try:
            if transactional_id is not None:
                producer.init_transactions()
                producer.begin_transaction()
            for sent, (key, value) in enumerate(read_keyed_lines(path, dataset.key), start=1):
                producer.send(topic, key=key, value=value).add_errback(failures.append)
                if sent % 2_000 == 0:
                    progress(sent, total)
                if failures:
                    break
            producer.flush()
            if failures:
                raise SourceUnavailable(f"{topic}: a record was not accepted: {failures[0]}; produce the file again")
            if transactional_id is not None:
                producer.commit_transaction()
        except BaseException:
            # an open transaction holds back every read_committed reader until it times out
            if transactional_id is not None:
                with suppress(Exception):
                    producer.abort_transaction()
            raise
        finally:
            producer.close(timeout=10)
    except KafkaError as error:
        raise SourceUnavailable(f"{topic}: {type(error).__name__}: {error}; check the broker and retry") from error
    progress(total, total)
    return total


def has_records(topic: str, client_config: Mapping[str, Any]) -> bool:
    """Whether a read_committed consumer would see any record in the topic.

    Offsets do not tell: an aborted transaction leaves offsets behind and no record.
    """
    source = KafkaSource(topic, client_config)
    try:
        ranges = {p: Range(s.log_start_offset, s.end_offset) for p, s in source.describe().partitions.items()}
        return any(chunk.records for chunk in source.read(ranges))
    except TopicMissing:
        return False
    finally:
        source.close()


def read_keyed_lines(path: Path, key_field: str | None) -> Iterator[tuple[bytes | None, bytes]]:
    """Yield key and value of every line; raises FileSourceError for a line that is neither form."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield _split(line.rstrip(b"\r\n"), path, number, key_field)
    except OSError as error:
        raise FileSourceError(f"{path}: cannot be read: {error.strerror}; name a file that exists") from error


def _split(line: bytes, path: Path, number: int, key_field: str | None) -> tuple[bytes | None, bytes]:
    if line.lstrip().startswith(b"{"):
        return _key_of(line, key_field), line
    key, separator, value = line.partition(SEPARATOR)
    if not separator:
        raise FileSourceError(
            f"{path}: line {number}: found {line[:40]!r}, expected key|value or a JSON object; nothing was sent"
        )
    return key, value


def _key_of(line: bytes, key_field: str | None) -> bytes | None:
    if key_field is None:
        return None
    try:
        key = json.loads(line)[key_field]
    except (ValueError, KeyError, RecursionError):
        return None  # sent as it is: to judge records is the drain's business
    return None if key is None else str(key).encode()
