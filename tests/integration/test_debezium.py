"""Change events from a topic to a mart: what is sent again, or late, changes nothing; all of it is accounted for."""

from pathlib import Path
from typing import Any

import pytest

from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.verify import verify
from tests.support import topics
from tests.support.change_events import Fields, at, envelope, key_with_schema, text, with_schema
from tests.support.change_project import mart, project_of
from tests.support.jobs import servers, topic_of
from tests.support.stage import Stage

DECLARATION = """
from pydantic import BaseModel
from headrace.contract import Integer, Text
from headrace.dataset import Dataset, KafkaTopic
from headrace.formats import Debezium

class Customer(BaseModel):
    id: Integer
    email: Text | None = None

DATASET = Dataset(name="customers", contract=Customer, key="id", format=Debezium(), source=KafkaTopic(topic="{topic}"))
"""
MART = "create table marts.customers as select id, email from random.customers"
CLAIM = (
    "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
    "select 'marts', 'customers', dataset, last_seq, jsonb_build_object('headrace.datasets', built) "
    "from headrace.datasets where dataset = 'customers'"
)
IGNORED = (
    {"ts_ms": 1},
    {"status": "END", "id": "571:53", "event_count": 1, "data_collections": [], "ts_ms": 1},
    envelope("m", None) | {"message": {}},
)


@pytest.fixture
def customers(stage: Stage) -> Stage:
    path = stage.deployment.settings.datasets_dir / "customers.py"
    path.write_text(DECLARATION.format(topic=topic_of(stage)))
    initialise(stage.deployment)
    return stage


class Topic:
    """Sends events of rows with an id and an email, with a schema part or without."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sent: list[topics.Message] = []

    def change(self, op: str, key: int, lsn: int, email: str = "", partition: int = 0, committed: int = 0) -> None:
        after = None if op == "d" else {"id": key, "email": email}
        before = {"id": key, "email": None} if op == "d" else None
        position = at(lsn, committed or (None if op == "r" else lsn - 1))
        event = envelope(op, after, before, **position, snapshot="true" if op == "r" else "false")
        if lsn % 2:
            fields: Fields = [{"type": "int32", "field": "id"}, {"type": "string", "optional": True, "field": "email"}]
            self._sent.append((partition, text(key_with_schema({"id": key})), text(with_schema(event, fields))))
        else:
            self._sent.append((partition, text({"id": key}), text(event)))

    def tombstone(self, key: int) -> None:
        self._sent.append((0, text({"id": key}), None))

    def other(self, event: Any) -> None:
        self._sent.append((0, None, text(event)))

    def send(self) -> None:
        topics.send(servers(self._stage), topic_of(self._stage), self._sent)
        self._sent = []


def send_changes(topic: Topic) -> None:
    for key in range(1, 9):
        topic.change("r", key, 100, "read")
    topic.change("u", 1, 111, "newer")
    topic.change("u", 2, 112, "gone")
    topic.change("d", 2, 113)
    topic.tombstone(2)
    topic.change("u", 2, 112, "sent again")  # the connector was started again
    topic.change("u", 1, 110, "late")
    topic.change("d", 3, 120)
    topic.change("c", 3, 121, "created again")
    topic.change("d", 4, 122, partition=1)
    topic.change("u", 4, 115, "late, in another partition", partition=0)
    topic.change("u", 5, 90, "its change is older, its commit is not", committed=130)
    topic.change("u", 6, 131, "before it was read again")
    topic.change("r", 6, 140, "read again")
    topic.tombstone(7)  # its deletion was compacted away
    topic.change("d", 8, 150)
    topic.change("d", 8, 150)  # twice is once
    for event in IGNORED:
        topic.other(event)
    topic.other(envelope("t", None))
    topic.send()


def test_deleted_stays_deleted_and_the_newest_position_wins(customers: Stage, tmp_path: Path) -> None:
    topic = Topic(customers)
    send_changes(topic)

    drain_dataset(customers.deployment, "customers")

    staged, dead, tombstones, ignored, empty, offsets = customers.query(
        "select sum(staged), sum(dead), sum(tombstones), sum(ignored), sum(empty), sum(end_offset - start_offset) "
        "from headrace.batches where dataset = 'customers' and kind = 'drain'"
    )[0]
    assert (staged, dead, tombstones, ignored, empty) == (17, 1, 7, len(IGNORED), 0)
    assert offsets == staged + dead + tombstones + ignored
    assert customers.query("select reason from headrace.dead_letters") == [("truncated",)]
    assert customers.query("select _op, _position, _deleted from staging.customers where id = 3 order by _offset") == [
        ("r", [0, 100, 100], False),
        ("d", [0, 119, 120], True),
        ("c", [0, 120, 121], False),
    ]
    project = project_of(tmp_path / "dbt", customers.deployment.settings, customers.dsn, "id, email")
    project.run()
    expected = [
        (1, "newer"),
        (3, "created again"),
        (5, "its change is older, its commit is not"),
        (6, "read again"),
    ]
    assert mart(project, "id, email") == expected

    topic.change("c", 2, 160, "created at last")
    topic.change("u", 3, 119, "sent again")
    topic.change("d", 6, 161)
    topic.send()
    drain_dataset(customers.deployment, "customers")
    project.run()
    assert mart(project, "id, email") == [expected[0], (2, "created at last"), *expected[1:3]]
    customers.execute(MART, CLAIM)
    report = verify(customers.deployment, "customers", deep=True)
    assert report.is_clean, list(report.lines())
    assert report.reports[0].counts["keys of marts.customers equal to staging's"] == 4
