"""Asks for the states of many sources together, where their kind allows it."""

from collections.abc import Mapping
from contextlib import closing

from headrace.exceptions import HeadraceError
from headrace.sources.base import SourceState
from headrace.sources.declarations import KafkaTopic, Services, SourceDeclaration


def can_be_described_together(declaration: SourceDeclaration) -> bool:
    """Whether a source is asked together with others, or else by itself."""
    return isinstance(declaration, KafkaTopic)


def describe_together(
    services: Services, declarations: Mapping[str, SourceDeclaration]
) -> dict[str, SourceState | HeadraceError]:
    """What `Source.describe` gives or raises for each source, by the names that the caller gives them.

    All topics of the cluster are asked by one client: the requests are as many as for one topic. Other sources, which
    have to be asked one by one, are absent.
    """
    topics = {name: each.name for name, each in declarations.items() if can_be_described_together(each)}
    if not topics:
        return {}
    from headrace.sources.kafka_together import TopicsTogether

    try:
        with closing(TopicsTogether(set(topics.values()), services.kafka())) as together:
            states = together.states()
    except HeadraceError as error:
        return dict.fromkeys(topics, error)
    return {name: states[topic] for name, topic in topics.items() if topic in states}
