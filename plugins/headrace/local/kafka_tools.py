"""Kafka's own tools: the names of their scripts, without `kafka-` and `.sh`, and their classes.

Source: bin/*.sh of Apache Kafka 4.3. It imports nothing heavy: shells complete the names.
"""

from headrace.dataset_files import similar
from headrace.exceptions import UsageError

PACKAGE = "org.apache.kafka.tools"
CLASSES = {
    "acls": "AclCommand",
    "broker-api-versions": "BrokerApiVersionsCommand",
    "client-metrics": "ClientMetricsCommand",
    "cluster": "ClusterTool",
    "console-consumer": "consumer.ConsoleConsumer",
    "console-producer": "ConsoleProducer",
    "console-share-consumer": "consumer.ConsoleShareConsumer",
    "consumer-groups": "consumer.group.ConsumerGroupCommand",
    "consumer-perf-test": "ConsumerPerformance",
    "delegation-tokens": "DelegationTokenCommand",
    "delete-records": "DeleteRecordsCommand",
    "features": "FeatureCommand",
    "get-offsets": "GetOffsetShell",
    "groups": "GroupsCommand",
    "leader-election": "LeaderElectionCommand",
    "log-dirs": "LogDirsCommand",
    "metadata-quorum": "MetadataQuorumCommand",
    "producer-perf-test": "ProducerPerformance",
    "reassign-partitions": "reassign.ReassignPartitionsCommand",
    "share-groups": "consumer.group.ShareGroupCommand",
    "streams-application-reset": "StreamsResetter",
    "topics": "TopicCommand",
    "transactions": "TransactionsCommand",
}


def tool_class(tool: str) -> str:
    """The class of a tool by the name of its script; raises UsageError, with similar names, for another name."""
    name = tool.removeprefix("kafka-").removesuffix(".sh")
    found = CLASSES.get(name) or "".join(part.capitalize() for part in name.split("-"))  # also a class's own name
    if found not in CLASSES.values():
        raise UsageError(
            f"kafka: found {tool!r}, expected one of Kafka's tools{similar(name, CLASSES)}; "
            f"there are {', '.join(CLASSES)}"
        )
    return f"{PACKAGE}.{found}"
