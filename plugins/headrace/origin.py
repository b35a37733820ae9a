"""Which partition of which topic a partition of a dataset reads, where the dataset reads several topics."""

from typing import NamedTuple


class Origin(NamedTuple):
    """A partition of a topic. topic_id: KIP-516's, which tells a topic from an earlier one of its name."""

    topic: str
    topic_id: str
    partition: int

    def __str__(self) -> str:
        """As `orders_eu[1]`."""
        return f"{self.topic}[{self.partition}]"
