"""`headrace verify` against a real broker and a real Postgres: clean where all is well, and every defect named."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from psycopg.conninfo import conninfo_to_dict

from headrace.cli import main
from headrace.deployment import Deployment
from headrace.exceptions import DatasetError
from headrace.ingest.load import LoadOptions, load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.repair.generations import reset
from headrace.repair.reload import reload_range
from headrace.settings import ROOT, Settings
from headrace.sources.kafka import KafkaSource, ensure_topic
from headrace.verify import verify
from headrace.verify.readers import TopicReader, VisibleRecord
from headrace.verify.report import Finding, Verification
from tests.support.adoption import force_adopt
from tests.support.databases import passing_database
from tests.support.stage import Stage

# partition 0: 10 jobs and their marker, 3 aborted records and theirs, a dead letter, a tombstone, 10 jobs, a marker
DEAD, TOMBSTONE, END = 15, 16, 28


@dataclass(frozen=True, slots=True)
class Drained:
    """A stage whose topic was drained, in batches of at most 8 records."""

    stage: Stage
    topic: str
    bootstrap_servers: str

    def execute(self, statement: str, *parameters: Any) -> None:
        """Change the database as no loader would: constraints by trigger are off."""
        with psycopg.connect(self.stage.dsn, autocommit=True) as connection:
            connection.execute("set session_replication_role = replica")
            connection.execute(statement, parameters or None)  # type: ignore[arg-type]

    def verify(self, *, deep: bool = False, **options: Any) -> Verification:
        """`headrace verify jobs`."""
        return verify(self.stage.deployment, "jobs", deep=deep, **options)

    def assert_found(self, check: str, offset: int | None, *, partition: int | None = 0, deep: bool = False) -> Finding:
        """The check has a finding, and its first one names this offset."""
        verification = self.verify(deep=deep)
        lines = list(verification.lines())
        assert not verification.is_clean
        found = [finding for finding in verification.findings if finding.check == check]
        assert found, lines
        assert (found[0].partition, found[0].offset) == (partition, offset), lines
        return found[0]


@pytest.fixture(scope="module")
def pristine(postgres_dsn: str, bootstrap_servers: str, session_home: Path, tmp_path_factory: Any) -> Iterator[Drained]:
    """One topic and one database, drained once: tests that change the database get a copy of it."""
    yield from _drained("verify_pristine", postgres_dsn, bootstrap_servers, session_home, tmp_path_factory.mktemp("x"))


@pytest.fixture
def drained(pristine: Drained, postgres_dsn: str) -> Iterator[Drained]:
    """Jobs with gaps, an aborted transaction, tombstones, headers, unknown fields and dead letters, all drained."""
    with passing_database(postgres_dsn, "verify_copy", template="verify_pristine") as dsn:
        settings = replace(pristine.stage.deployment.settings, postgres_dsn=dsn)
        stage = Stage(Deployment.from_settings(settings), dsn)
        yield Drained(stage, pristine.topic, pristine.bootstrap_servers)


@pytest.fixture
def own_topic(
    postgres_dsn: str, bootstrap_servers: str, session_home: Path, tmp_path: Path, request: Any
) -> Iterator[Drained]:
    """The same with a topic that the test may change."""
    yield from _drained(request.node.name[:60], postgres_dsn, bootstrap_servers, session_home, tmp_path)


def _drained(name: str, postgres_dsn: str, bootstrap_servers: str, home: Path, folder: Path) -> Iterator[Drained]:
    declared = Settings().datasets_dir
    (folder / "users.py").write_text((declared / "users.py").read_text())
    (folder / "jobs.py").write_text((declared / "jobs.py").read_text().replace('topic="jobs"', f'topic="{name}"'))
    ensure_topic({"bootstrap_servers": bootstrap_servers}, name, 3)
    with passing_database(postgres_dsn, name) as dsn:
        settings = Settings(
            home=home,
            postgres_dsn=dsn,
            kafka_bootstrap_servers=bootstrap_servers,
            datasets_dir=folder,
            batch_rows=8,
        )
        deployment = Deployment.from_settings(settings)
        initialise(deployment)
        drained = Drained(Stage(deployment, dsn), name, bootstrap_servers)
        _produce(drained)
        drain_dataset(deployment, "jobs")
        yield drained


def _produce(drained: Drained) -> None:
    producer, topic = _producer(drained, transactional_id=drained.topic), drained.topic
    producer.init_transactions()
    _send(producer, topic, [_job(n) for n in range(10)])
    _send(producer, topic, [_job(n) for n in range(90, 93)], abort=True)
    _send(producer, topic, [(b"999", b'{"JOBIDENTIFIER": 999}'), (b"3", None), *map(_job, range(20, 30))])
    _send(producer, topic, [_job(n, CHANNEL="web", RATE=1.50, ZERO=-0.0) for n in range(30, 50)], partition=1)
    _send(producer, topic, [_job(n) for n in range(50, 55)], partition=2)
    producer.close()
    _wait_until_stable(drained)


def _wait_until_stable(drained: Drained) -> None:
    # a commit returns before its markers are written: a drain that is quick stops before the last transaction
    source = KafkaSource(drained.topic, {"bootstrap_servers": drained.bootstrap_servers})
    deadline = time.monotonic() + 10
    while any(p.end_offset < p.high_watermark for p in source.describe().partitions.values()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    source.close()


def _producer(drained: Drained, **options: Any) -> KafkaProducer:
    return KafkaProducer(bootstrap_servers=drained.bootstrap_servers, acks="all", **options)


def _job(number: int, **extra: Any) -> tuple[bytes, bytes]:
    job = {
        "JOBCREATEDATE": "2019-03-01 10:00:00",
        "JOBDATE": "2019-03-01T11:00:00.123456+02:00",
        "JOBIDENTIFIER": number,
        "JOBSTATUS": "SUCCESS",
        "LOCATION": "LOC_1294",
        "REVENUE": 12.50 + number,
        "SERVICENAME": "SERVICE_01",
        "USERID": number,
    }
    return b"%d" % number, json.dumps(job | extra).encode()


def _send(
    producer: KafkaProducer,
    topic: str,
    records: list[tuple[bytes, bytes | None]],
    *,
    partition: int = 0,
    abort: bool = False,
) -> None:
    producer.begin_transaction()
    for key, value in records:
        producer.send(topic, key=key, value=value, partition=partition, headers=[("trace", key), ("raw", b"\xff\x00")])
    producer.flush()
    if abort:
        producer.abort_transaction()
    else:
        producer.commit_transaction()


def test_verify_after_drains_with_gaps_and_dead_letters_is_clean(drained: Drained) -> None:
    verification = drained.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    report = verification.reports[0]
    assert report.counts["staged rows"] == 45
    assert (report.counts["dead letters"], report.counts["tombstones"], report.counts["empty offsets"]) == (1, 1, 8)
    assert report.counts["records re-read"] == report.counts["hashes equal"] == 47
    assert report.counts["batches"] >= 7
    assert report.ranges == [f"[0] [0, {END})", "[1] [0, 21)", "[2] [0, 6)"]


def test_verify_deep_with_another_client_finds_the_same(drained: Drained) -> None:
    confluent_kafka = pytest.importorskip("confluent_kafka")

    class Reader:
        def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
            consumer = confluent_kafka.Consumer(
                {
                    "bootstrap.servers": drained.bootstrap_servers,
                    "group.id": "unused",
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "enable.partition.eof": True,
                }
            )
            consumer.assign([confluent_kafka.TopicPartition(drained.topic, partition, start)])
            try:
                while (message := consumer.poll(10)) is not None and not message.error() and message.offset() < end:
                    headers = message.headers() or ()
                    yield message.offset(), message.key(), message.value(), headers, message.timestamp()[1]
            finally:
                consumer.close()

        def close(self) -> None:
            pass

    verification = drained.verify(deep=True, reader=lambda _: Reader())
    assert verification.is_clean, list(verification.lines())
    assert verification.reports[0].counts["hashes equal"] == 47


def test_verify_of_a_loaded_file_is_clean_until_a_row_changes(stage: Stage, tmp_path: Path) -> None:
    users = [b'{"LOCATION": "LOC_%d", "USERID": %d}\n' % (n, n) for n in range(30)]
    folder = tmp_path / "data"
    folder.mkdir()
    deployment = replace(stage.deployment, settings=replace(stage.deployment.settings, data_dir=folder))
    (folder / "users.ndjson").write_bytes(b"".join([*users[:10], b"\n", b"no user\n", *users[10:]]))
    load_file(deployment, "users")
    assert verify(deployment, "users", deep=True).is_clean
    # without one user, who is tombstoned behind the last line
    (folder / "users.ndjson").write_bytes(b"".join(users[1:]))
    load_file(deployment, "users", options=LoadOptions(replace=True))
    verification = verify(deployment, "users", deep=True)
    assert verification.is_clean, list(verification.lines())
    assert verification.reports[0].counts["hashes equal"] == 29
    Drained(stage, "", "").execute("update staging.users set location = 'LOC_X' where userid = 7 and _generation = 2")
    found = verify(deployment, "users", deep=True).findings
    assert [(f.check, f.generation, f.offset) for f in found] == [("hashes", 2, 7)]
    (folder / "users.ndjson").write_bytes(b"".join(users))
    verification = verify(deployment, "users", deep=True)
    assert verification.is_clean
    assert "is not the file that generation 2 was loaded from" in verification.reports[0].notes[0]


def test_verify_of_all_datasets_reports_each(drained: Drained) -> None:
    verification = verify(drained.stage.deployment)
    assert [report.dataset for report in verification.reports] == ["jobs", "users"]
    assert list(verification.lines())[-1] == "verify: clean: ledger, rows and claims of 2 datasets tie"


def test_verify_with_a_declaration_that_cannot_be_used_compares_all_else(own_topic: Drained) -> None:
    declared = own_topic.stage.deployment.settings.datasets_dir / "users.py"
    declared.write_text("def broken(:")
    verification = verify(own_topic.stage.deployment)
    assert verification.findings == []
    assert [(report.dataset, report.is_clean) for report in verification.reports] == [("jobs", True), ("users", False)]
    assert "users.py: cannot be imported: SyntaxError" in verification.errors[0]
    own_topic.execute("alter table staging.users drop column _deleted")  # a table that another dataset does not need
    verification = verify(own_topic.stage.deployment)
    assert [(report.dataset, report.is_clean) for report in verification.reports] == [("jobs", True), ("users", False)]
    own_topic.execute("alter table staging.users add column _deleted boolean not null default false")
    declared.unlink()  # what is left of it in the database is compared, and no error
    own_topic.execute("insert into headrace.datasets (dataset) values ('gone')")
    verification = verify(own_topic.stage.deployment)
    assert verification.is_clean, list(verification.lines())
    assert [report.dataset for report in verification.reports] == ["gone", "jobs", "users"]


def test_verify_of_an_unknown_dataset_is_refused(stage: Stage) -> None:
    with pytest.raises(DatasetError, match=r"dataset 'job': neither declared in .* expected one of jobs, users"):
        verify(stage.deployment, "job")


ONE_ROW = "_generation = 1 and _partition = 0 and _offset = %d"
BATCH_AT = "(select batch_id from headrace.batches where dataset = 'jobs' and partition = %d and start_offset = %d)"
# offset 11 is an aborted record's: its batch counts it as empty
TWIN = (
    f"create temp table twin as select * from staging.jobs where {ONE_ROW % 9}; "
    "update twin set _offset = 11; insert into staging.jobs select * from twin"
)

# name -> statement, check, first wrong offset
SHALLOW = {
    "a staged row is gone": (f"delete from staging.jobs where {ONE_ROW % 3}", "counts", 3),
    "a tombstone is gone": (f"delete from staging.jobs where {ONE_ROW % TOMBSTONE}", "counts", 10),
    "a dead letter is gone": ("delete from headrace.dead_letters", "counts", 10),
    "a tombstone became a row": (
        f"update staging.jobs set _deleted = false where {ONE_ROW % TOMBSTONE}",
        "counts",
        None,
    ),
    "a row is at the checkpoint": (f"update staging.jobs set _offset = {END} where {ONE_ROW % 3}", "checkpoint", END),
    "a row is in another partition's range": (
        f"update staging.jobs set _batch_id = {BATCH_AT % (1, 0)} where {ONE_ROW % 3}",
        "range",
        3,
    ),
    "a row is in another batch of its partition": (
        f"update staging.jobs set _batch_id = {BATCH_AT % (0, 0)} where {ONE_ROW % 20}",
        "range",
        20,
    ),
    "a row is under no batch": (
        f"update staging.jobs set _batch_id = gen_random_uuid() where {ONE_ROW % 3}",
        "batch",
        3,
    ),
    "a row is staged and dead": (
        'insert into headrace.dead_letters (dataset, generation, partition, "offset", reason, detail, batch_id) '
        f"select 'jobs', 1, 0, 3, 'x', '', _batch_id from staging.jobs where {ONE_ROW % 3}",
        "exactly_one",
        3,
    ),
    "a replayed dead letter has no row": (
        "update headrace.dead_letters set replayed_by = batch_id",
        "exactly_one",
        DEAD,
    ),
    "a replaced row has no successor": (
        f"with gone as (delete from staging.jobs where {ONE_ROW % 3} returning *) "
        "insert into staging._replaced_jobs select *, _batch_id from gone",
        "exactly_one",
        3,
    ),
    "the first line of a chain is gone": (
        "delete from headrace.batches where partition = 0 and start_offset = 0",
        "chain",
        0,
    ),
    "a line's range is shifted": (
        "update headrace.batches set start_offset = start_offset + 1, end_offset = end_offset + 1 "
        "where partition = 0 and start_offset = 0",
        "chain",
        0,
    ),
    "two lines overlap": (
        "update headrace.batches set end_offset = end_offset + 1, empty = empty + 1 "
        "where partition = 0 and start_offset = 0",
        "chain",
        8,
    ),
    "the checkpoint went back": ("update headrace.checkpoints set next_offset = 20 where partition = 0", "chain", 20),
    "the checkpoint ran ahead": (
        f"update headrace.checkpoints set next_offset = {END + 5} where partition = 0",
        "source",
        END,
    ),
    "a line counts too much": (
        "alter table headrace.batches drop constraint batches_check2; "
        "update headrace.batches set empty = empty + 1 where partition = 0 and start_offset = 0",
        "arithmetic",
        0,
    ),
    "a duplicate under a free coordinate": (
        TWIN,
        "counts",
        None,
    ),
}


@pytest.mark.parametrize("name", SHALLOW)
def test_verify_finds_that(drained: Drained, name: str) -> None:
    statement, check, offset = SHALLOW[name]
    drained.execute(statement)
    finding = drained.assert_found(check, offset)
    if offset is not None:
        assert finding.line().startswith(f"jobs[0] offset {offset} of generation 1: {check}: found ")


DEEP = {
    "a value is a cent off": (f"update staging.jobs set revenue = revenue + 0.01 where {ONE_ROW % 3}", "hashes", 3),
    "a time is a microsecond off": (
        f"update staging.jobs set jobdate = jobdate + interval '1 microsecond' where {ONE_ROW % 3}",
        "hashes",
        3,
    ),
    "a key has another byte": (f"update staging.jobs set _key = '4' where {ONE_ROW % 3}", "hashes", 3),
    "a header is gone": (f"update staging.jobs set _headers = _headers - 1 where {ONE_ROW % 3}", "hashes", 3),
    "a dead letter has another byte": (
        "update headrace.dead_letters set value = set_byte(value, 5, get_byte(value, 5) # 1)",
        "hashes",
        DEAD,
    ),
    "a row moved to an aborted record's offset": (
        f"update staging.jobs set _offset = 11 where {ONE_ROW % 9}",
        "records",
        9,
    ),
    "a row is gone and its line agrees": (
        f"delete from staging.jobs where {ONE_ROW % 3}; "
        "update headrace.batches set staged = staged - 1, empty = empty + 1 where partition = 0 and start_offset = 0",
        "records",
        3,
    ),
    "a dead letter is gone and its line agrees": (
        "delete from headrace.dead_letters; update headrace.batches set dead = 0, empty = empty + dead where dead > 0",
        "records",
        DEAD,
    ),
    "an invented row, and its line agrees": (
        f"{TWIN}; "
        "update headrace.batches as b set staged = staged + 1, empty = empty - 1 from twin where batch_id = _batch_id",
        "records",
        11,
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_verify_deep_finds_that(drained: Drained, name: str) -> None:
    statement, check, offset = DEEP[name]
    drained.execute(statement)
    drained.assert_found(check, offset, deep=True)


def test_verify_deep_prints_both_hashes_and_values(drained: Drained) -> None:
    drained.execute(f"update staging.jobs set revenue = revenue + 0.01 where {ONE_ROW % 3}")
    finding = drained.assert_found("hashes", 3, deep=True)
    assert "(revenue 15.51)" in finding.found
    assert "(revenue 15.5)" in finding.expected
    assert finding.found[:16] != finding.expected[:16]


def test_verify_deep_decides_empty_offsets(drained: Drained) -> None:
    # what was counted as empty at one batch and staged at another evens out; the source tells
    drained.execute(
        "update headrace.batches set staged = staged + case start_offset when 0 then -1 else 1 end, "
        "empty = empty - case start_offset when 0 then -1 else 1 end where partition = 0 and start_offset in (0, 8)"
    )
    finding = drained.assert_found("empty", 0, deep=True)
    assert finding.expected == "0, as at the source"


def test_verify_without_a_line_finds_the_missing_seq(drained: Drained) -> None:
    seq = drained.stage.value("select seq from headrace.batches where partition = 1 and start_offset = 0")
    drained.execute("delete from headrace.batches where seq = %s", seq)
    finding = drained.assert_found("seq", None, partition=None)
    assert finding.found == f"no line with seq {seq}"
    drained.assert_found("chain", 0, partition=1)
    drained.assert_found("batch", 0, partition=1)


def test_verify_with_another_topic_of_that_name_names_both_ids(drained: Drained) -> None:
    drained.execute("update headrace.generations set topic_id = 'other'")
    finding = drained.assert_found("source", None, partition=None)
    assert finding.expected.endswith("with id other, as generation 1 has it")


def test_verify_with_a_second_open_generation_finds_it(drained: Drained) -> None:
    drained.execute("drop index headrace.generations_one_open")
    drained.execute("insert into headrace.generations select dataset, 2, topic, topic_id from headrace.generations")
    drained.assert_found("generations", None, partition=None)


CLAIM = (
    "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
    "select 'marts', 'jobs', dataset, last_seq, jsonb_build_object('headrace.datasets', built) "
    "from headrace.datasets where dataset = 'jobs'"
)
MART = (
    "create table marts.jobs as select distinct jobidentifier, revenue from staging.jobs where not _deleted "
    "and jobidentifier not in (select jobidentifier from staging.jobs where _deleted)"
)


def test_verify_with_a_claim_beyond_the_ledger_finds_it(drained: Drained) -> None:
    drained.execute(CLAIM)
    drained.execute("update headrace.claims set to_seq = to_seq + 1")
    finding = drained.assert_found("claims", None, partition=None)
    assert "a claim of marts.jobs up to seq" in finding.found


def test_verify_with_a_claim_beyond_its_upstream_finds_it(drained: Drained) -> None:
    drained.execute(CLAIM)
    drained.execute(
        "insert into headrace.claims (schema, identifier, dataset, to_seq, seen) "
        "select schema, 'jobs_per_minute', dataset, to_seq, jsonb_build_object('marts.jobs', built) "
        "from headrace.claims"
    )
    drained.execute("update headrace.claims set to_seq = to_seq - 1 where identifier = 'jobs'")
    finding = drained.assert_found("claims", None, partition=None)
    assert "the newest that marts.jobs has" in finding.expected


def test_verify_leaves_claims_of_a_developer_alone(drained: Drained) -> None:
    drained.execute(CLAIM.replace("'marts'", "'marts_dev'"))
    drained.execute("update headrace.claims set to_seq = to_seq + 1")
    assert verify(drained.stage.deployment).is_clean


def test_verify_with_a_claim_of_an_unknown_dataset_finds_it(drained: Drained) -> None:
    drained.execute(CLAIM)
    drained.execute("update headrace.claims set dataset = 'jobz'")
    found = verify(drained.stage.deployment).findings
    assert [(finding.dataset, finding.check) for finding in found] == [("jobz", "claims")]


def test_verify_after_a_reset_takes_old_claims_for_stale(drained: Drained) -> None:
    drained.execute(CLAIM)
    reset(drained.stage.deployment, drained.stage.deployment.dataset("jobs"))
    verification = drained.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    assert "marts.jobs starts from zero at its next build" in verification.reports[0].notes[0]
    drain_dataset(drained.stage.deployment, "jobs")
    assert drained.verify(deep=True).is_clean


def test_verify_of_a_built_mart_names_the_row_that_is_missing(drained: Drained) -> None:
    drained.execute(MART)
    drained.execute(CLAIM)
    verification = drained.verify()
    assert verification.is_clean, list(verification.lines())
    assert verification.reports[0].counts["keys of marts.jobs equal to staging's"] == 44
    drained.execute("delete from marts.jobs where jobidentifier = 20")
    finding = drained.assert_found("marts", 17)
    assert finding.found == "no row of jobidentifier 20 in marts.jobs, which has 43"
    # where batches are not yet built there is nothing to compare
    drained.execute("update headrace.claims set to_seq = to_seq - 1")
    verification = drained.verify()
    assert verification.is_clean
    assert verification.reports[0].counts["batches not yet built"] == 1


def test_verify_of_a_built_mart_names_the_row_that_should_be_deleted(drained: Drained) -> None:
    drained.execute(MART)
    drained.execute(CLAIM)
    drained.execute("insert into marts.jobs values (3, 0), (98, 0)")
    assert drained.assert_found("marts", TOMBSTONE).found.startswith("a row of jobidentifier 3 ")


def test_verify_while_records_arrive_and_are_drained_is_clean(own_topic: Drained) -> None:
    stopped, producer = threading.Event(), _producer(own_topic)

    def produce_and_drain() -> None:
        number = 1_000
        while not stopped.is_set():
            for _ in range(50):
                number += 1
                key, value = _job(number)
                producer.send(own_topic.topic, key=key, value=value)
            producer.flush()
            drain_dataset(own_topic.stage.deployment, "jobs")

    before = own_topic.stage.value("select count(*) from headrace.batches")
    thread = threading.Thread(target=produce_and_drain)
    thread.start()
    try:
        for _ in range(4):
            verification = own_topic.verify(deep=True)
            assert verification.is_clean, list(verification.lines())
    finally:
        stopped.set()
        thread.join()
        producer.close()
    assert own_topic.stage.value("select count(*) from headrace.batches") > before
    assert own_topic.verify(deep=True).is_clean


def test_verify_deep_does_not_compare_what_retention_took(own_topic: Drained) -> None:
    admin = KafkaAdminClient(bootstrap_servers=own_topic.bootstrap_servers)
    admin.delete_records({TopicPartition(own_topic.topic, 0): 5})
    admin.close()
    verification = own_topic.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    assert "[0] no longer served: not compared [0, 5)" in verification.reports[0].notes
    assert verification.reports[0].counts["hashes equal"] == 42


def test_verify_deep_of_an_adopted_topic_compares_both_generations(drained: Drained) -> None:
    force_adopt(drained.stage.deployment, drained.stage.deployment.dataset("jobs"))
    drain_dataset(drained.stage.deployment, "jobs")
    verification = drained.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    assert verification.reports[0].counts["hashes equal"] == 2 * 47


def test_verify_deep_of_a_compacted_topic_lets_records_be_gone(own_topic: Drained) -> None:
    class Compacted(TopicReader):
        def visible_records(self, partition: int, start: int, end: int) -> Iterator[VisibleRecord]:
            return (
                record for record in super().visible_records(partition, start, end) if (partition, record[0]) != (0, 3)
            )

    def reader(_: Any) -> TopicReader:
        return Compacted(own_topic.topic, {"bootstrap_servers": own_topic.bootstrap_servers})

    found = own_topic.verify(deep=True, reader=reader).findings
    assert [(finding.check, finding.offset) for finding in found] == [("empty", 0), ("records", 3)]
    admin = KafkaAdminClient(bootstrap_servers=own_topic.bootstrap_servers)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, own_topic.topic, {"cleanup.policy": "compact"})])
    admin.close()
    verification = own_topic.verify(deep=True, reader=reader)
    assert verification.is_clean, list(verification.lines())
    assert "1 rows whose records compaction removed since: not compared" in verification.reports[0].notes


def test_verify_deep_with_a_contract_that_changed_notes_it(own_topic: Drained) -> None:
    declared = own_topic.stage.deployment.settings.datasets_dir / "jobs.py"
    text = declared.read_text()
    declared.write_text(text.replace("    USERID: Integer\n", "    USERID: Integer\n    CHANNEL: Text | None = None\n"))
    verification = own_topic.verify(deep=True)
    assert verification.errors == ["staging.jobs has no column channel; `headrace init` adds it"]
    own_topic.execute(
        "alter table staging.jobs add column channel text; alter table staging._replaced_jobs add channel text"
    )
    verification = own_topic.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    assert (
        "20 rows were staged before the contract named a field: its column is null, and what the record held of it is "
        "in _extra: [1] 0, [1] 1" in verification.reports[0].notes[0]
    )
    # one that no record has: rows from before have null, and today's contract would give them the default
    with_default = text.replace("    USERID: Integer\n", '    USERID: Integer\n    ORIGIN: Text = "web"\n')
    declared.write_text(with_default)
    own_topic.execute(
        "alter table staging.jobs add origin text, drop channel; "
        "alter table staging._replaced_jobs add origin text, drop channel"
    )
    verification = own_topic.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    assert "45 rows were staged before the contract named a field" in verification.reports[0].notes[0]
    own_topic.execute("update staging.jobs set location = 'elsewhere' where _partition = 0 and _offset = 3")
    (finding,) = own_topic.verify(deep=True).findings
    assert finding.offset == 3
    command = f"headrace reload jobs --partition 0 --from {finding.offset} --to {finding.offset + 1}"
    assert f"`{command}`" in finding.remedy
    assert "reset" not in finding.remedy
    reload_range(own_topic.stage.deployment, own_topic.stage.deployment.dataset("jobs"), "3", "4", partition=0)
    assert own_topic.verify(deep=True).is_clean  # the advice mends it
    declared.write_text(text.replace('Literal["SUCCESS", "NO SUCCESS"]', 'Literal["DONE"]'))
    verification = own_topic.verify(deep=True)
    assert verification.is_clean, list(verification.lines())
    assert "45 staged records break the contract of today: [0] 0 (invalid_value: " in verification.reports[0].notes[0]


def test_verify_without_a_broker_notes_it_and_deep_fails(drained: Drained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.sources.kafka.BOOTSTRAP_TIMEOUT_MS", 300)
    settings = replace(drained.stage.deployment.settings, kafka_bootstrap_servers="127.0.0.1:1")
    deployment = Deployment.from_settings(settings)
    verification = verify(deployment, "jobs")
    assert verification.is_clean
    assert "the source could not be asked: kafka: 127.0.0.1:1 did not answer" in verification.reports[0].notes[0]
    verification = verify(deployment, "jobs", deep=True)
    assert not verification.is_clean
    assert not verification.findings
    assert "did not answer" in verification.errors[0]


def test_verify_command_ends_with_1_and_a_summary_where_something_is_wrong(drained: Drained) -> None:
    settings = drained.stage.deployment.settings
    environment = {
        "HEADRACE_HOME": str(settings.home),
        "HEADRACE_POSTGRES_DSN": drained.stage.dsn,
        "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": drained.bootstrap_servers,
        "HEADRACE_DATASETS_DIR": str(settings.datasets_dir),
    }
    outcome = CliRunner().invoke(main, ["verify", "jobs", "--deep"], env=environment)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.output.startswith("jobs: clean: [0] [0, 28), [1] [0, 21), [2] [0, 6); ")
    drained.execute(f"delete from staging.jobs where {ONE_ROW % 3}")
    outcome = CliRunner().invoke(main, ["verify", "jobs"], env=environment)
    assert outcome.exit_code == 1
    lines = outcome.output.splitlines()
    assert lines[0].startswith("jobs[0] offset 3 of generation 1: counts: found 7 staged")
    assert lines[1:] == ["verify: 1 finding; the first is jobs[0] offset 3 of generation 1"]
    document = json.loads(CliRunner().invoke(main, ["verify", "jobs", "--json"], env=environment).output)
    assert document["clean"] is False
    assert document["findings"][0] | {"found": "", "expected": "", "remedy": ""} == {
        "dataset": "jobs",
        "generation": 1,
        "partition": 0,
        "offset": 3,
        "check": "counts",
        "found": "",
        "expected": "",
        "remedy": "",
    }
    assert document["datasets"][0]["checks"] == [
        "generations",
        "seq",
        "chain",
        "arithmetic",
        "counts",
        "batch",
        "range",
        "checkpoint",
        "exactly_one",
        "claims",
        "source",
    ]


RUN_TASK = """
import runpy, sys
dag = runpy.run_path(sys.argv[1])["verify_ingestion"]()
try:
    print("result", dag.get_task("verify").python_callable({"dataset": "users", "deep": True}))
    print("result", dag.get_task("verify").python_callable({"dataset": "", "deep": False}))
