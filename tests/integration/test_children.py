"""A dataset whose arrays are exploded: elements are staged exactly once with their record, and proven."""

from base64 import b64encode
from pathlib import Path
from random import Random
from typing import Any

import pytest

from headrace.exceptions import DatasetError
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.repair.generations import reset
from headrace.repair.reload import reload_range
from headrace.repair.replay import replay
from headrace.verify import verify
from tests.support import topics
from tests.support.interrupts import drain, killed_at
from tests.support.jobs import servers, topic_of
from tests.support.ledger_checks import coordinates
from tests.support.orders_with_items import DECLARATION, order
from tests.support.stage import Stage, with_batch_rows


def declare(stage: Stage, text: str = DECLARATION) -> Path:
    path = stage.deployment.settings.datasets_dir / "orders.py"
    path.write_text(text.replace("SOURCE", f"KafkaTopic(topic='{topic_of(stage)}')"))
    initialise(stage.deployment)
    return path


def send(stage: Stage, *values: tuple[int, bytes | None]) -> None:
    messages = [(number % 3, b"%d" % number, value) for number, value in values]
    topics.send(servers(stage), topic_of(stage), messages)


@pytest.fixture
def orders(stage: Stage) -> Stage:
    """Orders 0 to 29 with 0 to 4 items each, every tenth with a bad item; 3 is deleted, 4 is sent again with one."""
    declare(stage)
    values: list[tuple[int, bytes | None]] = [(n, order(n, n % 5)) for n in range(30)]
    for n in range(0, 30, 10):
        values[n] = (n, order(n, 3).replace(b'"quantity": 2', b'"quantity": 0'))
    send(stage, *values, (3, None), (4, order(4, 1)))
    return with_batch_rows(stage, 4)


ELEMENTS = "select _partition, _offset, _index, sku, quantity, price::text from staging.orders__items order by 1, 2, 3"
ELEMENTS_BY_TOPIC = """
select c.topic, c.topic_partition, i._offset, i._index, i.sku
from staging.orders__items as i
inner join headrace.checkpoints as c
    on c.dataset = 'orders' and c.generation = i._generation and c.partition = i._partition
order by c.topic collate "C", 2, 3, 4
"""
EXPECTED = sum(n % 5 for n in range(30) if n % 10) + 1


def assert_proven(stage: Stage) -> None:
    found = verify(stage.deployment, "orders", deep=True)
    assert found.is_clean, "\n".join(line for report in found.reports for line in report.lines())


def test_elements_are_staged_with_their_record_and_proven(orders: Stage) -> None:
    drain_dataset(orders.deployment, "orders")

    assert_proven(orders)
    assert len(orders.query(ELEMENTS)) == EXPECTED
    dead = orders.query("select reason, json_path, detail from headrace.dead_letters")
    assert [row[:2] for row in dead] == [("out_of_range", "$.line_items[1].quantity")] * 3
    assert dead[0][2].startswith("element 1 of line_items: quantity: found 0")
    row = "select id, _extra, _count_items, _count_refunds from staging.orders where id = %s order by _offset"
    assert orders.query(row, 4) == [(4, None, 4, 0), (4, None, 1, 0)]
    assert orders.query(row, 3)[1] == (3, None, None, None)
    item = "select made_at::text, tags::text, _extra from staging.orders__items where sku = 's1-0'"
    (found,) = orders.query(item)
    assert found[0].startswith("2026-01-02 02:04:05.678901")
    assert found[1:] == ('[1.1, {"a": "\\\\"}]', {"price_set": {"code": "EUR"}})
    sums = "select sum((elements ->> 'items')::int), sum((elements ->> 'refunds')::int) from headrace.batches"
    assert orders.query(sums) == [(EXPECTED, 15)]


def test_drain_killed_between_the_rows_and_their_elements_loses_and_doubles_nothing(orders: Stage) -> None:
    killed_at("rows_copied", _drain_after_one_batch, orders)

    assert orders.value("select count(*) from headrace.batches where dataset = 'orders'") == 1
    assert_proven(orders)
    drain_dataset(orders.deployment, "orders")
    assert_proven(orders)
    assert len(orders.query(ELEMENTS)) == EXPECTED
    assert len(coordinates(orders, "orders")) == len(set(coordinates(orders, "orders"))) == 32


