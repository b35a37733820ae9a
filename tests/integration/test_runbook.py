"""The runbook: each incident is caused, looks as described, and is remedied by the commands of the page."""

import re
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.runner import plan
from headrace.local import postgres
from headrace.monitor.runbook import anchor
from headrace.monitor.status import read_status
from headrace.postgres.roles import LOADER
from headrace.publish.dead_letter_topic import publish_after_drain
from headrace.verify import verify
from tests.support import streams, topics
from tests.support.commands import CommandOutput, headrace
from tests.support.declarations import add_field, change_contract
from tests.support.interrupts import at, drain, drain_that_gets, wait_until_stopped
from tests.support.jobs import job, recreate, send_jobs, servers, topic_of
from tests.support.ledger_checks import coordinates, environment
from tests.support.logins import login
from tests.support.runbook import BLOCK, CARDS, SECTIONS, pattern
from tests.support.stage import Stage

RunbookIncident = Callable[[Stage], Iterator[str]]
INCIDENTS: dict[str, Any] = {}


def incident(title: str) -> Callable[[RunbookIncident], RunbookIncident]:
    """Make the incident of a section: yields what is seen, then, once it is mended, checks what is its own."""

    def register(make: RunbookIncident) -> RunbookIncident:
        INCIDENTS[title] = contextmanager(make)
        return make

    return register


def refused(stage: Stage, *arguments: str) -> str:
    """What a command says that fails."""
    said = headrace(environment(stage.deployment.settings), *(arguments or ("drain", "jobs")))
    assert said.status == 1, said.output
    return said.output.strip().removeprefix("headrace: ")


def drained(stage: Stage, count: int = 30) -> list[tuple[int, int]]:
    """Records sent and drained."""
    sent = send_jobs(stage, count)
    drain_dataset(stage.deployment, "jobs")
    return sent


@incident("A service does not answer")
def service_down(stage: Stage) -> Iterator[str]:
    send_jobs(stage, 30)
    assert postgres.stop(stage.deployment.settings.home)
    yield refused(stage)
    assert len(coordinates(stage)) == 30


def refusing(stage: Stage, message: str, errcode: str) -> str:
    """What a drain says while Postgres refuses to write dead letters so; afterwards it does not."""
    stage.execute(
        f"create function headrace.refuse() returns trigger language plpgsql as "
        f"$$begin raise '{message}' using errcode = '{errcode}'; end$$",
        "create trigger refuse before insert on staging.jobs execute function headrace.refuse()",
    )
    said = refused(stage)
    stage.execute("drop trigger refuse on staging.jobs")
    return said


@incident("The database's disk is full")
def disk_full(stage: Stage) -> Iterator[str]:
    sent = send_jobs(stage, 30)
    yield refusing(stage, 'could not extend file "base/5/16": No space left on device', "53100")
    assert coordinates(stage) == sorted(sent)


@incident("The database accepts no writes")
def read_only(stage: Stage) -> Iterator[str]:
    sent = send_jobs(stage, 30)
    yield refusing(stage, "cannot execute INSERT in a read-only transaction", "25006")
    assert coordinates(stage) == sorted(sent)


@incident("A dataset is late")
def late(stage: Stage) -> Iterator[str]:
    change_contract(stage, ("time_column=", "max_lag=5, time_column="))
    drained(stage)
    sent = send_jobs(stage, 30)
    plan(stage.deployment, stage.deployment.dataset("jobs"))
    (problem,) = overview(stage)
    yield problem.text
    assert len(coordinates(stage)) == 30 + len(sent)


@incident("Another run committed first")
def rival(stage: Stage) -> Iterator[str]:
    send_jobs(stage, 90, 1)
    short_timeouts = Stage(Deployment.from_settings(replace(stage.deployment.settings, batch_rows=20)), stage.dsn)

    def overtake() -> None:
        drain_dataset(short_timeouts.deployment, "jobs", max_records=20)

    with pytest.raises(Exception, match="another run committed first") as caught:
        drain(short_timeouts, at("fetched", overtake, occurrence=1))
    yield str(caught.value)
    assert len(coordinates(stage)) == 90


@incident("A drain hangs")
def frozen(stage: Stage) -> Iterator[str]:
    send_jobs(stage, 300, 1)
    with drain_that_gets(signal.SIGSTOP, "before_commit", stage, occurrence=1) as frozen:
        wait_until_stopped(frozen)
        seen = stage.query(
            "select application_name, state from pg_stat_activity where datname = current_database() "
            "and application_name = 'headrace drain jobs' and state = 'idle in transaction'"
        )
        yield " ".join(seen[0])
    assert len(coordinates(stage)) == 300


@incident("The topic was deleted and created again")
def topic_recreated(stage: Stage) -> Iterator[str]:
    drained(stage)
    recreate(stage)
    sent = send_jobs(stage, 6)
    yield refused(stage)
    assert coordinates(stage) == sorted(sent)