except Exception as error:
    print("raised", type(error).__name__, error)
"""


def test_verify_dag_fails_with_the_first_finding(drained: Drained, tmp_path: Path) -> None:
    # in a process of its own: Airflow takes over the logging of any that imports it
    postgres = conninfo_to_dict(drained.stage.dsn)
    connection = {
        "conn_type": "postgres",
        "host": postgres["host"],
        "port": int(postgres["port"] or 0),
        "login": postgres["user"],
        "schema": postgres["dbname"],
        "extra": {name: postgres[name] for name in ("passfile",) if name in postgres},
    }
    kafka = {"conn_type": "kafka", "extra": {"bootstrap.servers": drained.bootstrap_servers}}
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW_CONN_HEADRACE_POSTGRES": json.dumps(connection),
        "AIRFLOW_CONN_HEADRACE_KAFKA": json.dumps(kafka),
        "HEADRACE_DATASETS_DIR": str(drained.stage.deployment.settings.datasets_dir),
    }

    drained.execute(f"delete from staging.jobs where {ONE_ROW % 3}; delete from staging.jobs where _partition = 1")
    command = [sys.executable, "-c", RUN_TASK, str(ROOT / "dags" / "verify_ingestion.py")]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "\nresult verify: clean: ledger, rows, claims and records of 1 dataset tie\n" in output
    assert "\nraised AirflowFailException jobs[0] offset 3 of generation 1: counts: found 7 staged" in output
    assert "\njobs[1] offset 0 of generation 1: counts: found 0 staged" in output


def test_verify_writes_nothing(drained: Drained) -> None:
    writes = "select sum(n_tup_ins + n_tup_upd + n_tup_del) from pg_stat_user_tables"
    with psycopg.connect(drained.stage.dsn, autocommit=True) as connection:
        connection.execute("select pg_stat_force_next_flush()")
    before = drained.stage.value(writes)
    drained.verify(deep=True)
    assert drained.stage.value(writes) == before
