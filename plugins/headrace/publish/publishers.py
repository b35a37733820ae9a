"""Publishers: send lines of a file, or sample records, to a dataset's topic or Redis stream."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from headrace.command import Command
from headrace.dataset import Dataset
from headrace.exceptions import DatasetError, HeadraceError, SourceUnavailable
from headrace.optional import needs
from headrace.sources.declarations import SourceDeclaration
from headrace.sources.kafka_security import refusal

if TYPE_CHECKING:
    from headrace.deployment import Deployment

SEPARATOR = b"|"
PIPELINE = 1_000  # entries sent to Redis at once
WHOLE = b"data"  # the field of an entry that is one JSON document


class Publisher(Protocol):
    """Takes lines, `key|value` or JSON, or whole values without keys (keyless=True); a context manager.

    Without an error its end waits until every line is acknowledged. Raises SourceUnavailable if that fails.
    """

    target: str

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None) -> None: ...
    def send(self, line: bytes, *, keyless: bool = False) -> None:
        """Send one line; it may be acknowledged later."""

    def flush(self) -> None:
        """Wait until everything sent is acknowledged."""


def open_publisher(deployment: "Deployment", dataset: Dataset, *, transactional_id: str | None = None) -> Publisher:
    """The publisher of a dataset; with a transactional_id all lines become visible together, or none.

    Raises DatasetError for a file dataset, and for a format whose values name schemas: lines of text do not.
    """
    dataset.refuse_file()
    if dataset.format.has_schema_ids:
        raise DatasetError(
            f"{dataset.name}: its format is {dataset.format.name}, whose values a serializer writes that knows the "
            "registry; `headrace produce` sends lines of text; use a producer of your own"
        )
    publisher = _PUBLISHERS.get(dataset.source.kind)
    if publisher is None:
        raise DatasetError(
            f"{dataset.name}: reads {dataset.source.target}, expected one topic or stream to produce to; use another "
            "producer, which names the topic"
        )
    return publisher(deployment, dataset, transactional_id)


def split_line(line: bytes, key_fields: tuple[str, ...]) -> tuple[bytes | None, bytes] | None:
    """Key and value of a line; None if it is neither `key|value` nor a JSON object."""
    if line.lstrip().startswith(b"{"):
        return _key_of(line, key_fields), line
    key, separator, value = line.partition(SEPARATOR)
    return (key, value) if separator else None


def _key_of(line: bytes, key_fields: tuple[str, ...]) -> bytes | None:
    if not key_fields:
        return None
    try:
        document = json.loads(line)
        key = document[key_fields[0]]
        if len(key_fields) > 1:
            key = json.dumps({name: document[name] for name in key_fields})
    except (ValueError, KeyError, RecursionError):
        return None  # sent without a key: the contract decides, not the publisher
    return None if key is None else str(key).encode()


class TopicPublisher:
    """A topic, created with the declared partitions if it is absent; the producer is idempotent."""

    def __init__(
        self,
        source: SourceDeclaration,
        key_fields: tuple[str, ...],
        client_config: Mapping[str, Any],
        transactional_id: str | None = None,
    ) -> None:
        self.target = source.name
        self._source, self._key_fields, self._config = source, key_fields, client_config
        self._transactional_id = transactional_id
        self._failures: list[BaseException] = []

    def __enter__(self) -> Self:
        from kafka import KafkaProducer
        from kafka.errors import KafkaError

        from headrace.sources.kafka_topics import ensure_topic

        ensure_topic(self._config, self.target, self._source.created_partitions or 1)
        try:
            self._producer = KafkaProducer(
                **{"bootstrap_timeout_ms": 8_000, **self._config},  # a follower sets its own
                enable_idempotence=True,
                acks="all",
                transactional_id=self._transactional_id,
                transaction_timeout_ms=300_000,
                linger_ms=20,
                batch_size=512 * 1024,
                max_request_size=16 * 1024 * 1024,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
            if self._transactional_id is not None:
                self._producer.init_transactions()
                self._producer.begin_transaction()
        except KafkaError as error:
            raise self._unavailable(error) from error
        return self

    def send(self, line: bytes, *, keyless: bool = False) -> None:
        """Send a line; its acknowledgement comes later."""
        from kafka.errors import KafkaError

        key, value = (None if keyless else split_line(line, self._key_fields)) or (None, line)
        try:
            self._producer.send(self.target, key=key, value=value).add_errback(self._failures.append)
        except KafkaError as error:
            raise self._unavailable(error) from error
        self._raise_failures()

    def flush(self) -> None:
        """Wait until every line is acknowledged."""
        from kafka.errors import KafkaError

        try:
            self._producer.flush()
        except KafkaError as error:
            raise self._unavailable(error) from error
        self._raise_failures()

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None) -> None:
        from kafka.errors import KafkaError

        try:
            if kind is None:
                self.flush()
                if self._transactional_id is not None:
                    self._producer.commit_transaction()
            elif self._transactional_id is not None:
                # an open transaction holds back every read_committed reader until it times out
                with suppress(Exception):
                    self._producer.abort_transaction()
        except KafkaError as failed:
            raise self._unavailable(failed) from failed
        finally:
            self._producer.close(timeout=10)

    def _raise_failures(self) -> None:
        if self._failures:
            failure = self._failures[0]
            refused = refusal(failure, self._config, self.target)
            raise refused or SourceUnavailable(
                f"{self.target}: a record was not accepted: {failure}; produce the file again"
            )

    def _unavailable(self, error: BaseException) -> HeadraceError:
        return refusal(error, self._config, self.target) or SourceUnavailable(
            f"{self.target}: {type(error).__name__}: {error}; check the broker and retry"
        )


class StreamPublisher:
    """A Redis stream. A flat object becomes an entry of its fields; any other line an entry of one field, `data`."""

    def __init__(self, stream: str, url: str, *, is_atomic: bool = False) -> None:
        self.target = stream
        self._url, self._is_atomic = url, is_atomic
        self._added = 0

    def __enter__(self) -> Self:
        with needs("redis"):
            import redis

        self._client = redis.Redis.from_url(self._url, socket_connect_timeout=5, socket_timeout=30, retry=None)
        self._pipeline = self._client.pipeline(transaction=self._is_atomic)
        return self

    def send(self, line: bytes, *, keyless: bool = False) -> None:
        """Add an entry to the pipeline, which is sent when full. An empty line adds nothing. Entries have no keys."""
        if not line.strip():
            return
        self._pipeline.xadd(self.target, _fields(line))
        if len(self._pipeline) >= PIPELINE and not self._is_atomic:
            self.flush()

    def flush(self) -> None:
        """Send the pipeline; an atomic publisher sends it on leaving."""
        if not self._is_atomic:
            self._execute()

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: TracebackType | None) -> None:
        try:
            if kind is None:
                self._execute()
        finally:
            self._pipeline.reset()
            self._client.close()

    def _execute(self) -> None:
        from redis.exceptions import RedisError

        waiting = len(self._pipeline)
        try:
            self._pipeline.execute()
        except RedisError as error:
            raise SourceUnavailable(
                f"{self.target}: {self._added} entries were added, then: {error}; start the server (`headrace up`) or "
                "correct HEADRACE_REDIS_URL",
                command=Command("up"),
            ) from error
        self._added += waiting


def _fields(line: bytes) -> dict[Any, Any]:
    try:
        document = json.loads(line, parse_float=str, parse_int=str, object_pairs_hook=_flat)
    except (ValueError, RecursionError):
        return {WHOLE: line}
    return document if isinstance(document, dict) and document else {WHOLE: line}


def _flat(pairs: list[tuple[str, object]]) -> dict[bytes, bytes]:
    fields = {name.encode(): value.encode() for name, value in pairs if isinstance(value, str)}
    if len(fields) != len(pairs):
        raise ValueError("not flat, or a repeated field")
    return fields


def _open_topic(deployment: "Deployment", dataset: Dataset, transactional_id: str | None) -> Publisher:
    return TopicPublisher(dataset.source, dataset.key_fields, deployment.kafka(), transactional_id)


def _open_stream(deployment: "Deployment", dataset: Dataset, transactional_id: str | None) -> Publisher:
    return StreamPublisher(dataset.source.name, deployment.redis(), is_atomic=transactional_id is not None)


# by SourceDeclaration.kind
_PUBLISHERS: Mapping[str, Callable[["Deployment", Dataset, str | None], Publisher]] = {
    "topic": _open_topic,
    "stream": _open_stream,
}