@incident("Another cluster answers at the address")
def another_cluster(stage: Stage) -> Iterator[str]:
    drained(stage)
    sent = send_jobs(stage, 3)
    right = stage.value("select cluster_id from headrace.generations")
    stage.execute("update headrace.generations set cluster_id = 'of-the-old-cluster'")
    seen = refused(stage)
    stage.execute(f"update headrace.generations set cluster_id = '{right}'")  # the address leads back
    yield seen
    assert len(coordinates(stage)) == 30 + len(sent)


@incident("Retention overtook the checkpoint")
def retention(stage: Stage) -> Iterator[str]:
    drained(stage)
    send_jobs(stage, 30)
    topics.delete_records(servers(stage), topic_of(stage), {1: 15})
    yield refused(stage)
    assert len(coordinates(stage)) == 60 - 5


@incident("A new partition has lost its head")
def headless_partition(stage: Stage) -> Iterator[str]:
    drained(stage)
    with topics.admin(servers(stage)) as client:
        client.create_partitions({topic_of(stage): 4})
    topics.wait_for_end(servers(stage), topic_of(stage), [10, 10, 10, 0])
    topics.send(servers(stage), topic_of(stage), [(3, b"%d" % n, job(n)) for n in range(8)])
    topics.delete_records(servers(stage), topic_of(stage), {3: 5})
    yield refused(stage)
    assert len(coordinates(stage)) == 30 + 3


@incident("The log is shorter than the checkpoint")
def short_log(stage: Stage) -> Iterator[str]:
    sent = drained(stage)
    stage.execute(  # as if two records behind the end had been read
        "update headrace.checkpoints set next_offset = 12 where partition = 1",
        "update headrace.batches set end_offset = 12, empty = empty + 2 where partition = 1",
    )
    yield refused(stage)
    assert coordinates(stage) == sorted(sent)


@incident("A Redis stream was created again or restored")
def stream_recreated(telemetry: Stage) -> Iterator[str]:
    streams.send(telemetry, 9)
    drain_dataset(telemetry.deployment, "telemetry")
    with streams.client(telemetry.deployment.redis()) as client:
        client.delete(streams.stream_of(telemetry))
    streams.send(telemetry, 4)
    yield refused(telemetry, "drain", "telemetry")
    assert telemetry.value("select count(*) from staging.telemetry where _generation = 2") == 4


@incident("Dead letters grow")
def wrong_contract(stage: Stage) -> Iterator[str]:
    wrong = [(n % 3, b"%d" % (900 + n), job(900 + n, USERID=f"user {n}")) for n in range(10)]
    topics.send(servers(stage), topic_of(stage), wrong)
    drained(stage)
    yield next(each.text for each in overview(stage) if each.kind == "dead_letters")
    assert stage.value("select count(*) from staging.jobs") == 30  # the contract has not changed


@incident("Dead letters do not reach their topic")
def unpublished(stage: Stage) -> Iterator[str]:
    dead_letters = f"{topic_of(stage)}_dlq"
    change_contract(stage, ("partitions=3", f'partitions=3, dead_letter_topic="{dead_letters}"'))
    topics.create(servers(stage), dead_letters, 1, max_message_bytes="100")
    topics.send(servers(stage), topic_of(stage), [(0, b"k", b"not JSON, and longer than a hundred bytes " * 9)])
    drain_dataset(stage.deployment, "jobs")
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr(
            "headrace.publish.dead_letter_topic.logger.warning", lambda text, *parts: said.append(text % parts)
        )
        assert publish_after_drain(stage.deployment, stage.deployment.dataset("jobs")) == 0
    topics.delete(servers(stage), dead_letters)
    topics.create(servers(stage), dead_letters, 1)
    yield said[0]
    assert stage.value("select count(*) from headrace.dead_letters where published_at is null") == 0


@incident("Records were staged wrongly")
def staged_wrongly(stage: Stage) -> Iterator[str]:
    drained(stage)
    stage.execute("update staging.jobs set location = 'wrong' where _partition = 0 and _offset between 2 and 7")
    yield "jobs[0] [2, 8)"
    assert stage.value("select count(*) from staging.jobs where location = 'wrong'") == 0


@incident("A declaration cannot be used")
def broken_declaration(stage: Stage) -> Iterator[str]:
    sent = send_jobs(stage, 30)
    declared = stage.deployment.settings.datasets_dir / "jobs.py"
    text = declared.read_text()
    declared.write_text(text.replace("class Job(BaseModel):", "class Job(BaseModel:"))
    seen = refused(stage)
    (card,) = overview(stage)
    assert card.runbook.endswith("#a-declaration-cannot-be-used")
    declared.write_text(text)
    assert overview(stage) == []
    yield seen
    assert coordinates(stage) == sorted(sent)


