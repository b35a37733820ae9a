"""Many datasets planned together: what it costs, and what one that is wrong leaves undisturbed."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient
from psycopg import Connection

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import HeadraceError
from headrace.ingest import runner
from headrace.ingest.packs import drain_pack
from headrace.ingest.plans import Plans, plan_together
from headrace.ingest.runner import RunOptions
from headrace.postgres.ledger import RunContext
from headrace.sources import kafka
from tests.support import topics
from tests.support.jobs import jobs, servers
from tests.support.stage import Stage

RUN = RunContext(dag_id="ingest_shop", run_id="r", task_id="plan", try_number=1)
NAMES = [f"shop_{n:02}" for n in range(14)]
BUSY, PAUSED = NAMES[2:5], NAMES[6]
GONE, RECREATED, GROWN, CHANGED, ABSENT = NAMES[9:]


@pytest.fixture
def shop(stage: Stage, topic: str) -> Stage:
    """NAMES, each with a topic of its own of 12 jobs, all drained; the topic of ABSENT does not exist."""
    folder = stage.deployment.settings.datasets_dir
    text = (folder / "jobs.py").read_text()
    for name in NAMES:
        own = text.replace('name="jobs"', f'name="{name}", dag="shop"').replace(topic, _topic(topic, name))
        (folder / f"{name}.py").write_text(own)
    with topics.admin(servers(stage)) as admin:
        admin.create_topics({_topic(topic, name): {"num_partitions": 3} for name in NAMES if name != ABSENT})
        admin.wait_for_topics([_topic(topic, name) for name in NAMES if name != ABSENT])
    send(stage, topic, [name for name in NAMES if name != ABSENT], 12)
    found = plan_together(stage.deployment, declared(stage), RUN)  # the first contacts, one by one
    assert (found.errors, found.absent, len(found.plans)) == ({}, [ABSENT], len(NAMES) - 1)
    assert drain(stage, found) == dict.fromkeys(sorted(set(NAMES) - {ABSENT}), 12)
    return stage


def _topic(topic: str, name: str) -> str:
    return f"{topic}-{name}"


def declared(stage: Stage) -> list[Dataset]:
    return [stage.deployment.dataset(name) for name in NAMES]


def send(stage: Stage, topic: str, names: list[str], count: int) -> None:
    with topics.producer(servers(stage)) as producer:
        for name in names:
            for partition, key, value in jobs(count):
                producer.send(_topic(topic, name), partition=partition, key=key, value=value)
        producer.flush()


def drain(stage: Stage, found: Plans) -> dict[str, int]:
    packs = found.packs(stage.deployment.settings)
    done = [drain_pack(lambda n: (stage.deployment, stage.deployment.dataset(n)), pack, RunOptions()) for pack in packs]
    assert [each.errors for each in done] == [{}] * len(done)
    return {each.dataset: each.staged for result in done for each in sorted(result.drained, key=lambda d: d.dataset)}


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often Kafka's admin clients were made, and what they were asked."""
    asked: Counter[str] = Counter()

    class Counting(KafkaAdminClient):  # type: ignore[misc]
        def __init__(self, **config: Any) -> None:
            asked["clients"] += 1
            super().__init__(**config)

    for name in ("describe_cluster", "describe_topics", "list_partition_offsets"):
        monkeypatch.setattr(Counting, name, _counted(getattr(KafkaAdminClient, name), name, asked), raising=False)
    monkeypatch.setattr(kafka, "KafkaAdminClient", Counting)
    return asked


def _counted(method: Callable[..., Any], name: str, asked: Counter[str]) -> Callable[..., Any]:
    def counted(*arguments: Any, **named: Any) -> Any:
        asked[name] += 1
        return method(*arguments, **named)

    return counted


def counting(deployment: Deployment) -> tuple[Deployment, Counter[str]]:
    """The deployment, and the connections and statements that it makes."""
    used: Counter[str] = Counter()

    def connect(application: str) -> Callable[[], Connection[Any]]:
        def opened() -> Connection[Any]:
            used["connections"] += 1
            connection = deployment.connect(application)()
            execute = connection.execute
            connection.execute = _counted(execute, "statements", used)  # type: ignore[method-assign]
            return connection

        return opened

    return replace(deployment, connect=connect), used


