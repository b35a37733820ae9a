"""Following: records reach staging and marts without a command; an error is reported once and retried."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError, SettingError
from headrace.follow.follower import follow
from headrace.follow.leases import held_lease
from headrace.ingest.runner import drain_plan
from headrace.marts.build import BuildResult, build
from headrace.publish.publishers import open_publisher
from headrace.repair.generations import adopt
from headrace.settings import Settings
from tests.support import topics
from tests.support.following import Following, until
from tests.support.ledger_checks import environment
from tests.support.stage import Stage

HEADRACE = str(Path(sys.executable).with_name("headrace"))


def send(stage: Stage, *numbers: int) -> None:
    with open_publisher(stage.deployment, stage.deployment.dataset("jobs")) as publisher:
        for number in numbers:
            publisher.send(
                b'%d|{"JOBIDENTIFIER":%d,"JOBCREATEDATE":"2026-01-01 10:00:00","JOBDATE":"2026-01-01 11:00:00",'
                b'"JOBSTATUS":"SUCCESS","LOCATION":"A","REVENUE":1.5,"SERVICENAME":"S","USERID":1}' % (number, number)
            )


def staged(stage: Stage) -> int:
    return int(stage.value("select count(*) from staging.jobs"))


KEPT = ("users", "jobs", "jobs_per_minute", "stg_files__users", "stg_kafka__jobs", "__sources")


@pytest.fixture
def ready(stage: Stage, tmp_path: Path) -> Stage:
    """The topic has a record; the dbt project is cut down to some models, because a first build takes so long."""
    settings = replace(stage.deployment.settings, dbt_dir=tmp_path / "dbt")
    shutil.copytree(Settings().dbt_dir, settings.dbt_dir, ignore=shutil.ignore_patterns("target", "logs", "functions"))
    (settings.dbt_dir / "functions").mkdir()
    for path in [*settings.dbt_dir.glob("models/**/*.*"), *settings.dbt_dir.glob("tests/*.sql")]:
        if path.stem not in KEPT:
            path.unlink()
    send(stage, 0)
    return replace(stage, deployment=Deployment.from_settings(settings))


@pytest.fixture
def no_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of draining: a first build takes ten seconds."""
    nothing_to_build = BuildResult(uuid4(), (), 0.0)
    monkeypatch.setattr("headrace.follow.follower.build", lambda *_, **__: nothing_to_build)


