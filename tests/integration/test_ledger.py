"""The ledger under concurrent commits, and its constraints."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest

from headrace.exceptions import CheckpointMoved
from headrace.ingest.batch import Batch
from headrace.ingest.commit import Committer
from headrace.postgres import checkpoints, ledger
from headrace.postgres.checkpoints import Checkpoints
from headrace.postgres.ledger import LedgerKind, LedgerLine, RunContext
from headrace.postgres.lock_watchdog import drain_name
from headrace.sources.file_lines import FileLine
from tests.support.jobs import job
from tests.support.ledger_checks import assert_ledger, assert_nothing_left
from tests.support.stage import Stage

BATCHES = 25


def begin(stage: Stage, dataset: str, partitions: int) -> None:
    with psycopg.connect(stage.dsn) as connection:
        Checkpoints(connection, dataset).register()
        generation = Checkpoints(connection, dataset).start_generation(dataset, "id")
        for partition in range(partitions):
            Checkpoints(connection, dataset).start_partition(generation, partition, 0)


def batch(stage: Stage, dataset: str, partition: int, start: int) -> Batch:
    """Two rows, a dead letter and two offsets of nothing."""
    made = Batch(stage.deployment.dataset(dataset), 1, partition, start)
    for offset in (start, start + 2):
        number = partition * 1_000_000 + offset
        value = job(number) if dataset == "jobs" else b'{"USERID":%d,"LOCATION":"L"}' % offset
        made.add(FileLine(offset, value, key=b"%d" % number))
    made.add(FileLine(start + 4, b"bad", key=b"bad"))
    made.end_offset = start + 5
    return made


def committer(stage: Stage, dataset: str) -> Committer:
    return Committer(
        stage.deployment.connect(drain_name(dataset)), stage.deployment.retries(), limits=stage.deployment.lock_timeouts
    )


@pytest.mark.parametrize(
    "workers",
    [[("jobs", 0), ("jobs", 1), ("jobs", 2), ("jobs", 3)], [("jobs", 0), ("jobs", 1), ("users", 0), ("users", 1)]],
)
def test_ledger_of_four_committers_at_once_has_no_gaps(workers: list[tuple[str, int]], stage: Stage) -> None:
    for dataset in {dataset for dataset, _ in workers}:
        begin(stage, dataset, 4)
    meeting = threading.Barrier(len(workers))

    def commit(worker: tuple[str, int]) -> None:
        dataset, partition = worker
        writer = committer(stage, dataset)
        meeting.wait(20)
        for number in range(BATCHES):
            writer.commit(batch(stage, dataset, partition, 5 * number), LedgerKind.DRAIN, RunContext())
        writer.close()

    with ThreadPoolExecutor(len(workers)) as pool:
        list(pool.map(commit, workers))
    for dataset in {dataset for dataset, _ in workers}:
        partitions = [partition for name, partition in workers if name == dataset]
        expected = [(p, 5 * n + o) for p in partitions for n in range(BATCHES) for o in (0, 2, 4)]
        assert_ledger(stage, expected, dataset)
        times = stage.query("select committed_at from headrace.batches where dataset = %s order by seq", dataset)
        assert times == sorted(times)
    assert_nothing_left(stage)


def test_ledger_of_four_committers_of_the_same_batches_has_each_once(stage: Stage) -> None:
    begin(stage, "jobs", 1)
    meeting = threading.Barrier(4)

    def commit(_: int) -> int:
        writer, committed = committer(stage, "jobs"), 0
        meeting.wait(20)
        for number in range(BATCHES):
            try:
                writer.commit(batch(stage, "jobs", 0, 5 * number), LedgerKind.DRAIN, RunContext())
                committed += 1
            except CheckpointMoved:
                pass
        writer.close()
        return committed

    with ThreadPoolExecutor(4) as pool:
        committed = sum(pool.map(commit, range(4)))
    assert committed == stage.value("select count(*) from headrace.batches") <= BATCHES
    assert_ledger(stage)


def test_ledger_remembers_who_committed(stage: Stage) -> None:
    begin(stage, "jobs", 1)
    run = RunContext(dag_id="ingest_jobs", run_id="r", task_id="drain", try_number=2)
    committer_ = committer(stage, "jobs")
    committer_.commit(batch(stage, "jobs", 0, 0), LedgerKind.DRAIN, run)
    committer_.close()
    assert stage.query(
        "select dag_id, run_id, task_id, try_number, kind, started_at <= committed_at from headrace.batches"
    ) == [("ingest_jobs", "r", "drain", 2, "drain", True)]


def line(start: int, end: int, **values: object) -> LedgerLine:
    made = {"batch_id": uuid4(), "dataset": "jobs", "generation": 1, "partition": 0, "kind": "drain"} | values
    return LedgerLine(start_offset=start, end_offset=end, **made)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["drain", "load", "replace", "accept_loss"])
def test_ledger_chain_cannot_fork(kind: str, stage: Stage) -> None:
    begin(stage, "jobs", 1)
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        ledger.append_line(connection, line(0, 5, empty=5))
        with pytest.raises(psycopg.errors.UniqueViolation, match="batches_chain"):
            ledger.append_line(connection, line(0, 7, empty=7, kind=kind))
        ledger.append_line(connection, line(5, 7, empty=2))


@pytest.mark.parametrize("wrong", [{"empty": 4}, {"empty": 6}, {"staged": 5, "dead": 1}, {"staged": 6, "empty": -1}])
def test_ledger_line_that_does_not_add_up_is_refused(wrong: dict[str, int], stage: Stage) -> None:
    begin(stage, "jobs", 1)
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.CheckViolation):
            ledger.append_line(connection, line(0, 5, **wrong))
        assert connection.execute("select last_seq from headrace.datasets where dataset = 'jobs'").fetchone() == (0,)


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        (
            line(3, 5, empty=2),
            r"jobs\[0\]: checkpoint is 0, this batch starts at 3: another run committed first; retry the task",
        ),
        (line(0, 5, empty=5, generation=2), r"jobs\[0\]: generation 2 is closed or gone"),
        (line(0, 5, empty=5, partition=7), r"jobs\[7\]: generation 1 is closed or gone"),
    ],
)
def test_checkpoint_that_is_elsewhere_fences_the_batch(moved: LedgerLine, message: str, stage: Stage) -> None:
    begin(stage, "jobs", 1)
    with psycopg.connect(stage.dsn) as connection, pytest.raises(CheckpointMoved, match=message):
        checkpoints.advance(connection, moved)
