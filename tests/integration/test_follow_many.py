"""Following many datasets: threads and connections do not grow with them, and a failing one stops none."""

import threading
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from headrace.follow import open_sources
from headrace.marts.build import BuildResult
from tests.support import topics
from tests.support.following import Following, until
from tests.support.jobs import servers
from tests.support.stage import Stage
from tests.support.streams import add

DECLARATION = """
from pydantic import BaseModel
from headrace.contract import Integer
from headrace.dataset import Dataset, KafkaTopic, RedisStream

class Thing(BaseModel):
    ID: Integer

DATASET = Dataset(name={name!r}, contract=Thing, source={source})
"""
NAMES = [f"d{number:02}" for number in range(40)]
SECONDS = 200.0


def declare(folder: Path, name: str, source: str) -> None:
    (folder / f"{name}.py").write_text(DECLARATION.format(name=name, source=source))


def counts(stage: Stage) -> list[int]:
    """Rows per dataset; 0 for one without a table."""
    there = {name for (name,) in stage.query("select relname from pg_stat_user_tables where schemaname = 'staging'")}
    named = [name for name in NAMES if name in there]
    if not named:
        return []
    union = " union all ".join(f"select '{name}' as name, count(*) as found from staging.{name}" for name in named)
    return [found for _, found in stage.query(f"{union} order by name")]


def connections(port: int) -> int:
    """Open connections of this process to a port."""
    found = psutil.Process().net_connections(kind="tcp")
    return sum(bool(each.raddr) and each.raddr.port == port and each.status == "ESTABLISHED" for each in found)


def test_follow_of_forty_topics_waits_with_one_client_and_drains_each(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.follow.follower.build", lambda *_, **__: BuildResult(uuid4(), (), 0.0))
    monkeypatch.setattr(open_sources, "OPEN_MAX", 5)
    folder, prefix, at = stage.deployment.settings.datasets_dir, uuid4().hex[:8], servers(stage)
    for name in NAMES:
        declare(folder, name, f"KafkaTopic(topic='{prefix}-{name}')")
    with topics.admin(at) as admin:
        new = {f"{prefix}-{name}": {"num_partitions": 1} for name in NAMES}
        admin.create_topics(new, wait_for_metadata=True)
    declare(folder, "gone", f"KafkaTopic(topic='{prefix}-gone')")  # no such topic
    declare(folder, "same", f"KafkaTopic(topic='{prefix}-{NAMES[0]}')")  # two datasets of one topic
    before, connected = threading.active_count(), connections(int(at.rpartition(":")[2]))
    with Following(stage.deployment, (*NAMES, "gone", "same")) as following:
        known = "select count(*) from headrace.checkpoints"
        until(lambda: stage.value(known) == len(NAMES) + 1 and following.said("no such topic"), SECONDS)
        with topics.producer(at) as producer:  # they are waited for by now, or will be found by the next plan
            for name in NAMES:
                producer.send(f"{prefix}-{name}", b'{"ID": 1}')
            producer.flush()
        until(lambda: counts(stage) == [1] * len(NAMES), SECONDS)
        until(lambda: stage.value("select count(*) from staging.same") == 1, SECONDS)
        # the follower, its leases and commits, a waiter, and five sources; clients have a thread each
        assert threading.active_count() - before <= 5 + 10, threading.enumerate()
        assert connections(int(at.rpartition(":")[2])) - connected <= 2 * (5 + 3)
    assert following.result is not None
    assert list(following.result.failing) == ["gone"]


def test_follow_of_several_streams_waits_with_one_connection_and_is_stopped_by_none(
    telemetry: Stage, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.follow.follower.build", lambda *_, **__: BuildResult(uuid4(), (), 0.0))
    monkeypatch.setattr(open_sources, "OPEN_MAX", 2)
    folder, prefix = telemetry.deployment.settings.datasets_dir, uuid4().hex[:8]
    names = NAMES[:6]
    for name in names:
        declare(folder, name, f"RedisStream(stream='{prefix}-{name}')")
        add(redis_url, f"{prefix}-{name}", [{b"ID": b"0"}])
    with Following(telemetry.deployment, tuple(names)) as following:
        until(lambda: counts(telemetry) == [1] * len(names), SECONDS)
        for name in names[1:]:
            add(redis_url, f"{prefix}-{name}", [{b"ID": b"1"}])
        until(lambda: counts(telemetry) == [1, *[2] * (len(names) - 1)], SECONDS)
        add(redis_url, f"{prefix}-{names[0]}", [{b"ID": b"1"}])
        until(lambda: counts(telemetry) == [2] * len(names), SECONDS)
    assert following.result is not None
    assert following.result.failing == {}