@pytest.fixture
def frequent_rechecks(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that wait for the second check of all datasets, which comes after 15 s."""
    monkeypatch.setattr("headrace.follow.follower.RECHECK_S", 3.0)


@pytest.mark.usefixtures("no_builds")
def test_second_follower_stands_back_until_the_lease_lapses(ready: Stage) -> None:
    with Following(ready.deployment):
        until(lambda: held_lease(ready.deployment, "jobs"))
        until(lambda: staged(ready) == 1)
        with Following(ready.deployment) as second:
            send(ready, 1)
            until(lambda: staged(ready) == 2)
        assert second.result is not None
        assert second.result.records == 0
    # one that was killed gives nothing back: what is left of it lapses
    ready.execute(
        "insert into headrace.leases (dataset, holder, holder_name, lapses_at) "
        "values ('jobs', gen_random_uuid(), 'gone', clock_timestamp() - interval '1 s')"
    )
    send(ready, 2)
    with Following(ready.deployment):
        until(lambda: staged(ready) == 3)


@pytest.mark.usefixtures("no_builds", "frequent_rechecks")
def test_follow_without_a_broker_says_so_once_and_goes_on_when_it_is_back(ready: Stage) -> None:
    config = {**ready.deployment.kafka(), "bootstrap_servers": ["127.0.0.1:9"]}
    deployment = replace(ready.deployment, kafka=lambda: config)
    with Following(deployment) as following:
        until(lambda: following.said("kafka: 127.0.0.1:9 did not answer"))
        time.sleep(4)
        assert following.said("did not answer") == 1
        config.update(ready.deployment.kafka())
        until(lambda: staged(ready) == 1)
        until(lambda: following.said("jobs: continues"))


@pytest.mark.usefixtures("no_builds", "frequent_rechecks")
def test_follow_stores_errors_of_its_settings_and_finds_the_key_of_masks(ready: Stage) -> None:
    declared = ready.deployment.settings.datasets_dir / "jobs.py"
    masked = declared.read_text().replace("SERVICENAME: Text", 'SERVICENAME: Annotated[Text, Masked("hmac")]')
    declared.write_text(masked.replace("import Integer,", "import Integer, Masked,"))
    is_renewed = threading.Event()
    stored = "select count(*) from headrace.observations where dataset = 'jobs' and error ~ 'c.pem has expired'"

    def kafka() -> Mapping[str, Any]:
        if not is_renewed.is_set():
            raise SettingError("HEADRACE_KAFKA_SSL_CERTFILE: c.pem has expired")
        return ready.deployment.kafka()

    settings = replace(ready.deployment.settings, masking_key="a key of the test's own")
    with Following(replace(ready.deployment, settings=settings, kafka=kafka)) as following:
        until(lambda: following.said("c.pem has expired"))
        until(lambda: ready.value(stored))
        is_renewed.set()
        until(lambda: following.said("jobs: continues"))
    assert ready.value("select servicename from staging.jobs") != "S"
    assert not ready.value(stored)


@pytest.mark.usefixtures("no_builds")
def test_follow_of_a_topic_that_was_recreated_waits_for_adopt(ready: Stage, topic: str) -> None:
    with Following(ready.deployment) as following:
        until(lambda: staged(ready) == 1)
        servers = ready.deployment.settings.require_kafka_bootstrap_servers()
        topics.delete(servers, topic)
        topics.create(servers, topic, 3)
        send(ready, 1, 2)
        until(lambda: following.said("`headrace adopt jobs`"))
        time.sleep(2)
        assert following.said("`headrace adopt jobs`") == 1
        adopt(ready.deployment, ready.deployment.dataset("jobs"))
        until(lambda: staged(ready) == 3, 60)


@pytest.mark.usefixtures("no_builds")
def test_follow_leaves_out_a_declaration_that_cannot_be_used_until_it_is_corrected(
    ready: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.follow.follower.RECHECK_S", 0.5)
    folder = ready.deployment.settings.datasets_dir
    text = (folder / "jobs.py").read_text().replace('name="jobs"', 'name="jobs_2"')
    (folder / "jobs_2.py").write_text(text.replace("import", "imprt", 1))
    (folder / "users.py").write_text(
        "def broken(:\nDATASET = Dataset(source=File(path='x'))"
    )  # a file's is not followed
    with Following(ready.deployment, ()) as following:
        until(lambda: staged(ready) == 1)
        assert following.said("jobs_2.py: cannot be imported: SyntaxError") == 1
        assert following.said("users.py") == 0
        send(ready, 1)
        until(lambda: staged(ready) == 2)
        (folder / "jobs_2.py").write_text(text)
        until(lambda: following.said("jobs_2: continues"))
        until(lambda: ready.value("select to_regclass('staging.jobs_2') is not null"))
        until(lambda: ready.value("select count(*) from staging.jobs_2") == 2)
    assert following.result is not None
    assert following.result.failing == {}


def test_follow_of_nothing_but_a_broken_declaration_is_refused(stage: Stage) -> None:
    (stage.deployment.settings.datasets_dir / "jobs.py").write_text("def broken(:")
    for names in ((), ("jobs",)):
        with pytest.raises(DatasetError, match=r"jobs\.py: cannot be imported: SyntaxError"):
            follow(stage.deployment, names, stop=threading.Event())
    with pytest.raises(DatasetError, match="dataset 'jobz': not declared"):
        follow(stage.deployment, ("jobs", "jobz"), stop=threading.Event())


@pytest.mark.usefixtures("no_builds")
def test_follow_publishes_dead_letters(ready: Stage, topic: str) -> None:
    declared = ready.deployment.settings.datasets_dir / "jobs.py"
    wanted = f'topic="{topic}"'
    declared.write_text(declared.read_text().replace(wanted, f'{wanted}, dead_letter_topic="{topic}_dlq"'))
    with Following(ready.deployment):
        until(lambda: staged(ready) == 1)
        with open_publisher(ready.deployment, ready.deployment.dataset("jobs")) as publisher:
            publisher.send(b"1|no JSON")
        until(lambda: ready.value("select count(*) from headrace.dead_letters where published_at is not null") == 1)


@pytest.mark.usefixtures("no_builds")
def test_follow_goes_on_with_other_datasets_when_one_raises_an_unexpected_error(
    ready: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ready.deployment.settings.datasets_dir
    (folder / "jobs_2.py").write_text((folder / "jobs.py").read_text().replace('name="jobs"', 'name="jobs_2"'))

    def fail_for_one(deployment: Deployment, dataset: Dataset, *arguments: Any, **options: Any) -> Any:
        if dataset.name == "jobs":
            raise IndexError("list index\nout of range")
        return drain_plan(deployment, dataset, *arguments, **options)

    monkeypatch.setattr("headrace.follow.follower.drain_plan", fail_for_one)
    with Following(ready.deployment, ("jobs", "jobs_2")) as following:
        until(lambda: following.said("jobs: IndexError: list index out of range"))
        until(lambda: ready.value("select to_regclass('staging.jobs_2') is not null"))
        until(lambda: ready.value("select count(*) from staging.jobs_2") == 1)
    assert following.result is not None
    assert list(following.result.failing) == ["jobs"]


@contextmanager
def command(stage: Stage, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(
        [HEADRACE, "follow", *arguments],
        env=environment(stage.deployment.settings) | {"HEADRACE_DBT_DIR": str(stage.deployment.settings.dbt_dir)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


SLEEPING = "select from pg_stat_activity where state = 'active' and query ~ 'pg_sleep' and pid <> pg_backend_pid()"


@pytest.mark.parametrize("reached", ["select from headrace.builds", SLEEPING], ids=["waiting", "building"])
def test_follow_command_ends_on_a_signal_long_before_its_build_and_gives_its_leases_back(
    ready: Stage, reached: str
) -> None:
    if reached == SLEEPING:
        models = ready.deployment.settings.dbt_dir / "models" / "marts"
        (models / "slept.sql").write_text("{{ config(materialized='table') }} select pg_sleep(60)::text as slept")
    with command(ready, "jobs") as process:
        until(lambda: ready.query(reached), 60)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        output, _ = process.communicate(timeout=90)
        assert time.monotonic() - began < 30  # 2 to 4 s
        assert process.returncode == 0, output
        assert "followed for" in output
        assert ("build: interrupted" in output) == (reached == SLEEPING)
    assert held_lease(ready.deployment, "jobs") is None
    assert not ready.query(SLEEPING)


def test_follow_command_that_is_killed_keeps_its_lease_until_it_lapses(ready: Stage) -> None:
    with command(ready, "jobs") as process:
        until(lambda: held_lease(ready.deployment, "jobs"), 60)
        process.kill()
        process.wait()
    lease = held_lease(ready.deployment, "jobs")
    assert lease is not None
    assert ready.value("select %s <= clock_timestamp() + interval '15 s'", lease.lapses_at)


@pytest.mark.usefixtures("frequent_rechecks")
def test_model_that_does_not_build_is_said_once_and_holds_up_no_other_dataset(ready: Stage) -> None:
    models = ready.deployment.settings.dbt_dir / "models" / "marts"
    (models / "jobs_per_minute.sql").write_text("select 1 / (jobs.userid - 1) as minute from {{ ref('jobs') }} as jobs")
    with Following(ready.deployment) as following:
        until(lambda: following.said("division by zero"), 60)
        send(ready, 1, 2)
        until(lambda: ready.value("select count(*) from marts.jobs") == 3, 60)
        assert following.said("division by zero") == 1
    assert following.result is not None
    assert list(following.result.failing) == ["build"]


def test_models_that_read_others_are_built_meanwhile_and_at_the_end(
    ready: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    selections: list[Any] = []

    def build_and_note(settings: Settings, **options: Any) -> BuildResult:
        selections.append(options["select"])
        return build(settings, **options)

    monkeypatch.setattr("headrace.follow.follower.build", build_and_note)
    monkeypatch.setattr("headrace.follow.follower.RECHECK_S", 3_600.0)  # which would find what was left behind

    def counted() -> int:
        is_built = ready.value("select to_regclass('marts.jobs_per_minute') is not null")
        return int(ready.value("select sum(jobs) from marts.jobs_per_minute") or 0) if is_built else 0

    with Following(ready.deployment):
        until(lambda: None in selections and counted() == 1, 60)  # the first build is of everything
        sent = 1

        def all_counted() -> bool:
            return counted() == sent

        deadline = time.monotonic() + 30
        while counted() < 20:  # records go on to come
            assert time.monotonic() < deadline, f"{counted()} of {sent} in marts.jobs_per_minute"
            send(ready, sent)
            sent += 1
            time.sleep(0.1)
        assert ["jobs", "jobs_per_minute"] in selections
        for _ in range(2):  # and what came last is not left behind: the second comes just after both were built
            until(all_counted)
            send(ready, sent)
            sent += 1
        until(all_counted)
