"""One dataset from several topics, against a real broker: what appears, is killed, is created again, is lost."""

import signal
from collections.abc import Iterable
from contextlib import closing
from itertools import count, islice

import psycopg
import pytest
from confluent_kafka import Producer

from headrace.command import Command
from headrace.exceptions import CheckpointMoved, DatasetError, SourceChanged, TopicMissing
from headrace.ingest.opening import open_source
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.ingest.runner import plan
from headrace.monitor.status import read_status
from headrace.postgres.checkpoints import advance
from headrace.postgres.dead_letter_pages import overview
from headrace.postgres.ledger import LedgerKind, LedgerLine, new_batch_id
from headrace.repair.generations import accept_loss, adopt, preview_adopt
from headrace.repair.reload import reload_range
from headrace.sources.base import assign
from headrace.verify import verify
from tests.support import topics
from tests.support.interrupts import drain_that_gets
from tests.support.jobs import servers, topic_of
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage, with_batch_rows

DECLARATION = """
from pydantic import BaseModel
from headrace.contract import Integer, Text
from headrace.dataset import Dataset, KafkaTopics

class Order(BaseModel):
    id: Integer
    region: Text

DATASET = Dataset(name="orders", contract=Order, key="id", source=KafkaTopics({source}))
"""
STORED = """
select c.topic, c.topic_id, c.topic_partition, s._partition, s._offset, s.id
from staging.orders as s
inner join headrace.checkpoints as c
    on c.dataset = 'orders' and c.generation = s._generation and c.partition = s._partition
order by 6
"""


class Regions:
    """Topics of one prefix, a producer of another client, and what it sent."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.prefix = f"{topic_of(stage)}_"
        self.sent: dict[int, tuple[str, int, int]] = {}  # by id: the topic, its partition and the offset
        self._ids = count(1)
        self._producer = Producer({"bootstrap.servers": servers(stage)})

    def create(self, region: str, partitions: int) -> str:
        topics.create(servers(self.stage), self.prefix + region, partitions, retention_ms="-1")
        return self.prefix + region

    def declare(self, source: str) -> None:
        path = self.stage.deployment.settings.datasets_dir / "orders.py"
        path.write_text(DECLARATION.format(source=source))
        initialise(self.stage.deployment)

    def send(self, region: str, records: int, partitions: int) -> list[int]:
        """Send valid orders, in turn to the partitions; remember where the broker put them, and return their ids."""
        ids = list(islice(self._ids, records))
        for n in ids:

            def delivered(error: object, message: object, n: int = n) -> None:
                assert error is None, error
                self.sent[n] = (message.topic(), message.partition(), message.offset())  # type: ignore[attr-defined]

            value = f'{{"id": {n}, "region": "{region}"}}'
            topic, partition = self.prefix + region, n % partitions
            self._producer.produce(topic, value, str(n), partition=partition, on_delivery=delivered)
        assert self._producer.flush(60) == 0
        return ids

    def spoil(self, region: str, partition: int) -> None:
        """Send a value that is no JSON."""
        self._producer.produce(self.prefix + region, "no JSON", partition=partition)
        assert self._producer.flush(60) == 0

    def forget(self, ids: Iterable[int]) -> None:
        """Do not expect records that the broker lost before they were read."""
        for n in list(ids):
            del self.sent[n]

    def assert_whole(self, *, is_reloaded: bool = False) -> None:
        """Every record that was sent is staged once, under its topic's partition and its offset; verify says so too."""
        stored = self.stage.query(STORED)
        assert {row[5]: (row[0], row[2], row[4]) for row in stored} == self.sent
        assert len(stored) == len(self.sent)
        if not is_reloaded:  # then rows have other batches than those that read them first
            assert_ledger(self.stage, dataset="orders")
        report = verify(self.stage.deployment, "orders", deep=True)
        assert report.is_clean, list(report.lines())

    def numbers(self) -> dict[int, tuple[str, int, bool]]:
        """The dataset's partitions: region, the topic's partition, whether it is closed."""
        rows = self.stage.query(
            "select partition, topic, topic_partition, is_closed from headrace.checkpoints where dataset = 'orders'"
        )
        return {row[0]: (row[1].removeprefix(self.prefix), row[2], row[3]) for row in rows}


@pytest.fixture
def regions(stage: Stage) -> Regions:
    """Topics eu and us of 2 and 3 partitions, and the dataset of their pattern, in batches of 20."""
    made = Regions(with_batch_rows(stage, 20))
    made.create("eu", 2)
    made.create("us", 3)
    made.declare(f'pattern="{made.prefix}.*"')
    return made


FIRST = {0: ("eu", 0, False), 1: ("eu", 1, False), 2: ("us", 0, False), 3: ("us", 1, False), 4: ("us", 2, False)}


