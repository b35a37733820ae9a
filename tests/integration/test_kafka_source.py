"""Kafka's features: partitions, headers, transactions, compaction, retention, deleted and recreated topics."""

import json
import re
import time
from collections.abc import Iterator

import pytest
from kafka import KafkaConsumer, TopicPartition

from headrace.exceptions import SourceChanged, SourceUnavailable, TopicMissing
from headrace.sources import kafka
from headrace.sources.kafka import KafkaSource
from tests.support import shared_broker, topics
from tests.support.sources import ranged, read_ranges, records


@pytest.fixture
def source(made: type[KafkaSource], bootstrap_servers: str, topic: str) -> Iterator[KafkaSource]:
    """The test's own topic as a source that polls three records at a time."""
    source = made(topic, {"bootstrap_servers": bootstrap_servers}, max_poll_records=3)
    yield source
    source.close()


def test_kafka_reads_partitions_together_each_in_order(source: KafkaSource, bootstrap_servers: str) -> None:
    sent = topics.send(bootstrap_servers, source.topic, [(n % 3, b"k", b"%d" % n) for n in range(30)])
    ends = {p: state.end_offset for p, state in source.describe().partitions.items()}
    assert ends == {0: 10, 1: 10, 2: 10}
    chunks = read_ranges(source, {0: (2, 10), 1: (0, 4), 2: (9, 10)})
    read_back = sorted((p, record.offset) for p in range(3) for record in records(chunks, p))
    assert read_back == sorted(
        (p, o) for p, o in sent if (p, o) >= (0, 2) and not (p == 1 and o >= 4) and not (p == 2 and o < 9)
    )


def test_kafka_keeps_keys_values_headers_and_times_as_they_are(source: KafkaSource, bootstrap_servers: str) -> None:
    headers = [("a", b"\x00\xff"), ("a", b"2"), ("", b"")]
    with topics.producer(bootstrap_servers) as client:
        client.send(source.topic, partition=0, key=None, value=b"", timestamp_ms=0)
        client.send(source.topic, partition=0, key=b"", value=None, timestamp_ms=1_551_434_400_123, headers=headers)
        client.flush()
    first, second = records(read_ranges(source, {0: (0, 2)}))
    assert (first.key, first.value, first.timestamp, list(first.headers)) == (None, b"", 0, [])
    assert (second.key, second.value, second.timestamp) == (b"", None, 1_551_434_400_123)
    assert list(second.headers) == headers


def test_kafka_passes_over_aborted_records_and_markers(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send_in_transaction(bootstrap_servers, source.topic, [(0, b"k", b"no")] * 5, commit=False)
    topics.send_in_transaction(bootstrap_servers, source.topic, [(0, b"k", b"yes")] * 5, commit=True)
    topics.wait_for_end(bootstrap_servers, source.topic, [12, 0, 0])
    chunks = read_ranges(source, {0: (0, 12)})
    assert [(r.offset, r.value) for r in records(chunks)] == [(offset, b"yes") for offset in range(6, 11)]


def test_kafka_range_of_nothing_but_aborted_records_and_markers_ends(
    source: KafkaSource, bootstrap_servers: str
) -> None:
    topics.send_in_transaction(bootstrap_servers, source.topic, [(0, b"k", b"no")] * 5, commit=False)
    topics.wait_for_end(bootstrap_servers, source.topic, [6, 0, 0])
    for bounds in ((0, 6), (2, 6), (5, 6), (0, 3)):
        assert records(read_ranges(source, {0: bounds})) == []


def test_kafka_open_transaction_ends_at_the_last_stable_offset(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"before")] * 2)
    with topics.producer(bootstrap_servers, transactional_id=f"{source.topic}-open") as client:
        client.init_transactions()
        client.begin_transaction()
        client.send(source.topic, partition=0, key=b"k", value=b"open")
        client.flush()
        topics.send(bootstrap_servers, source.topic, [(0, b"k", b"behind")] * 3)
        state = source.describe().partitions[0]
        assert (state.log_start_offset, state.end_offset, state.high_watermark) == (0, 2, 6)
        assert [r.value for r in records(read_ranges(source, {0: (0, 2)}))] == [b"before"] * 2
        client.commit_transaction()
    topics.wait_for_end(bootstrap_servers, source.topic, [7, 0, 0])
    values = [r.value for r in records(read_ranges(source, {0: (2, 7)}))]
    assert values == [b"open", b"behind", b"behind", b"behind"]


@pytest.fixture(scope="module")
def compacted(bootstrap_servers: str) -> tuple[str, int]:
    """A topic of two keys that the broker's cleaner has been at, and its end. The cleaner comes round every 15 s."""
    name, end = f"compacted-{shared_broker.first_number()}", 40
    topics.create(
        bootstrap_servers, name, 1, cleanup_policy="compact", segment_ms="100", min_cleanable_dirty_ratio="0.001",
        max_compaction_lag_ms="100", min_compaction_lag_ms="0", delete_retention_ms="0",
    )  # fmt: skip
    topics.send(bootstrap_servers, name, [(0, b"%d" % (n % 2), b"%d" % n) for n in range(end)])
    source = KafkaSource(name, {"bootstrap_servers": bootstrap_servers})
    try:
        deadline = time.monotonic() + 60
        while len(records(read_ranges(source, {0: (0, end)}))) > 20:
            if time.monotonic() > deadline:
                pytest.skip("the broker's cleaner did not come round in time")
            time.sleep(0.5)  # only closed segments are compacted, so go on writing
            topics.send(bootstrap_servers, name, [(0, b"%d" % (end % 2), b"%d" % end)])
            end += 1
    finally:
        source.close()
    return name, end


