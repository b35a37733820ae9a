"""Records of several Kafka topics, as the partitions of one source.

Each partition of a topic has a number of its own, which Postgres stores with the topic's id (headrace.checkpoints). So
a topic that is recreated, and one that appears later, get numbers that no other had; the numbers of the others stay.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError, UnknownTopicOrPartitionError

from headrace.exceptions import HeadraceError, TopicMissing
from headrace.origin import Origin
from headrace.sources.base import SourcePosition, SourceState
from headrace.sources.bounds import Bounds
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_errors import address

LOOK_AGAIN_S = 10.0  # how often a waiting source asks to be described, because a topic may have appeared


class SeveralTopics(KafkaSource):
    """The topics of a list, or those whose whole name a pattern matches; `name` stands for all of them in messages."""

    def __init__(
        self,
        name: str,
        client_config: Mapping[str, Any],
        *,
        topics: Sequence[str] | re.Pattern[str],
        max_bytes: int,
        max_records: int,
        bounds: Bounds,
    ) -> None:
        super().__init__(
            name,
            client_config,
            max_poll_records=max_records,
            max_partition_fetch_bytes=max_bytes,
            poll_bytes=max_bytes,
            bounds=bounds,
        )
        self._topics = topics
        self._origins: dict[int, Origin] = {}
        self._numbers: dict[TopicPartition, int] = {}
        self._first_free = 0
        self._looked_at = time.monotonic()

    def assign(self, origins: Mapping[int, Origin], first_free: int) -> None:
        """Take the numbers of the partitions; see `SourceOfTopics.assign`."""
        self._origins, self._first_free = dict(origins), first_free
        self._numbers = {self._place(number): number for number in origins}

    def describe(self) -> SourceState:
        """The state of all topics that exist. What has no number yet gets the next ones, by topic and partition.

        Raises TopicMissing for a topic of the list that does not exist, or if no topic matches the pattern.
        """
        try:
            cluster_id = self._cluster_id()
            described = self._described()
            found = [
                Origin(each["name"], str(each["topic_id"]), part["partition_index"])
                for each in described
                for part in each["partitions"]
            ]
            known = {origin: number for number, origin in self._origins.items()}
            free = max(self._first_free, *(number + 1 for number in known.values()), 0)
            for origin in sorted(found, key=lambda origin: (origin.topic, origin.partition)):
                if origin not in known:
                    known[origin], free = free, free + 1
            self.assign({known[origin]: origin for origin in found}, free)
            states = self._states([self._place(number) for number in self._origins])
        except KafkaError as error:
            self._raise(error)
        self._looked_at = time.monotonic()
        return SourceState(
            topic=self.topic,
            topic_id=_ids({each["name"]: str(each["topic_id"]) for each in described}),
            partitions={number: states[self._place(number)] for number in sorted(self._origins)},
            cluster_id=cluster_id,
            origins=dict(sorted(self._origins.items())),
        )

    def topic_id(self) -> str:
        """The current ids of the topics whose partitions have numbers, in one text."""
        names = sorted({origin.topic for origin in self._origins.values()})
        try:
            described = self._admin_client().describe_topics(names)
            return _ids({self._checked(each)["name"]: str(each["topic_id"]) for each in described})
        except KafkaError as error:
            self._raise(error)

    def wait(self, source_positions: Mapping[int, SourcePosition], seconds: float) -> bool:
        """Wait as for one topic; true now and then, too, because a topic may have appeared."""
        if isinstance(self._topics, re.Pattern) and time.monotonic() - self._looked_at > LOOK_AGAIN_S:
            self._looked_at = time.monotonic()
            return True
        return super().wait(source_positions, seconds)

    def _described(self) -> list[dict[str, Any]]:
        """The topics' metadata; of a pattern without those that vanish meanwhile, and without Kafka's own."""
        if not isinstance(self._topics, re.Pattern):
            return [self._checked(each) for each in self._admin_client().describe_topics(list(self._topics))]
        names = sorted(name for name in self._admin_client().list_topics() if self._topics.fullmatch(name))
        described = self._admin_client().describe_topics(names) if names else []
        gone = UnknownTopicOrPartitionError.errno
        found = [
            self._checked(each) for each in described if each["error_code"] != gone and not each.get("is_internal")
        ]
        if not found:
            raise TopicMissing(
                f"{self.topic}: no topic at {address(self._config)} has a name that it matches as a whole; create one, "
                "or correct the dataset's pattern"
            )
        return found

    def _place(self, partition: int) -> TopicPartition:
        origin = self._origins[partition]
        return TopicPartition(origin.topic, origin.partition)

    def _number(self, place: TopicPartition) -> int:
        return self._numbers[place]

    def _as_ours(self, error: KafkaError) -> HeadraceError:
        ours = super()._as_ours(error)
        if ours.partition is not None:  # that of the topic which the message names
            ours.partition = self._numbers.get(TopicPartition(getattr(error, "topic", ""), ours.partition))
        return ours


def _ids(topics: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {topic_id}" for name, topic_id in sorted(topics.items()))
