"""The waiter of each kind of source: one client for all topics of the cluster, one for all streams of the server."""

from headrace.optional import needs
from headrace.sources.declarations import Services, SourceDeclaration
from headrace.sources.waiting import Waiter

KAFKA, REDIS = "kafka", "redis"
_KINDS = {"topic": KAFKA, "topics": KAFKA, "stream": REDIS}


def waiter_kind(declaration: SourceDeclaration) -> str:
    """Which waiter a source needs: datasets of the same kind share one."""
    return _KINDS[declaration.kind]


def open_waiter(kind: str, services: Services) -> Waiter:
    """The waiter of a kind; it connects when it first waits."""
    if kind == KAFKA:
        from headrace.sources.kafka_waiting import TopicsWaiter

        return TopicsWaiter(services.kafka())
    with needs("redis"):
        from headrace.sources.redis_waiting import StreamsWaiter

    return StreamsWaiter(services.redis())