@incident("Verify finds a row missing")
def row_missing(stage: Stage) -> Iterator[str]:
    sent = drained(stage)
    stage.execute("delete from staging.jobs where _partition = 0 and _offset = 3")
    yield refused(stage, "verify", "jobs")
    assert coordinates(stage) == sorted(sent)


@incident("The staging table is gone")
def table_gone(stage: Stage) -> Iterator[str]:
    sent = drained(stage)
    stage.execute("drop table staging.jobs cascade")
    yield refused(stage)
    assert coordinates(stage) == sorted(sent)


@incident("A permission is missing")
def permission_missing(stage: Stage) -> Iterator[str]:
    send_jobs(stage, 30)
    stage.execute(f"revoke insert on staging.jobs from {LOADER}")
    with login(stage.dsn, LOADER) as dsn:
        settings = replace(stage.deployment.settings, postgres_dsn=dsn)
        loader = Stage(Deployment.from_settings(settings), stage.dsn)
        yield refused(loader)
        send_jobs(stage, 3)
        drain_dataset(loader.deployment, "jobs")
    assert len(coordinates(stage)) == 33


@incident("Headrace's tables are missing or old")
def tables_missing(stage: Stage) -> Iterator[str]:
    sent = send_jobs(stage, 30)
    stage.execute("drop schema headrace cascade", "drop schema staging cascade")
    yield refused(stage)
    assert coordinates(stage) == sorted(sent)


@incident("A field that was added to the contract is null")
def unfilled(stage: Stage) -> Iterator[str]:
    topics.send(servers(stage), topic_of(stage), [(0, b"1", job(1, CHANNEL="web")), (1, b"2", job(2))])
    drain_dataset(stage.deployment, "jobs")
    add_field(stage, "CHANNEL: Text | None = None")
    drained(stage, 1)
    assert stage.value("select count(channel) from staging.jobs") == 0
    yield "jobs.channel: null in rows from before the contract named CHANNEL"
    assert stage.query("select jobidentifier from staging.jobs where channel = 'web'") == [(1,)]


@incident("A topic is not checked")
def unseen(stage: Stage) -> Iterator[str]:
    drained(stage)
    send_jobs(stage, 3)
    stage.execute("update headrace.observations set observed_at = now() - interval '1 day'")
    yield next(each.text for each in overview(stage) if each.kind == "unseen")
    assert len(coordinates(stage)) == 33
    assert [each for each in overview(stage) if each.kind == "unseen"] == []


def overview(stage: Stage) -> Any:
    """What `headrace status` finds wrong."""
    from headrace.monitor.problems import find_problems

    return find_problems(read_status(stage.deployment.connect("test")), stage.deployment.settings).problems


@pytest.mark.parametrize("title", INCIDENTS)
def test_incident_of_the_runbook_looks_as_it_says_and_is_repaired_by_its_commands(
    title: str, request: pytest.FixtureRequest
) -> None:
    seen, commands = BLOCK.findall(SECTIONS[title])[:2]
    is_stream = "telemetry" in commands
    stage: Stage = request.getfixturevalue("telemetry" if is_stream else "stage")
    settings = replace(stage.deployment.settings, lock_timeout_ms=100, stuck_after_ms=400)
    stage = Stage(Deployment.from_settings(settings), stage.dsn)
    environ = environment(settings) | {"HEADRACE_LOCK_TIMEOUT_MS": "100", "HEADRACE_STUCK_AFTER_MS": "400"}
    with INCIDENTS[title](stage) as found:
        if not is_stream:
            found = found.replace(topic_of(stage), "jobs")
        assert re.search(pattern(seen), found), f"found {found}, expected {seen}"
        if title in CARDS:  # one, and it ends with the remedy
            (card,) = overview(stage)
            assert card.runbook == f"docs/runbook.md#{anchor(title)}"
        for command in commands.splitlines():
            program, *arguments = shlex.split(command)
            assert program == "headrace"
            said: CommandOutput = headrace(environ, *arguments)
            assert said.status == 0, said.output
        assert title not in CARDS or overview(stage) == []
    is_deep = title != "The log is shorter than the checkpoint"  # what the source lost cannot be read again
    verification = verify(stage.deployment, "telemetry" if is_stream else "jobs", deep=is_deep)
    assert verification.is_clean, "\n".join(verification.lines())


def test_every_section_of_the_runbook_is_rehearsed() -> None:
    elsewhere = {
        "The database was restored from a backup",  # test_backup.py
        "A model or its test fails",  # test_incidents.py
        "Airflow itself does not run",  # test_airflow_health.py
        "Airflow cannot import a DAG file",
    }
    assert set(SECTIONS) == set(INCIDENTS) | elsewhere
    assert len(SECTIONS) >= 12
