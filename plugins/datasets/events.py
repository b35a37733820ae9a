"""Events: what a user did, once each; producers may send one twice."""

from typing import Any

from pydantic import BaseModel

from headrace.contract import Identifier, Integer, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Event(BaseModel):
    model_config = CONTRACT_CONFIG

    event_id: Identifier
    event_time: Timestamp
    user_id: Text
    event_type: Text
    payload: dict[str, Any] = {}  # pydantic copies it
    schema_version: Integer = 1


DATASET = Dataset(
    name="events",
    contract=Event,
    source=KafkaTopic(topic="events", partitions=3, dead_letter_topic="events_dlq"),
    key="event_id",
    keyed=False,  # producers key events by user_id
    time_column="event_time",
    description="What a user did, once each",
)
