"""A drain's memory does not grow with the backlog, the number of partitions, the size of records or their compression.

Measured on the real command, `headrace drain`, as the operating system counts it: its peak resident set.
"""

import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import psycopg
import pytest
from kafka import KafkaProducer

from headrace.sample.generate import generate_jobs
from headrace.sources.base import Range
from headrace.sources.kafka import KafkaSource
from tests import bombs
from tests.support import streams, topics
from tests.support.jobs import servers, topic_of
from tests.support.ledger_checks import assert_ledger, environment
from tests.support.stage import Stage

LIMIT_MB = 250
HEADRACE = Path(sys.executable).with_name("headrace")
MB = 1_000_000
# A process begins with the peak of the one that forked it, before exec: so a small one stands between, not pytest.
WATCHER = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_drain_of_a_large_backlog_in_many_partitions_stays_within_its_memory(stage: Stage) -> None:
    partitions, records, topic = 12, 60_000, topic_of(stage)
    topics.delete(servers(stage), topic)
    topics.create(servers(stage), topic, partitions)
    lines = generate_jobs(records, 5, 1, stage.deployment.settings.data_dir / "users.ndjson")
    with KafkaProducer(bootstrap_servers=servers(stage), linger_ms=20, batch_size=512 * 1024) as producer:
        for number, line in enumerate(lines):
            key, _, value = line.rstrip(b"\n").partition(b"|")
            producer.send(topic, key=key, value=value, partition=number % partitions)
    assert _drain_peak_mb(stage) < LIMIT_MB
    _assert_drained(stage, records)


@pytest.mark.parametrize(
    ("client", "compression", "records"),
    [
        ("kafka-python", None, 12),
        ("kafka-python", "gzip", 30),
        ("confluent", None, 12),
    ],
)
def test_drain_of_records_of_10_mb_stays_within_its_memory(
    stage: Stage, client: str, compression: str | None, records: int
) -> None:
    # compressed, all of them are one small answer of the broker: 300 MB in one poll
    # (librdkafka unpacks an answer as a whole: with it they are what shrinks to half)
    shrinks = compression and client != "confluent"
    values = [b"x" * 10 * MB if shrinks else Random(n).randbytes(5 * MB).hex().encode() for n in range(records)]
    _produce(stage, values, compression, batch_size=16_384)
    del values
    assert _drain_peak_mb(stage, client=client) < LIMIT_MB
    _assert_drained(stage, records)
    assert stage.query("select distinct length(value), reason from headrace.dead_letters") == [(10 * MB, "too_large")]


@pytest.mark.parametrize(
    ("client", "compression"),
    [
        ("kafka-python", "lz4"),  # the other codecs: tests/cost/test_batch_bombs.py
        ("confluent", "zstd"),
    ],
)
def test_drain_of_a_compressed_batch_larger_than_a_poll_goes_through_it_piece_by_piece(
    stage: Stage, client: str, compression: str
) -> None:
    # 40 records of 1 MB in one batch of Kafka's: unpacked as a whole, it cannot be less than twice its 40 MB
    _produce(stage, [b"x" * MB] * 40, compression, batch_size=64 * MB)
    assert _drain_peak_mb(stage, client=client) < LIMIT_MB
    _assert_drained(stage, 40)


