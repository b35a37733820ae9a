"""Every type of a declaration, from a topic into its column and back: stored unchanged."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from uuid import UUID

from headrace.ingest.parallel import drain_dataset
from headrace.verify.verification import verify
from tests.support import topics
from tests.support.jobs import servers, topic_of
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage

DECLARATION = '''
"""One field of every type."""

from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, field_validator

from headrace.contract import Date, EpochSeconds, Float, Identifier, Numeric, TimeOfDay, Timestamp
from headrace.dataset import Dataset, KafkaTopic


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Place(BaseModel):
    city: str
    zip: str = Field(alias="zip-code")


class Thing(BaseModel):
    id: UUID
    user: str
    order: int = Field(validation_alias="Order No.")
    day: date
    clock: time
    at: datetime
    sent: EpochSeconds
    colour: Colour
    level: Level
    price: Decimal
    exact: Numeric
    rate: Float
    raw: bytes
    place: Place
    places: list[Place] = []
    tags: list[str] = []
    numbers: list[int | None] = []
    moments: list[datetime] = []
    ids: list[UUID] = []
    kind: Literal["a", "b"] | None = None
    anything: Any = None

    @field_validator("anything")
    @classmethod
    def _without_secrets(cls, value: Any) -> Any:
        return {name: item for name, item in value.items() if name != "secret"} if isinstance(value, dict) else value


DATASET = Dataset(name="things", contract=Thing, source=KafkaTopic(topic="TOPIC"), key="id")
'''
ID = "A1B2C3D4-0000-4000-8000-000000000001"
SENT = {
    "id": ID,
    "user": 'Zürich\n\t\\"',
    "Order No.": "7",
    "day": "2019-03-01",
    "clock": "10:30:01.5",
    "at": "2019-03-01T13:00:00+0300",
    "sent": "1705312803.4512",
    "colour": "red",
    "level": "1",
    "price": 71.30000000000001,
    "exact": "0.10",
    "rate": "82.35",
    "raw": "hé",
    "place": {"city": "Bern", "zip-code": 3000, "country": "CH"},
    "places": [{"city": "Basel", "zip-code": "4000"}],
    "tags": ["a,b", "{c}", 'd"e', "null", 5],
    "numbers": ["1", None, 3.0],
    "moments": ["2019-03-01"],
    "ids": [ID],
    "kind": "b",
    "anything": {"secret": "a@b.example", "n": 1.5},
    "undeclared": {"n": [1, 2]},
}
STORED = (
    UUID(ID),
    SENT["user"],
    7,
    date(2019, 3, 1),
    time(10, 30, 1, 500_000),
    datetime(2019, 3, 1, 10, tzinfo=UTC),
    datetime(2024, 1, 15, 10, 0, 3, 451_200, tzinfo=UTC),
    "red",
    1,
    Decimal("71.30000000000001"),
    Decimal("0.10"),
    82.35,
    "hé".encode(),
    {"city": "Bern", "zip-code": "3000", "country": "CH"},
    [{"city": "Basel", "zip-code": "4000"}],
    ["a,b", "{c}", 'd"e', "null", "5"],
    [1, None, 3],
    [datetime(2019, 3, 1, tzinfo=UTC)],
    [UUID(ID)],
    "b",
    {"n": 1.5},
    {"undeclared": {"n": [1, 2]}},
)


def test_every_type_of_a_declaration_is_stored_as_it_was_sent(stage: Stage) -> None:
    declared = stage.deployment.settings.datasets_dir / "things.py"
    declared.write_text(DECLARATION.replace("TOPIC", topic_of(stage)))
    bad = SENT | {"tags": [True], "numbers": ["x"]}
    sent = topics.send(
        servers(stage),
        topic_of(stage),
        [
            (0, ID.encode(), json.dumps(SENT).encode()),
            (0, ID.lower().encode(), json.dumps(SENT, ensure_ascii=False).encode()),
            (0, ID.encode(), json.dumps(bad).encode()),
            (0, ID.encode(), None),
        ],
    )
    _, result = drain_dataset(stage.deployment, "things")
    assert (result.staged, result.dead, result.tombstones) == (2, 1, 1)
    rows = stage.query(
        'select id, "user", "order", day, clock, at, sent, colour, level, price, exact, rate, raw, place, places, '
        "tags, numbers, moments, ids, kind, anything, _extra from staging.things where not _deleted order by _offset"
    )
    assert rows == [STORED, STORED]
    assert str(rows[0][10]) == "0.10"  # its scale, too
    assert stage.query("select id from staging.things where _deleted") == [(UUID(ID),)]
    assert_ledger(stage, sent, "things")
    verification = verify(stage.deployment, "things", deep=True)
    assert verification.is_clean, list(verification.lines())
