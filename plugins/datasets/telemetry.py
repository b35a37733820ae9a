"""Telemetry: what devices measured; entries of a Redis stream."""

from pydantic import BaseModel, field_validator
from pydantic_core import PydanticCustomError

from headrace.contract import Float, Identifier, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, RedisStream


class Reading(BaseModel):
    model_config = CONTRACT_CONFIG

    event_id: Identifier
    device_id: Identifier
    zone: Text
    ts: Timestamp
    kpi: Text
    value: Float

    @field_validator("value")
    @classmethod
    def value_is_not_negative(cls, value: float) -> float:
        """No sensor of ours measures less than nothing."""
        if value < 0:
            raise PydanticCustomError("business_rule", "a reading is never negative")
        return value


DATASET = Dataset(
    name="telemetry",
    contract=Reading,
    source=RedisStream(stream="telemetry_stream"),
    key="event_id",
    time_column="ts",
    description="What devices measured",
)