def test_topics_of_a_pattern_are_read_once_and_those_that_come_later_too(regions: Regions) -> None:
    stage, deployment = regions.stage, regions.stage.deployment
    regions.send("eu", 100, 2)
    regions.send("us", 90, 3)
    with drain_that_gets(signal.SIGKILL, "committed", stage, "orders") as process:
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    assert 0 < stage.value("select count(*) from staging.orders") < 190
    drain_dataset(deployment, "orders", parallel=2)
    regions.assert_whole()
    assert regions.numbers() == FIRST

    asia = regions.create("asia", 1)  # before the others by its name
    lost = regions.send("asia", 5, 1)[:2]
    topics.delete_records(servers(stage), asia, {0: 2})
    regions.forget(lost)
    regions.send("us", 10, 3)
    planned, result = drain_dataset(deployment, "orders")
    assert f"[5] {asia}[0] 5" in result.summary(planned)
    assert regions.numbers() == FIRST | {5: ("asia", 0, False)}
    regions.assert_whole()

    us = f"{regions.prefix}us"
    regions.spoil("us", 1)
    drain_dataset(deployment, "orders")
    reload_range(deployment, deployment.dataset("orders"), "1970-01-01T00:00:00Z", "2100-01-01T00:00:00Z")
    regions.assert_whole(is_reloaded=True)
    (status,) = (each for each in read_status(deployment.connect("test")).datasets if each.dataset == "orders")
    assert [each.label for each in status.partitions][3:] == [f"[3] {us}[1]", f"[4] {us}[2]", f"[5] {asia}[0]"]
    with psycopg.connect(stage.dsn) as connection:
        found = overview(connection, "orders", None, 5)
    assert [line.topic for line in found.newest] == [f"{us}[1]"]
    with pytest.raises(DatasetError, match=rf"expected --partition, one of 0 \({regions.prefix}eu\[0\]\), 1 "):
        reload_range(deployment, deployment.dataset("orders"), "0", "5")


def test_topic_that_is_created_again_is_adopted_alone(regions: Regions) -> None:
    stage, deployment, us = regions.stage, regions.stage.deployment, f"{regions.prefix}us"
    orders = deployment.dataset("orders")
    regions.send("eu", 30, 2)
    regions.send("us", 30, 3)
    drain_dataset(deployment, "orders")
    lost = regions.send("us", 4, 3)
    unread = plan(deployment, orders)
    topics.delete(servers(stage), us)
    regions.create("us", 1)
    regions.forget(lost)
    regions.send("us", 7, 1)
    regions.send("eu", 6, 2)
    with pytest.raises(SourceChanged, match=f"topic {us} has id .* deleted and created again; at risk: {us}") as caught:
        drain_dataset(deployment, "orders")
    assert caught.value.command == Command("adopt", "orders")
    with closing(open_source(deployment, orders)) as source:
        assign(source, unread.origins)
        assert source.topic_id() != unread.topic_id  # what a drain compares before each commit
    assert [finding.check for finding in verify(deployment, "orders").findings] == ["source"]
    effects = preview_adopt(deployment, orders)
    assert effects[1:] == [
        *(f"orders[{2 + part}] ({us}[{part}]): closed at 10; 10 rows stay" for part in range(3)),
        f"orders[5] ({us}[0]): reads [0, 7)",
    ]
    assert adopt(deployment, orders) == 1
    with pytest.raises(DatasetError, match="unchanged since generation 1 read it"):
        adopt(deployment, orders)
    with pytest.raises(CheckpointMoved, match="the partition is closed"), psycopg.connect(stage.dsn) as connection:
        advance(connection, old_line())
    drain_dataset(deployment, "orders")
    closed = {number: (region, part, region == "us") for number, (region, part, _) in FIRST.items()}
    assert regions.numbers() == closed | {5: ("us", 0, False)}
    regions.assert_whole()

    topics.delete(servers(stage), us)
    with pytest.raises(SourceChanged, match=f"topic {us} is gone, or the declaration does not name it any more"):
        drain_dataset(deployment, "orders")
    adopt(deployment, orders)
    regions.send("eu", 2, 2)
    drain_dataset(deployment, "orders")
    regions.assert_whole()


def old_line() -> LedgerLine:
    """A batch that was read before its topic was created again."""
    return LedgerLine(
        batch_id=new_batch_id(),
        dataset="orders",
        generation=1,
        partition=2,
        start_offset=10,
        end_offset=11,
        kind=LedgerKind.DRAIN,
    )


def test_topics_of_a_list(regions: Regions) -> None:
    stage, deployment, prefix = regions.stage, regions.stage.deployment, regions.prefix
    regions.declare(f'topics=("{prefix}eu", "{prefix}asia")')
    with pytest.raises(TopicMissing, match=f"{prefix}asia: no such topic"):
        drain_dataset(deployment, "orders")
    regions.declare(f'topics=("{prefix}us", "{prefix}eu")')
    regions.send("eu", 4, 2)
    regions.send("us", 6, 3)
    drain_dataset(deployment, "orders")
    regions.create("asia", 1)
    regions.send("asia", 3, 1)
    regions.declare(f'topics=("{prefix}asia",    "{prefix}us", "{prefix}eu")')
    drain_dataset(deployment, "orders")
    assert regions.numbers() == FIRST | {5: ("asia", 0, False)}
    assert stage.query("select generation, topic from headrace.generations where dataset = 'orders'") == [
        (1, f"{prefix}asia, {prefix}us, {prefix}eu")
    ]
    regions.assert_whole()
    lost = regions.send("us", 6, 3)
    topics.delete_records(servers(stage), f"{prefix}us", {1: 3})
    with pytest.raises(SourceChanged, match=rf"orders\[3\] \({prefix}us\[1\]\): retention overtook") as caught:
        drain_dataset(deployment, "orders")
    assert caught.value.command == Command("accept-loss", "orders", "--partition", 3, "--to", 3)
    assert accept_loss(deployment, deployment.dataset("orders"), 3, 3) == (2, 3)
    regions.forget(n for n in lost if regions.sent[n] == (f"{prefix}us", 1, 2))
    drain_dataset(deployment, "orders")
    regions.assert_whole()
