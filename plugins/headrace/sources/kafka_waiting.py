"""Waits at many Kafka topics with one consumer, which is assigned all of their partitions."""

import logging
import sys
import time
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from headrace.sources.kafka import WAIT_AT_BROKER_MS, KafkaSource
from headrace.sources.kafka_records import Meter, PollIsFull
from headrace.sources.waiting import Awaited

logger = logging.getLogger(__name__)

# A partition that is awaited again takes part in the next request: while records arrive, requests wait briefly at the
# broker. With 900 idle partitions a request costs 5 ms, so idle ones wait longer.
BUSY_WAIT_MS = 100
BUSY_S = 5.0  # how long records are taken to go on to arrive after the last ones


class TopicsWaiter(KafkaSource):
    """One consumer for all topics of the cluster; it discards records, and pauses partitions that are not awaited."""

    def __init__(self, client_config: Mapping[str, Any]) -> None:
        super().__init__("the followed topics", client_config)
        self._consumer_of_all: KafkaConsumer | None = None
        self._known: Mapping[str, Awaited] = {}
        self._places: dict[str, dict[TopicPartition, int]] = {}  # of `_known`, by dataset
        self._positions: dict[TopicPartition, int] = {}  # of the partitions that are not paused
        self._busy_until = 0.0

    def wait_for(self, awaited: Mapping[str, Awaited], seconds: float) -> Set[str]:
        """See `Waiter.wait_for`."""
        try:
            self._take(awaited)
            consumer = self._at_positions()
            is_busy = time.monotonic() < self._busy_until
            with suppress(AttributeError, KeyError):  # kafka-python reads it for each request
                consumer._fetcher.config["fetch_max_wait_ms"] = BUSY_WAIT_MS if is_busy else WAIT_AT_BROKER_MS
            polled: Mapping[TopicPartition, Any] = {}
            with suppress(PollIsFull):
                polled = consumer.poll(timeout_ms=int(min(seconds * 1000, BUSY_WAIT_MS if is_busy else seconds * 1000)))
            positions = _current(consumer, polled)
            moved = {place: now for place, at in self._positions.items() if (now := positions.get(place, at)) != at}
        except KafkaError as error:
            return self._failed(error)
        if not moved:
            return frozenset()
        self._positions |= moved
        self._busy_until = time.monotonic() + BUSY_S
        return {
            name
            for name, places in self._places.items()
            if any(moved[place] > offset for place, offset in places.items() if place in moved)
        }

    def close(self) -> None:
        """Close the consumer."""
        if self._consumer_of_all is not None:
            self._consumer_of_all.close(autocommit=False)
            self._consumer_of_all = None
        self._positions = {}
        super().close()

    def _take(self, awaited: Mapping[str, Awaited]) -> None:
        if awaited is self._known:
            return
        if any(name not in self._known for name in awaited):
            self._busy_until = max(self._busy_until, time.monotonic() + BUSY_S)
        self._places = {
            name: self._places[name] if each is self._known.get(name) else _places(each)
            for name, each in awaited.items()
        }
        self._known = awaited

    def _at_positions(self) -> KafkaConsumer:
        """The consumer, at the lowest position of each partition that a dataset awaits."""
        wanted: dict[TopicPartition, int] = {}
        for places in self._places.values():
            for place, offset in places.items():
                wanted[place] = min(offset, wanted.get(place, offset))
        if self._consumer_of_all is None:
            self._consumer_of_all, _ = self._consumer(
                wanted,
                Meter(sys.maxsize, self._bounds),
                max_partition_fetch_bytes=1,
                max_poll_records=1,
                fetch_max_wait_ms=WAIT_AT_BROKER_MS,
            )
            self._positions = wanted
            return self._consumer_of_all
        consumer = self._consumer_of_all
        assigned = consumer.assignment()
        if wanted.keys() - assigned:
            consumer.assign(sorted(assigned | wanted.keys()))
        if left := self._positions.keys() - wanted.keys():
            consumer.pause(*left)
        for place, offset in wanted.items():
            if self._positions.get(place) != offset:
                consumer.seek(place, offset)
                if place not in self._positions:
                    consumer.resume(place)
        self._positions = wanted
        return consumer

    def _failed(self, error: KafkaError) -> Set[str]:
        """The datasets that an error names: they are read, which meets it. Raises it if it names none.

        A consumer that met an error may not go on; the next one waits for the others.
        """
        self.close()
        topics = _topics(error)
        found = {name for name, places in self._places.items() if any(place.topic in topics for place in places)}
        if not found:
            self._raise(error)
        logger.info("%s: waiting for %s: %s", ", ".join(sorted(found)), ", ".join(sorted(topics)), error)
        return found


def _current(consumer: KafkaConsumer, polled: Mapping[TopicPartition, Any]) -> dict[TopicPartition, int]:
    """The positions of the consumer's partitions, or of those polled; consumer.position() looks at all for each one.

    A position moves without a record where there are transaction markers or gaps only.
    """
    try:
        states = consumer._subscription.assignment.items()
        return {place: state.position.offset for place, state in states if state.position is not None}
    except AttributeError:  # another version of kafka-python
        return {place: records[-1].offset + 1 for place, records in polled.items()}


def _places(awaited: Awaited) -> dict[TopicPartition, int]:
    return {TopicPartition(*place): offset for place, (offset, _) in awaited.places().items()}


def _topics(error: KafkaError) -> set[str]:
    """The topics that an error of kafka-python names: in a set of topics, or as the keys of a dictionary."""
    found = {getattr(error, "topic", None)}
    for argument in error.args:
        if isinstance(argument, Iterable) and not isinstance(argument, str | bytes):
            found |= {getattr(each, "topic", each) for each in argument}
    return {topic for topic in found if isinstance(topic, str)}
