"""Users: who lives where; one line per user in a file."""

from pydantic import BaseModel

from headrace.contract import Integer, Text
from headrace.dataset import CONTRACT_CONFIG, Dataset, File


class User(BaseModel):
    model_config = CONTRACT_CONFIG

    LOCATION: Text
    USERID: Integer


DATASET = Dataset(
    name="users",
    contract=User,
    source=File(path="users.ndjson"),
    key="USERID",
    description="Who lives where",
)