def test_kafka_compacted_topic_leaves_holes_and_ends(
    made: type[KafkaSource], bootstrap_servers: str, compacted: tuple[str, int]
) -> None:
    name, end = compacted
    source = made(name, {"bootstrap_servers": bootstrap_servers}, max_poll_records=3)
    try:
        kept = records(read_ranges(source, {0: (0, end)}))  # once: the cleaner may come round again
        offsets = [record.offset for record in kept]
        assert [int(record.value or b"") for record in kept] == offsets
        hole = next(offset for offset in range(end) if offset not in offsets)
        assert records(read_ranges(source, {0: (hole, hole + 1)})) == []
    finally:
        source.close()


def test_kafka_record_larger_than_a_fetch_is_delivered(
    made: type[KafkaSource], bootstrap_servers: str, topic: str
) -> None:
    large = f"{topic}-large"
    topics.create(bootstrap_servers, large, 1, max_message_bytes="20000000")
    topics.send(bootstrap_servers, large, [(0, b"k", b"small"), (0, b"k", b"x" * 10_000_000), (0, b"k", b"small")])
    source = made(large, {"bootstrap_servers": bootstrap_servers}, max_partition_fetch_bytes=1_000)
    try:
        assert [len(r.value or b"") for r in records(read_ranges(source, {0: (0, 3)}))] == [5, 10_000_000, 5]
    finally:
        source.close()


def test_kafka_offset_that_is_no_longer_served_is_refused(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"%d" % n) for n in range(10)])
    topics.delete_records(bootstrap_servers, source.topic, {0: 4})
    assert source.describe().partitions[0].log_start_offset == 4
    with pytest.raises(SourceChanged, match="no longer serves an offset"):
        list(source.read(ranged({0: (2, 10)})))
    assert [r.offset for r in records(read_ranges(source, {0: (4, 10)}))] == list(range(4, 10))


def test_kafka_range_beyond_the_end_is_refused(source: KafkaSource) -> None:
    with pytest.raises(SourceChanged, match="no longer serves an offset"):
        list(source.read(ranged({0: (5, 10)})))


def test_kafka_deleted_topic_is_an_error_not_a_hang(
    source: KafkaSource, bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "SILENT_POLLS_MAX", 60)
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"v")] * 10)
    reading = source.read(ranged({0: (0, 1_000)}))  # pinned while the topic still was longer, so to speak
    assert 1 <= len(next(reading).records) <= 3
    topics.delete(bootstrap_servers, source.topic)
    with pytest.raises((SourceUnavailable, TopicMissing, SourceChanged)):
        list(reading)
    for ask in (source.describe, source.topic_id):
        with pytest.raises(TopicMissing, match=f"{source.topic}: no such topic at 127.0.0.1"):
            ask()


def test_kafka_topic_recreated_has_another_identity(source: KafkaSource, bootstrap_servers: str) -> None:
    before = source.topic_id()
    topics.delete(bootstrap_servers, source.topic)
    topics.create(bootstrap_servers, source.topic, 3)
    assert source.topic_id() != before


def test_kafka_reading_leaves_no_consumer_group_behind(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send(bootstrap_servers, source.topic, [(0, b"k", b"v")] * 5)
    read_ranges(source, {0: (0, 5)})
    with topics.admin(bootstrap_servers) as client:
        named = re.compile(rf"{source.topic}(?!\d)")
        assert not [group for group in client.list_groups() if named.search(json.dumps(group, default=str))]


def test_kafka_source_agrees_with_another_consumer(source: KafkaSource, bootstrap_servers: str) -> None:
    topics.send_in_transaction(
        bootstrap_servers, source.topic, [(n % 3, b"k", b"a%d" % n) for n in range(20)], commit=True
    )
    topics.send_in_transaction(
        bootstrap_servers, source.topic, [(n % 3, b"k", b"b%d" % n) for n in range(20)], commit=False
    )
    topics.send(bootstrap_servers, source.topic, [(n % 3, b"k", b"c%d" % n) for n in range(21)])
    ends = {p: state.end_offset for p, state in source.describe().partitions.items()}
    ours = {(p, r.offset): r.value for p in ends for r in records(read_ranges(source, {p: (0, ends[p])}), p)}
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    consumer.assign([TopicPartition(source.topic, p) for p in ends])
    theirs: dict[tuple[int, int], bytes] = {}
    while any(consumer.position(TopicPartition(source.topic, p)) < end for p, end in ends.items()):
        for polled in consumer.poll(timeout_ms=500).values():
            theirs |= {(record.partition, record.offset): record.value for record in polled}
    consumer.close()
    assert ours == theirs
    assert len(ours) == 41
