"""The states of many Kafka topics of one cluster, by as many requests as one topic needs."""

from collections.abc import Collection, Mapping
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError

from headrace.exceptions import HeadraceError, SourceUnavailable
from headrace.sources.base import PartitionState, SourceState
from headrace.sources.kafka import KafkaSource
from headrace.sources.kafka_errors import as_source_error


class TopicsTogether(KafkaSource):
    """Topics that are only described; each dataset reads its own by a source of its own."""

    def __init__(self, topics: Collection[str], client_config: Mapping[str, Any]) -> None:
        super().__init__(f"{len(topics)} topics", client_config)
        self._topics = sorted(topics)

    def states(self) -> dict[str, SourceState | HeadraceError]:
        """Per topic what `KafkaSource.describe` gives or raises.

        Raises SourceUnavailable or SourceRefused if the cluster itself does not answer.
        """
        try:
            cluster_id = self._cluster_id()
            described = self._admin_client().describe_topics(self._topics)
        except KafkaError as error:
            self._raise(error)
        found: dict[str, SourceState | HeadraceError] = {}
        usable: dict[str, dict[str, Any]] = {}
        for each in described:
            topic = str(each["name"])
            try:
                usable[topic] = self._usable(each)
            except KafkaError as error:
                found[topic] = as_source_error(error, self._config, topic)
            except HeadraceError as error:
                found[topic] = error
        return found | self._with_offsets(usable, cluster_id)

    def _usable(self, described: dict[str, Any]) -> dict[str, Any]:
        """A topic's metadata; raises its error, or that of a partition: asked together, one would fail all."""
        self._checked(described)
        for part in described["partitions"]:
            if part["error_code"]:
                raise SourceUnavailable(
                    f"{described['name']}[{part['partition_index']}]: describing the partition gave error "
                    f"{part['error_code']}; retry"
                )
        return described

    def _with_offsets(
        self, described: Mapping[str, dict[str, Any]], cluster_id: str | None
    ) -> dict[str, SourceState | HeadraceError]:
        """The states of described topics. If the request fails because of one, by halves, until it is found."""
        places = [
            TopicPartition(topic, part["partition_index"])
            for topic, each in described.items()
            for part in each["partitions"]
        ]
        try:
            states = self._states(places) if places else {}
        except KafkaError as error:
            ours = as_source_error(error, self._config, ", ".join(described))
            if len(described) == 1 or isinstance(ours, SourceUnavailable):
                return dict.fromkeys(described, ours)
            topics = sorted(described)
            halves = topics[: len(topics) // 2], topics[len(topics) // 2 :]
            parts = [self._with_offsets({topic: described[topic] for topic in half}, cluster_id) for half in halves]
            return parts[0] | parts[1]
        partitions: dict[str, dict[int, PartitionState]] = {topic: {} for topic in described}
        for place in sorted(states):
            partitions[place.topic][place.partition] = states[place]
        return {
            topic: SourceState(topic, str(each["topic_id"]), partitions[topic], cluster_id)
            for topic, each in described.items()
        }