def test_elements_of_several_topics_are_staged_once_with_the_record_of_their_topic(stage: Stage) -> None:
    prefix = f"{topic_of(stage)}_"
    path = stage.deployment.settings.datasets_dir / "orders.py"
    text = DECLARATION.replace("File, KafkaTopic", "KafkaTopics")
    path.write_text(text.replace("SOURCE", f"KafkaTopics(pattern='{prefix}.*')"))
    regions = {"eu": range(40), "us": range(100, 120)}
    for region, numbers in regions.items():
        topics.create(servers(stage), prefix + region, 2)
        topics.send(servers(stage), prefix + region, [(n % 2, b"%d" % n, order(n, n % 3)) for n in numbers])
    initialise(stage.deployment)
    killed_at("rows_copied", _drain_after_one_batch, with_batch_rows(stage, 4))
    drain_dataset(stage.deployment, "orders")
    assert_proven(stage)
    assert stage.query(ELEMENTS_BY_TOPIC) == sorted(
        (prefix + region, n % 2, place // 2, index, f"s{n}-{index}")
        for region, numbers in regions.items()
        for place, n in enumerate(numbers)
        for index in range(n % 3)
    )


def _drain_after_one_batch(stage: Stage, *, barrier: Any) -> None:
    seen: list[str] = []

    def second(name: str) -> None:
        seen.append(name)
        if seen.count("rows_copied") == 2:
            barrier(name)

    drain(stage, second, "orders")


def test_replay_and_reload_take_the_elements_along(orders: Stage) -> None:
    path = orders.deployment.settings.datasets_dir / "orders.py"
    drain_dataset(orders.deployment, "orders")
    path.write_text(path.read_text().replace("Field(ge=1)", "Field(ge=-1)"))

    assert replay(orders.deployment, orders.deployment.dataset("orders")).passed == 3
    assert_proven(orders)
    before = orders.query(ELEMENTS)
    assert len(before) == EXPECTED + 9

    orders.execute(
        "update staging.orders__items set sku = 'wrong' where _index = 0",
        "delete from staging.orders__items where sku = 's7-1'",
        "update staging.orders__items set _index = 9 where sku = 's8-2'",
    )
    found = verify(orders.deployment, "orders")
    lines = "\n".join(line for report in found.reports for line in report.lines())
    assert "elements: found 1 rows in staging.orders__items, with _index 0 to 0, expected 2, as its row" in lines
    assert "with _index 0 to 9, expected 3" in lines
    deep = verify(orders.deployment, "orders", deep=True)
    assert any("hashes" in line and "orders__items" in line for line in deep.reports[0].lines())

    path.write_text(path.read_text().replace("Field(ge=-1)", "Field(ge=1)"))
    reload_range(orders.deployment, orders.deployment.dataset("orders"), "1970-01-01", "2100-01-01")
    assert_proven(orders)
    assert len(orders.query(ELEMENTS)) == EXPECTED
    assert set(orders.query(ELEMENTS)) < set(before)
    assert orders.value("select count(*) from staging._replaced_orders__items where sku = 'wrong'") > 0


def test_elements_that_postgres_refuses_reject_their_record(orders: Stage) -> None:
    # 3,000 characters that do not compress are beyond a btree's page
    orders.execute("create index refunds_note on staging.orders__refunds (note)")
    note = b64encode(Random(1).randbytes(3_000)).decode()
    refunds = [{"amount": 1}, {"amount": 2, "note": note}]
    send(orders, (101, order(101, 2, refunds=refunds)), (103, order(103, 2)))
    drain_dataset(orders.deployment, "orders")

    found = orders.query("select key, detail from headrace.dead_letters where reason = 'rejected_by_postgres'")
    assert [key for key, _ in found] == [b"101"]
    assert "exceeds btree version 4 maximum" in found[0][1]
    assert orders.value("select count(*) from staging.orders__items where sku like 's101-%%'") == 0
    assert_proven(orders)


def test_a_child_that_is_declared_later_or_grows(stage: Stage) -> None:
    without = DECLARATION.replace("    children=(", "    children=(), ) if True else dict(children=(")
    path = declare(stage, without)
    send(stage, (1, order(1, 2)), (2, order(2, 0)))
    drain_dataset(stage.deployment, "orders")
    assert_proven(stage)

    declare(stage)
    send(stage, (4, order(4, 1)))
    drain_dataset(stage.deployment, "orders")
    assert stage.query("select id, _count_items from staging.orders order by 1") == [(1, None), (2, None), (4, 1)]
    found = verify(stage.deployment, "orders", deep=True)
    assert found.is_clean
    assert any("before the contract named a field" in note for note in found.reports[0].notes)

    reload_range(stage.deployment, stage.deployment.dataset("orders"), "1970-01-01", "2100-01-01")
    assert stage.value("select count(*) from staging.orders__items") == 3
    assert stage.value("select count(*) from staging.orders where _extra is not null") == 0
    path.write_text(path.read_text().replace("    tags:", "    size: Text | None = None\n    tags:"))
    initialise(stage.deployment)
    assert_proven(stage)

    stage.execute("drop table staging.orders__refunds")
    with pytest.raises(DatasetError, match=r"orders__refunds: found no table, expected the 1 rows"):
        drain_dataset(stage.deployment, "orders")
    reset(stage.deployment, stage.deployment.dataset("orders"))
    assert stage.value("select count(*) from staging.orders__items") == 0
    drain_dataset(stage.deployment, "orders")
    assert_proven(stage)
    assert stage.value("select count(*) from staging.orders__items") == 3