def test_planning_many_datasets_asks_postgres_and_the_broker_once_for_all(
    shop: Stage, topic: str, requests: Counter[str]
) -> None:
    usable = [dataset for dataset in declared(shop) if dataset.name != ABSENT]
    deployment, used = counting(shop.deployment)
    found = plan_together(deployment, usable, RUN)
    assert (found.plans, found.errors, sorted(found.idle)) == ([], {}, sorted(each.name for each in usable))
    assert requests == {"clients": 1, "describe_cluster": 1, "describe_topics": 1, "list_partition_offsets": 3}
    assert used["connections"] == 1
    idle = used["statements"]
    used.clear()
    plan_together(deployment, usable[:2], RUN)
    assert used["statements"] == idle <= 9  # as many for thirteen datasets as for two
    send(shop, topic, BUSY, 9)
    found = plan_together(deployment, usable, RUN)
    assert [(each.dataset, each.lag) for each in found.plans] == [(name, 9) for name in BUSY]
    assert found.plans == [runner.plan(shop.deployment, shop.deployment.dataset(name)) for name in BUSY]
    assert drain(shop, found) == dict.fromkeys(BUSY, 9)
    seen = dict(shop.query("select dataset, sum(end_offset)::int from headrace.observations group by dataset"))
    assert seen == {name: 12 + 9 * (name in BUSY) for name in NAMES if name != ABSENT}


def test_datasets_that_are_wrong_are_named_and_stop_none_of_the_others(
    shop: Stage, topic: str, requests: Counter[str]
) -> None:
    send(shop, topic, [*BUSY, CHANGED, PAUSED], 3)
    for name in (GONE, RECREATED):
        topics.delete(servers(shop), _topic(topic, name))
    topics.create(servers(shop), _topic(topic, RECREATED), 3)
    with topics.admin(servers(shop)) as admin:
        admin.create_partitions({_topic(topic, GROWN): 4})
    shop.execute(f"insert into headrace.pauses (dataset, paused_by, why) values ('{PAUSED}', 'a', 'b')")
    _change(shop.deployment.settings.datasets_dir / f"{CHANGED}.py")
    found = plan_together(shop.deployment, declared(shop), RUN)
    assert [each.dataset for each in found.plans] == BUSY
    assert sorted(found.idle) == sorted({*NAMES} - {*BUSY, GONE, RECREATED, CHANGED, ABSENT, PAUSED})
    assert (found.absent, found.paused) == ([ABSENT], [PAUSED])
    assert shop.value("select count(*) from headrace.checkpoints where dataset = %s", GROWN) == 4
    stored = dict(shop.query("select distinct dataset, error from headrace.observations where error is not null"))
    assert stored == {name: " ".join(str(error).split()) for name, error in found.errors.items()}
    assert sorted(stored) == [GONE, RECREATED, CHANGED]
    for name, expected in ((GONE, "no such topic"), (RECREATED, "it was deleted and created again")):
        assert expected in stored[name]
        with pytest.raises(HeadraceError) as alone:
            runner.plan(shop.deployment, shop.deployment.dataset(name), run=RUN)
        assert str(alone.value) == str(found.errors[name])
    assert "location" in stored[CHANGED]


def _change(path: Path) -> None:
    """A change of the contract that the staging table does not allow."""
    text = path.read_text()
    assert "LOCATION: Text" in text
    path.write_text(text.replace("LOCATION: Text", "LOCATION: Integer"))


def test_broker_that_is_down_is_asked_once_and_noted_for_every_dataset(
    shop: Stage, closed_port: int, requests: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "BOOTSTRAP_TIMEOUT_MS", 300)
    down = replace(shop.deployment, kafka=lambda: {"bootstrap_servers": f"127.0.0.1:{closed_port}"})
    found = plan_together(down, declared(shop), RUN)
    assert requests["clients"] == 1
    assert sorted(found.errors) == NAMES
    assert {str(error) for error in found.errors.values()} == {str(found.errors[NAMES[0]])}
    assert "did not answer" in str(found.errors[NAMES[0]])
    errors = dict(shop.query("select distinct dataset, error from headrace.observations"))
    assert errors == {name: str(error) for name, error in found.errors.items()}
    assert plan_together(shop.deployment, declared(shop), RUN).errors == {}
    # also of ABSENT: the cause is over for all
    assert shop.query("select distinct dataset from headrace.observations where error is not null") == []