def test_drain_of_a_stream_of_large_entries_stays_within_its_memory_and_its_time(telemetry: Stage) -> None:
    small, large = 500, 600
    with streams.client(telemetry.deployment.redis()) as client:
        for entries in (
            [streams.reading(n) for n in range(small)],
            *[[{b"text": b"x" * 300_000}] * 50] * (large // 50),
        ):
            pipeline = client.pipeline(transaction=False)
            for entry in entries:
                pipeline.xadd(streams.stream_of(telemetry), entry)  # type: ignore[arg-type]
            pipeline.execute()
    assert _drain_peak_mb(telemetry, "telemetry", "--max-seconds", "0") < LIMIT_MB
    committed = telemetry.value("select next_offset from headrace.checkpoints")
    assert 1 <= committed <= 20
    assert _drain_peak_mb(telemetry, "telemetry") < LIMIT_MB
    assert_ledger(telemetry, dataset="telemetry")
    assert telemetry.value("select count(*) from headrace.dead_letters") == large
    assert telemetry.value("select count(*) from staging.telemetry") == small
    with streams.client(telemetry.deployment.redis()) as client:
        client.delete(streams.stream_of(telemetry))  # 180 MB


@pytest.mark.security("L3")
def test_drain_of_a_stream_passes_entries_beyond_any_answer_and_the_others_are_staged(telemetry: Stage) -> None:
    stream = streams.stream_of(telemetry)
    # beyond twice max_value_bytes, the least that the setting may say
    large: list[dict[Any, Any]] = [{b"text": b"x" * 12 * MB}, {b"f%d" % n: b"v" for n in range(20_000)}]
    small: list[dict[Any, Any]] = [streams.reading(number) for number in range(22)]
    with streams.client(telemetry.deployment.redis()) as client:
        # small ones, between which whatever is asked for grows
        for entry in (*small[:20], large[0], small[20], large[1], small[21]):
            client.xadd(stream, entry)
        for _ in range(30):
            client.xadd(stream, {"text": b"x" * MB})
        client.xadd(stream, large[0])  # the last one, which every look brings
    try:
        assert _peak_mb(telemetry, "drain", "telemetry", record_bytes_max=1) < LIMIT_MB
        assert_ledger(telemetry, [(0, offset) for offset in range(55)], dataset="telemetry")
        assert telemetry.value("select count(*) from staging.telemetry") == 22
        query = (
            'select "offset", key is not null, length(value), detail from headrace.dead_letters '
            "where value is null order by 1"
        )
        assert [row[:3] for row in telemetry.query(query)] == [(offset, True, None) for offset in (20, 22, 54)]
        assert all("they are not kept; HEADRACE_RECORD_BYTES_MAX" in row[3] for row in telemetry.query(query))
        _peak_mb(telemetry, "replay", "telemetry")
        assert telemetry.value("select count(*) from staging.telemetry") == 22
        for limit in (1, 32 * MB):
            assert _peak_mb(telemetry, "verify", "telemetry", "--deep", record_bytes_max=limit) < LIMIT_MB
    finally:
        with streams.client(telemetry.deployment.redis()) as client:
            client.delete(stream)


@pytest.mark.security("L1")
@pytest.mark.parametrize(("client", "codec"), [("kafka-python", bombs.GZIP), ("confluent", bombs.ZSTD)])
def test_drain_passes_a_batch_that_unpacks_to_far_too_much_and_its_neighbours_commit(
    stage: Stage, client: str, codec: int
) -> None:
    topic = topic_of(stage)
    lines = generate_jobs(5, 5, 1, stage.deployment.settings.data_dir / "users.ndjson")  # id|{JSON}, without a key
    good = [bombs.record(offset, line.rstrip(b"\n")) for offset, line in enumerate(lines)]
    bomb = bombs.packed(codec, iter([good[0], bombs.head(1, 400 * MB), *bombs.zeros(400 * MB), b"\0", good[2]]))
    small = bombs.packed(codec, iter([bombs.head(0, 3 * MB), *bombs.zeros(3 * MB), b"\0", *good[1:]]))
    assert len(bomb) < MB
    for partition in (0, 1):
        topics.send_batch(servers(stage), topic, partition, bombs.batch(bombs.NONE, b"".join(good), 5))
    for packed, count in ((bomb, 3), (small, 5)):
        topics.send_batch(servers(stage), topic, 0, bombs.batch(codec, packed, count))
    topics.send_batch(servers(stage), topic, 0, bombs.batch(bombs.NONE, b"".join(good), 5))
    assert _peak_mb(stage, "drain", "jobs", client=client, record_bytes_max=1) < LIMIT_MB
    assert_ledger(stage, [*((0, offset) for offset in range(18)), *((1, offset) for offset in range(5))])
    dead = 'select "offset", key, length(value), reason, detail from headrace.dead_letters order by 1'
    kept_no_bytes = [(offset, None, None, "too_large") for offset in (6, 8)]
    assert [row[:4] for row in stage.query(dead)] == kept_no_bytes
    assert all("raise HEADRACE_RECORD_BYTES_MAX and reload it" in row[4] for row in stage.query(dead))
    for limit in (1, 32 * MB):
        assert _peak_mb(stage, "verify", "jobs", "--deep", client=client, record_bytes_max=limit) < LIMIT_MB
    _peak_mb(stage, "replay", "jobs")
    assert [row[:4] for row in stage.query(dead)] == kept_no_bytes
    # the way past the limit: what has its bytes again is judged by its contract
    assert _peak_mb(stage, "reload", "jobs", "--from", "5", "--to", "13", "--partition", "0") < LIMIT_MB
    assert [row[:4] for row in stage.query(dead)] == [(6, None, None, "too_large"), (8, None, 3 * MB, "too_large")]
    assert _peak_mb(stage, "verify", "jobs", "--deep") < LIMIT_MB


def test_source_given_a_limit_below_one_record_still_reads_them_all_in_order(stage: Stage) -> None:
    _produce(stage, [b"x" * 50_000] * 40, "gzip", batch_size=MB)
    source = KafkaSource(topic_of(stage), stage.deployment.kafka(), poll_bytes=10_000)
    end = source.describe().partitions[0].end_offset
    chunks = list(source.read({0: Range(3, end)}))
    source.close()
    assert [record.offset for chunk in chunks for record in chunk.records] == list(range(3, 40))
    assert chunks[-1].next_offset == end == 40
    assert max(len(chunk.records) for chunk in chunks) < 40


def _produce(stage: Stage, values: list[bytes], compression: str | None, batch_size: int) -> None:
    topic = topic_of(stage)
    topics.delete(servers(stage), topic)
    topics.create(servers(stage), topic, 1, max_message_bytes=str(64 * MB))
    with KafkaProducer(
        bootstrap_servers=servers(stage),
        compression_type=compression,
        max_request_size=64 * MB,
        batch_size=batch_size,
        linger_ms=500,
    ) as producer:
        for number, value in enumerate(values):
            producer.send(topic, key=b"%d" % number, value=value)


def _drain_peak_mb(stage: Stage, dataset: str = "jobs", *options: str, client: str = "kafka-python") -> float:
    return _peak_mb(stage, "drain", dataset, *options, client=client)


def _peak_mb(
    stage: Stage, command: str, *options: str, client: str = "kafka-python", record_bytes_max: int = 32 * MB
) -> float:
    settings = {
        "HEADRACE_BATCH_ROWS": "20000",
        "HEADRACE_KAFKA_CLIENT": client,
        "HEADRACE_RECORD_BYTES_MAX": str(record_bytes_max),
    }
    done = subprocess.run(
        [sys.executable, "-S", "-c", WATCHER, HEADRACE, command, *options],
        env=environment(stage.deployment.settings) | settings,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1]) * 1024 / MB


def _assert_drained(stage: Stage, records: int) -> None:
    assert_ledger(stage)
    with psycopg.connect(stage.dsn) as connection:
        counted = connection.execute(
            "select (select count(*) from staging.jobs) + (select count(*) from headrace.dead_letters)"
        ).fetchone()
    assert counted == (records,)
