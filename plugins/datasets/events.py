"""Events: what happened, once each; producers may send one twice."""

from typing import Any

from pydantic import BaseModel

from headrace.contract import Identifier, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Event(BaseModel):
    model_config = CONTRACT_CONFIG

    event_id: Identifier
    event_type: Text
    time: Timestamp
    payload: dict[str, Any]


DATASET = Dataset(
    name="events",
    contract=Event,
    source=KafkaTopic(topic="events", partitions=3, dead_letter_topic="events_dlq"),
    key="event_id",
    keyed=False,  # producers key events as they like, or not at all
    time_column="time",
    description="What happened, once each",
)
