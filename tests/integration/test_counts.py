"""A table that stores fewer rows than were sent: the command fails in one line and changes nothing."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.exceptions import DatabaseError
from headrace.ingest.parallel import drain_dataset
from headrace.repair.fill import fill
from headrace.repair.reload import reload_range
from headrace.repair.replay import replay
from headrace.verify import verify
from tests.support import topics
from tests.support.declarations import add_field, allow_refunds
from tests.support.jobs import job, jobs, servers, topic_of
from tests.support.replays import refund
from tests.support.stage import Stage
from tests.support.users import load, user

OMIT = "create function omit() returns trigger language plpgsql as $$begin return null; end$$"


def omit_one(stage: Stage, table: str, condition: str = "true", event: str = "insert") -> None:
    """Let a trigger leave rows out, as one written for another purpose would."""
    stage.execute(
        OMIT, f"create trigger omit before {event} on {table} for each row when ({condition}) execute function omit()"
    )


def state(stage: Stage, dataset: str = "jobs") -> list[list[tuple[object, ...]]]:
    return [
        stage.query(f"select * from staging.{dataset} order by _generation, _partition, _offset"),
        stage.query(f"select * from staging._replaced_{dataset} order by _generation, _partition, _offset"),
        stage.query('select * from headrace.dead_letters order by dataset, generation, partition, "offset"'),
        stage.query("select * from headrace.batches order by dataset, seq"),
        stage.query("select dataset, generation, partition, next_offset from headrace.checkpoints order by 1, 2, 3"),
    ]


def assert_refused(stage: Stage, work: Callable[[], object], expected: str, dataset: str = "jobs") -> None:
    before = state(stage, dataset)
    with pytest.raises(DatabaseError) as caught:
        work()
    assert re.fullmatch(
        f"{expected}, expected all: a trigger or rule on the table leaves rows out; nothing was changed; .*",
        str(caught.value),
    ), caught.value
    assert state(stage, dataset) == before


def send(stage: Stage) -> None:
    """Ten jobs by the fast way, one that needs the slow one, two dead."""
    messages = [*jobs(10, 1), (0, b"11", job(11, EXTRA=1)), (0, b"12", refund(12)), (0, b"13", refund(13))]
    topics.send(servers(stage), topic_of(stage), messages)


@pytest.mark.parametrize(
    ("table", "condition", "expected"),
    [
        ("staging.jobs", "new._offset = 3", r"staging.jobs: sent \d+ rows, found \d+ stored"),
        ("staging.jobs", "new._offset = 10", r"staging.jobs: sent \d+ rows, found \d+ stored"),
        ("headrace.dead_letters", 'new."offset" = 11', "headrace.dead_letters: sent 2 rows, found 1 stored"),
    ],
)
def test_drain_into_a_table_that_omits_rows_is_refused(stage: Stage, table: str, condition: str, expected: str) -> None:
    send(stage)
    omit_one(stage, table, condition)
    with pytest.raises(DatabaseError) as caught:
        drain_dataset(stage.deployment, "jobs")
    assert re.match(f"{expected}, expected all", str(caught.value)), caught.value
    assert [len(rows) for rows in state(stage)[:3]] == [0, 0, 0]
    stage.execute("drop function omit cascade")
    drain_dataset(stage.deployment, "jobs")
    assert verify(stage.deployment, "jobs", deep=True).is_clean


def test_drain_into_a_ledger_that_omits_lines_is_refused(stage: Stage) -> None:
    send(stage)
    omit_one(stage, "headrace.batches", "new.kind = 'drain' and new.staged > 0")
    with pytest.raises(DatabaseError, match=r"jobs\[0\]: headrace.batches stored no line, expected one: a trigger"):
        drain_dataset(stage.deployment, "jobs")
    assert state(stage)[0] == []


def test_replay_into_a_table_that_omits_rows_is_refused(stage: Stage) -> None:
    send(stage)
    drain_dataset(stage.deployment, "jobs")
    allow_refunds(stage)
    omit_one(stage, "staging.jobs")
    work = lambda: replay(stage.deployment, stage.deployment.dataset("jobs"))  # noqa: E731
    assert_refused(stage, work, "staging.jobs: sent 2 rows, found 0 stored")


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("staging.jobs", "staging.jobs: sent 11 rows, found 0 stored"),
        ("staging._replaced_jobs", "staging._replaced_jobs: sent 11 rows, found 0 stored"),
        ("headrace.dead_letters", "headrace.dead_letters: sent 1 rows, found 0 stored"),
    ],
)
def test_reload_into_a_table_that_omits_rows_is_refused(stage: Stage, table: str, expected: str) -> None:
    send(stage)
    drain_dataset(stage.deployment, "jobs")
    stage.execute('delete from headrace.dead_letters where "offset" = 12')  # else nothing is inserted there
    omit_one(stage, table)
    work = lambda: reload_range(  # noqa: E731
        stage.deployment, stage.deployment.dataset("jobs"), "0", "13", partition=0
    )
    assert_refused(stage, work, expected)


@pytest.mark.parametrize(
    ("table", "event", "expected"),
    [
        ("staging._replaced_jobs", "insert", "staging._replaced_jobs: sent 1 rows, found 0 stored"),
        ("staging.jobs", "update", "staging.jobs: sent 1 rows, found 0 stored"),
    ],
)
def test_fill_of_a_table_that_omits_rows_is_refused(stage: Stage, table: str, event: str, expected: str) -> None:
    send(stage)
    drain_dataset(stage.deployment, "jobs")
    add_field(stage, "EXTRA: int | None = None")
    omit_one(stage, table, event=event)
    drain_dataset(stage.deployment, "jobs")  # adds the column
    work = lambda: fill(stage.deployment, stage.deployment.dataset("jobs"), "EXTRA")  # noqa: E731
    assert_refused(stage, work, expected)


def test_load_into_a_table_that_omits_rows_is_refused(stage: Stage, tmp_path: Path) -> None:
    path = tmp_path / "users.ndjson"
    omit_one(stage, "staging.users", "new._deleted or new._offset = 2")
    with pytest.raises(DatabaseError, match=r"staging\.users: sent 3 rows, found 2 stored"):
        load(stage, path, user(1), user(2), user(3))
    stage.execute("alter table staging.users disable trigger omit")
    load(stage, path, user(1), user(2))
    stage.execute("alter table staging.users enable trigger omit")
    with pytest.raises(DatabaseError, match=r"staging\.users: sent 1 rows, found 0 stored"):
        load(stage, path, user(1), replace=True)
    assert stage.query("select userid from staging.users where _deleted") == []
