"""Sends committed dead letters to a dead-letter topic.

headrace.dead_letters holds them; the topic is a copy. A dead letter is sent at least once: if the publisher dies
between the acknowledgement and the mark, it is sent again with the same key.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError
from psycopg import Connection

from headrace.callbacks import Barrier, no_barrier
from headrace.command import Command
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError, SourceUnavailable
from headrace.postgres.connection import database
from headrace.postgres.dead_letter_pages import (
    BEGINNING,
    DeadLetter,
    DeadLetterCoordinate,
    DeadLetterSelection,
    count,
    read_page,
)
from headrace.postgres.dead_letters import headers_json
from headrace.sources.kafka import BOOTSTRAP_TIMEOUT_MS
from headrace.sources.kafka_security import refusal
from headrace.sources.kafka_topics import ensure_topic, max_message_bytes

logger = logging.getLogger(__name__)

# the dead letters of a page are locked while they are sent, and a replay of them waits
PAGE_ROWS = 1_000
DELIVERY_TIMEOUT_MS = 10_000
REQUEST_SIZE_MAX = 100 * 1024 * 1024  # high, so that the broker decides what is too large
HEADERS_ROOM = 16 * 1024  # room for the headers that Headrace adds


def publish_after_drain(deployment: Deployment, dataset: Dataset) -> int:
    """Publish the unpublished dead letters of this and earlier drains; return how many.

    Never fails the drain, whose rows are committed: an error is logged in one line, and the next run tries again.
    """
    try:
        return publish(deployment, dataset)
    except Exception as error:  # any error: the drain has succeeded
        text = " ".join(str(error).split())
        logger.warning("%s: dead letters not published: %s; the next run tries again", dataset.name, text)
        return 0


def with_unpublished(deployment: Deployment, datasets: Sequence[str]) -> list[str]:
    """Those of the datasets that have unpublished dead letters."""
    with database(deployment.connect("headrace publish")) as connection:
        found = connection.execute(
            "select named.dataset from unnest(%s::text[]) as named (dataset) where exists ("
            "select from headrace.dead_letters as d where d.dataset = named.dataset and d.published_at is null)",
            (list(datasets),),
        ).fetchall()
    return [name for (name,) in found]


def publish(deployment: Deployment, dataset: Dataset, *, barrier: Barrier = no_barrier) -> int:
    """Send the dataset's unpublished dead letters to its dead-letter topic, and mark them; return how many.

    The topic is created if it is absent. A message has the raw value, null for a tombstone, the key
    `dataset/generation/partition/offset`, by which consumers deduplicate, and the rest in headers (`_headers`).
    Two publishers at once share the work. Does nothing for a dataset without a dead-letter topic. Raises
    SourceUnavailable if a dead letter was not accepted; it stays unpublished, and the accepted ones are marked.
    """
    source = dataset.source
    if source.dead_letter_topic is None:
        return 0
    with database(deployment.connect(f"headrace publish {dataset.name}")) as connection:
        if not count(connection, DeadLetterSelection(dataset=dataset.name, unpublished=True)):
            return 0
        config = deployment.kafka()
        topic = source.dead_letter_topic
        try:
            limit = max_message_bytes(config, source.name)
            # so that it can hold every record of its topic
            configs = {} if limit is None else {"max.message.bytes": str(limit + HEADERS_ROOM)}
            ensure_topic(config, topic, source.dead_letter_partitions, configs)
            with closing(_DeadLetterProducer(config, topic)) as producer:
                return _publish(connection, dataset, producer, barrier)
        except KafkaError as error:
            raise _not_accepted(config, topic, error) from error


@dataclass(slots=True)
class _Delivery:
    """The outcome of sending dead letters: acknowledged, too large for the topic, or failed with `error`."""

    sent: list[DeadLetter] = field(default_factory=list)
    too_large: list[DeadLetter] = field(default_factory=list)
    error: BaseException | None = None


class _DeadLetterProducer:
    """The dead-letter topic, and a producer for it."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self.config = config
        self._producer: KafkaProducer | None = None
        self.topic = topic

    def send(self, dead_letters: Sequence[DeadLetter], delivery: _Delivery) -> None:
        """Send dead letters, wait for all answers, and add the outcome of each to the delivery.

        If the broker refuses one message as too large, an idempotent producer fails all later ones. The messages that
        were not acknowledged are sent again in halves, by a new producer.
        """
        futures: list[tuple[DeadLetter, Any]] = []
        errors: list[BaseException] = []
        for dead_letter in dead_letters:
            key = "/".join(map(str, (dead_letter.dataset, *dead_letter.coordinate))).encode()
            try:
                future = self._open().send(self.topic, key=key, value=dead_letter.value, headers=_headers(dead_letter))
            except KafkaError as error:  # the others would fail in the same way, some after a wait
                errors.append(error)
                break
            futures.append((dead_letter, future))
        acknowledged = set()
        for dead_letter, future in futures:
            try:
                future.get(2 * DELIVERY_TIMEOUT_MS / 1000)  # not flush(): it loses track of split batches
                acknowledged.add(dead_letter.coordinate)
                delivery.sent.append(dead_letter)
            except KafkaError as error:
                errors.append(error)
        left = [dead_letter for dead_letter in dead_letters if dead_letter.coordinate not in acknowledged]
        if not left:
            return
        self.close()
        if not any(isinstance(error, MessageSizeTooLargeError) for error in errors):
            delivery.error = errors[0]
        elif len(dead_letters) == 1:
            delivery.too_large.append(dead_letters[0])
        else:
            middle = (len(left) + 1) // 2
            for half in (left[:middle], left[middle:]):
                if half and delivery.error is None:
                    self.send(half, delivery)

    def close(self) -> None:
        """Close the producer; the next dead letter opens another one."""
        if self._producer is not None:
            self._producer.close(timeout=DELIVERY_TIMEOUT_MS / 1000)
            self._producer = None

    def _open(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = KafkaProducer(
                **{"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS, **self.config},  # a follower sets its own
                enable_idempotence=True,
                acks="all",
                linger_ms=5,
                # the topic's limit applies to compressed bytes, and the record's own topic may have compressed it
                compression_type="gzip",
                max_request_size=REQUEST_SIZE_MAX,
                request_timeout_ms=DELIVERY_TIMEOUT_MS // 2,
                delivery_timeout_ms=DELIVERY_TIMEOUT_MS,
                max_block_ms=DELIVERY_TIMEOUT_MS,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        return self._producer


def _publish(connection: Connection[Any], dataset: Dataset, producer: _DeadLetterProducer, barrier: Barrier) -> int:
    selection = DeadLetterSelection(dataset=dataset.name, unpublished=True)
    published, after = 0, BEGINNING
    too_large: list[DeadLetterCoordinate] = []
    while True:
        delivery = _Delivery()
        with connection.transaction():
            page = read_page(connection, selection, after, rows=PAGE_ROWS, claim=True)
            if not page:
                break
            producer.send(page, delivery)
            barrier("sent")
            _mark(connection, dataset, delivery.sent)
        published += len(delivery.sent)
        if delivery.error is not None:
            raise _not_accepted(producer.config, producer.topic, delivery.error, published) from delivery.error
        too_large += [dead_letter.coordinate for dead_letter in delivery.too_large]
        after = page[-1].coordinate  # the next run sends the others
    if too_large:
        _, partition, offset = too_large[0]
        publish = Command("dead-letters", dataset.name, "--publish")
        raise SourceUnavailable(
            f"{producer.topic}: {len(too_large)} dead letters are larger than the topic's max.message.bytes, the first "
            f"is {dataset.name}[{partition}] {offset}; {published} others were published; raise it and run "
            f"`{publish}`",
            command=publish,
        )
    return published


def _headers(dead_letter: DeadLetter) -> list[tuple[str, bytes]]:
    """All attributes of a dead letter but its raw value; None is omitted."""
    headers = {
        "reason": dead_letter.reason.encode(),
        "detail": dead_letter.detail.encode(),
        "json_path": None if dead_letter.json_path is None else dead_letter.json_path.encode(),
        "dataset": dead_letter.dataset.encode(),
        "generation": b"%d" % dead_letter.generation,
        "partition": b"%d" % dead_letter.partition,
        "offset": b"%d" % dead_letter.offset,
        "original_key": dead_letter.key,
        "masked": None if dead_letter.masked is None else " ".join(dead_letter.masked).encode(),
        "original_timestamp": None if dead_letter.timestamp is None else b"%d" % dead_letter.timestamp,
        "original_headers": headers_json(
            dead_letter.headers
        ),  # as one header: kafka-python sends no header without a value
    }
    return [(name, value) for name, value in headers.items() if value is not None]


def _mark(connection: Connection[Any], dataset: Dataset, sent: Sequence[DeadLetter]) -> None:
    connection.execute(
        """
        update headrace.dead_letters as stored set published_at = clock_timestamp()
        from unnest(%s::integer[], %s::integer[], %s::bigint[]) as sent (generation, partition, "offset")
        where
            stored.dataset = %s
            and (stored.generation, stored.partition, stored."offset")
            = (sent.generation, sent.partition, sent."offset")
        """,
        (
            [dead_letter.generation for dead_letter in sent],
            [dead_letter.partition for dead_letter in sent],
            [dead_letter.offset for dead_letter in sent],
            dataset.name,
        ),
    )


def _not_accepted(config: Mapping[str, Any], topic: str, error: BaseException, published: int = 0) -> HeadraceError:
    text = " ".join(f"{type(error).__name__}: {str(error).removeprefix(f'{type(error).__name__}: ')}".split())
    return refusal(error, config, topic) or SourceUnavailable(
        f"{topic}: dead letters were not accepted: {text}; {published} were published before; the next drain "
        "publishes the others; check the topic and the broker"
    )
