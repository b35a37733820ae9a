"""Jobs: what a user ran, where, and what it earned; one record per change of a job, keyed by the job's id."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from headrace.contract import Integer, Numeric, Text, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic
from headrace.formats import KeyedJson


class Job(BaseModel):
    model_config = CONTRACT_CONFIG

    JOBCREATEDATE: Timestamp | None = None
    JOBDATE: Timestamp | None = None
    JOBIDENTIFIER: Integer
    JOBSTATUS: Literal["SUCCESS", "NO SUCCESS"]
    LOCATION: Text
    REVENUE: Annotated[Numeric, Field(ge=0)] | None = None  # absent or null counts as 0
    SERVICENAME: Text
    USERID: Integer


DATASET = Dataset(
    name="jobs",
    contract=Job,
    source=KafkaTopic(topic="jobs", partitions=3),
    format=KeyedJson(),  # a file that was produced without parse.key arrives as values `id|{JSON}`
    key="JOBIDENTIFIER",
    time_column="JOBCREATEDATE",
    description="What a user ran, where, and what it earned",
)
