"""`headrace verify --deep` after the topic or the contract changed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.repair.reload import reload_range
from headrace.verify import verify
from headrace.verify.readers import TopicReader, VisibleRecord
from tests.support.adoption import force_adopt
from tests.support.drained_topic import Drained


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
