"""Rides: taxi rides, one record each; a ride has no id, so every record is a ride."""

from typing import Annotated

from pydantic import BaseModel, Field

from headrace.contract import EpochMilliseconds, Integer, Numeric
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Ride(BaseModel):
    model_config = CONTRACT_CONFIG

    PULocationID: Integer
    DOLocationID: Integer
    trip_distance: Annotated[Numeric, Field(ge=0)]  # miles
    total_amount: Numeric  # a refund is negative
    tpep_pickup_datetime: EpochMilliseconds


DATASET = Dataset(
    name="rides",
    contract=Ride,
    source=KafkaTopic(topic="rides", partitions=3),
    time_column="tpep_pickup_datetime",
    description="Taxi rides",
)
