"""Jobs: what a user ran, where, and what it earned; one record per change of a job, keyed by the job's id."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from headrace.contract import Identifier, Integer, Money, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic


class Job(BaseModel):
    model_config = CONTRACT_CONFIG

    JOBCREATEDATE: Timestamp
    JOBDATE: Timestamp
    JOBIDENTIFIER: Identifier
    JOBSTATUS: Literal["SUCCESS", "NO SUCCESS"]
    LOCATION: Text
    REVENUE: Annotated[Money, Field(ge=0)]
    SERVICENAME: Text
    USERID: Integer


DATASET = Dataset(
    name="jobs",
    contract=Job,
    source=KafkaTopic(topic="jobs", partitions=3),
    key="JOBIDENTIFIER",
    time_column="JOBCREATEDATE",
    description="What a user ran, where, and what it earned",
)
