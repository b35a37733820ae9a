"""Masked fields: no table, topic, log line or command tells their values, and what is stored stays proven."""

import json
import logging
from dataclasses import replace

import confluent_kafka
import pytest

from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, SettingError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.publish.dead_letter_topic import publish
from headrace.repair.fill import fill
from headrace.repair.generations import reset
from headrace.repair.reload import reload_range
from headrace.repair.replay import replay
from headrace.verify import verify
from tests.support import topics
from tests.support.jobs import servers, topic_of
from tests.support.stage import Stage

DECLARATION = """
from typing import Annotated
from pydantic import BaseModel, Field
from headrace.contract import Identifier, Integer, Masked, Text
from headrace.dataset import Dataset, KafkaTopic

class Person(BaseModel):
    email: Annotated[Identifier, Masked("hmac")]
    card: Annotated[Text, Masked("last4")] | None = None
    ssn: Annotated[Text, Masked("drop")] | None = None
    age: Annotated[Integer, Field(ge=0)]

DATASET = Dataset(
    name="people", contract=Person, key="email", source=KafkaTopic(topic="TOPIC", dead_letter_topic="TOPIC_dlq")
)
"""
START, END = "1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z"
TABLES = "^(people|_replaced_people|dead_letters|batches|observations)$"
KEY = "a key of the test's own"
COUNT = 60


def email(n: int) -> str:
    return f"canary-{n}@example.com"


def messages() -> list[topics.Message]:
    """People, every third with a fault of one kind; the last ones' values hold no document."""
    sent: list[topics.Message] = []
    for n in range(COUNT):
        document = {"email": email(n), "card": f"canary-card-{n:06}", "ssn": f"canary-ssn-{n}", "age": n, "more": n}
        key = email(n)
        if n % 3 == 1:
            document["age"] = -n
        if n % 9 == 2:
            key = "canary-key"
        value = json.dumps(document).encode()
        if n % 15 == 5:
            value = value[:-1]
        sent.append((n % 3, key.encode(), None if n % 20 == 19 else value))
    return sent


@pytest.fixture
def people(stage: Stage) -> Stage:
    path = stage.deployment.settings.datasets_dir / "people.py"
    path.write_text(DECLARATION.replace("TOPIC", topic_of(stage)))
    keyed = Stage(Deployment.from_settings(replace(stage.deployment.settings, masking_key=KEY)), stage.dsn)
    initialise(keyed.deployment)
    return keyed


def redeclare(stage: Stage, old: str, new: str) -> None:
    path = stage.deployment.settings.datasets_dir / "people.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def canaries(stage: Stage) -> list[str]:
    """Tables of the database in which a value stands, as text or as bytes."""
    tables = stage.query(
        "select oid::regclass::text from pg_class where relkind = 'r' and relname ~ 'people|letters|bat'"
    )
    found = []
    for (name,) in tables:
        text = stage.value(f"select coalesce(string_agg(t::text, ' '), '') from {name} as t")
        if any(form in text for form in ("canary", b"canary".hex())):
            found.append(name)
    return found


def rows(stage: Stage) -> list[tuple[object, ...]]:
    return stage.query(
        "select _partition, _offset, email, card, ssn, age, _key, _extra, _deleted from staging.people order by 1, 2"
    )


def assert_proven(stage: Stage) -> None:
    report = verify(stage.deployment, "people", deep=True)
    assert report.is_clean, report
    assert canaries(stage) == []


def test_no_value_is_told_by_tables_topics_and_logs(people: Stage, caplog: pytest.LogCaptureFixture) -> None:
    topics.send(servers(people), topic_of(people), messages())

    caplog.set_level(logging.INFO)  # the debug log of a client of Kafka holds all that it receives
    caplog.set_level(logging.DEBUG, logger="headrace")
    drain_dataset(people.deployment, "people")
    publish(people.deployment, people.deployment.dataset("people"))

    assert people.value("select count(*) from headrace.dead_letters where masked is not null and value is null") >= 4
    assert people.value("select count(*) from headrace.dead_letters where value is not null") >= 20
    assert people.value("select count(*) from staging.people") >= 20
    assert [line[:300] for line in caplog.text.splitlines() if "canary" in line] == []
    assert "canary" not in _dead_letter_topic(people)
    assert_proven(people)


def test_replay_reload_and_second_drain_give_the_same_rows(people: Stage) -> None:
    topics.send(servers(people), topic_of(people), messages())
    drain_dataset(people.deployment, "people")
    redeclare(people, "Annotated[Integer, Field(ge=0)]", "Integer")

    done = replay(people.deployment, people.deployment.dataset("people"))
    assert done.passed >= 10
    assert_proven(people)
    replayed = rows(people)
    reload_range(people.deployment, people.deployment.dataset("people"), START, END)
    assert_proven(people)
    assert rows(people) == replayed
    reset(people.deployment, people.deployment.dataset("people"))
    drain_dataset(people.deployment, "people")
    assert rows(people) == replayed


def test_missing_or_other_key_is_refused_before_anything_is_written(people: Stage) -> None:
    topics.send(servers(people), topic_of(people), messages())
    unkeyed = Deployment.from_settings(replace(people.deployment.settings, masking_key=None))
    other = Deployment.from_settings(replace(people.deployment.settings, masking_key=KEY + "!"))

    with pytest.raises(SettingError, match=r"HEADRACE_MASKING_KEY: not set, .* people.email is masked"):
        drain_dataset(unkeyed, "people")
    assert rows(people) == []
    drain_dataset(people.deployment, "people")
    before = rows(people)
    with pytest.raises(DatasetError, match=r"what is staged was masked by [0-9a-f]{16}: equal values would have two"):
        drain_dataset(other, "people")
    with pytest.raises(DatasetError, match="equal values would have two masks"):
        replay(other, other.dataset("people"))
    assert rows(people) == before


def test_field_that_is_masked_later_is_masked_by_fill_and_reload(people: Stage) -> None:
    people.execute("drop table staging.people", "drop table staging._replaced_people")
    redeclare(people, '    card: Annotated[Text, Masked("last4")] | None = None\n', "")
    topics.send(servers(people), topic_of(people), messages())
    drain_dataset(people.deployment, "people")
    assert people.value("select count(*) from staging.people where _extra ->> 'card' ~ 'canary'") > 0
    redeclare(people, "    ssn:", '    card: Annotated[Text, Masked("last4")] | None = None\n    ssn:')

    filled = fill(people.deployment, people.deployment.dataset("people"), "card")

    assert filled.filled > 0
    assert canaries(people) == ["dead_letters"]
    assert people.value("select count(*) from staging.people where card ~ '^\\*{4}\\d{4}$'") == filled.filled
    deep = verify(people.deployment, "people", deep=True)
    assert any("do not mask what the contract of today masks" in note for each in deep.reports for note in each.notes)
    reload_range(people.deployment, people.deployment.dataset("people"), START, END)
    assert_proven(people)


def _dead_letter_topic(stage: Stage) -> str:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": servers(stage), "group.id": "masks", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([f"{topic_of(stage)}_dlq"])
    expected = stage.value("select count(*) from headrace.dead_letters")
    texts: list[str] = []
    while len(texts) < expected:
        message = consumer.poll(10)
        assert message is not None, f"{len(texts)} of {expected} dead letters"
        assert message.error() is None, message.error()
        texts.append(f"{message.key()!r} {message.value()!r} {message.headers()!r}")
    consumer.close()
    return "\n".join(texts)
