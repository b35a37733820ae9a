"""`headrace verify` against a real broker and a real Postgres: clean without defects."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.exceptions import DatasetError
from headrace.ingest.load import LoadOptions, load_file
from headrace.ingest.parallel import drain_dataset
from headrace.verify import verify
from headrace.verify.readers import VisibleRecord
from tests.support.drained_topic import END, Drained, open_producer, verified_job
from tests.support.stage import Stage


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


def test_verify_while_records_arrive_and_are_drained_is_clean(own_topic: Drained) -> None:
    stopped, producer = threading.Event(), open_producer(own_topic)

    def produce_and_drain() -> None:
        number = 1_000
        while not stopped.is_set():
            for _ in range(50):
                number += 1
                key, value = verified_job(number)
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
