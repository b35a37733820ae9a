"""A dataset for the fuzz tests alone: every kind of column that a contract can have."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from headrace.contract import EpochMilliseconds, Float, Identifier, Integer, Money, Text, Timestamp
from headrace.contracts.annotations import SqlType
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Reading(BaseModel):
    model_config = CONTRACT_CONFIG

    ID: Identifier
    TAKEN: EpochMilliseconds
    WRITTEN: Timestamp | None = None
    VALUE: Float
    EXACT: Annotated[Money, Field(ge=0)] | None = None
    COUNT: Annotated[int, SqlType("smallint")]
    TOTAL: Integer | None = None
    GOOD: bool
    KIND: Literal["a", "b"] = "a"
    NOTE: Text | None = None
    PAYLOAD: dict[str, Any] | None = None
    LIST: list[Any] | None = None


DATASET = Dataset(
    name="readings",
    contract=Reading,
    source=KafkaTopic(topic="readings", partitions=3),
    key="ID",
    time_column="TAKEN",
    zone="America/New_York",
    description="Made up for the fuzz tests",
)
