"""Creates topics, and tells how large their records may be."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from headrace.sources.kafka import BOOTSTRAP_TIMEOUT_MS, REQUEST_TIMEOUT_MS
from headrace.sources.kafka_errors import as_source_error


def ensure_topic(
    client_config: Mapping[str, Any], topic: str, partitions: int, configs: Mapping[str, str] | None = None
) -> bool:
    """Create a topic with the declared partitions and configs unless it exists; return whether it was created.

    Raises SourceUnavailable if no broker answers, and SourceRefused without the right to create. A broker lists only
    topics that the client may describe.
    """
    try:
        with closing(_admin(client_config)) as admin:
            if topic in admin.list_topics():
                return False
            wanted = {topic: {"num_partitions": partitions, "configs": dict(configs or {})}}
            (answer,) = admin.create_topics(wanted, raise_errors=False)["topics"]
            if answer["error_code"]:  # kafka-python's own error has the whole request and response
                found = answer["error_message"] or "no reason was given"
                raise for_code(answer["error_code"])(
                    f"to create topic {topic}, which this client does not see: {found}"
                )
            admin.wait_for_topics([topic])
        return True
    except TopicAlreadyExistsError:  # another process created it meanwhile
        return False
    except KafkaError as error:
        raise as_source_error(error, client_config, topic) from error


def max_message_bytes(client_config: Mapping[str, Any], topic: str) -> int | None:
    """The topic's limit on a record batch, in bytes; None if the broker does not tell."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    try:
        with closing(_admin(client_config)) as admin:
            described = admin.describe_configs([resource], config_filter="all")
    except KafkaError:
        return None
    limit = described.get("topic", {}).get(topic, {}).get("max.message.bytes", {}).get("value")
    return int(limit) if limit else None


def cluster(client_config: Mapping[str, Any], timeout_s: float) -> tuple[int, str]:
    """The number of brokers and the cluster's id; raises SourceUnavailable or SourceRefused after timeout_s."""
    timeouts = {"bootstrap_timeout_ms": int(timeout_s * 1000), "request_timeout_ms": int(timeout_s * 1000)}
    try:
        with closing(_admin({**client_config, **timeouts})) as admin:
            described = admin.describe_cluster()
    except KafkaError as error:
        raise as_source_error(error, client_config, "kafka") from error
    return len(described["brokers"]), str(described["cluster_id"])


def _admin(client_config: Mapping[str, Any]) -> KafkaAdminClient:
    timeouts = {"bootstrap_timeout_ms": BOOTSTRAP_TIMEOUT_MS, "request_timeout_ms": REQUEST_TIMEOUT_MS}
    return KafkaAdminClient(**{**timeouts, **client_config})
