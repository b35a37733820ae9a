"""Records as other clients write them: each codec in each framing, header names and times of any kind, damaged batches.

Every client reads them all, and verify's own reader agrees; what cannot be read stops no other partition.
"""

import re
import struct
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import kafka.codec
import pytest
from confluent_kafka import Producer
from kafka.record.util import calc_crc32c

from headrace.deployment import Deployment
from headrace.exceptions import CodecMissing, SourceError
from headrace.ingest.parallel import drain_dataset
from headrace.local.home import locked
from headrace.local.jars import tool_command
from headrace.postgres.dead_letters import headers_of
from headrace.repair.generations import accept_loss
from headrace.sample.produce import produce
from headrace.sources.base import Range
from headrace.sources.kafka import KafkaSource
from headrace.times import EPOCH, LATEST
from headrace.verify.readers import TopicReader
from headrace.verify.verification import verify
from tests.support import topics
from tests.support.jobs import job, servers, topic_of
from tests.support.ledger_checks import assert_ledger
from tests.support.sources import ranged, records
from tests.support.stage import Stage

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
BY_JAVA = ("snappy", "lz4", "zstd")  # whose framing differs between implementations


class RawName(str):
    """A header's name that kafka-python's producer writes as other bytes."""

    raw: bytes

    def __new__(cls, raw: bytes) -> "RawName":
        name = super().__new__(cls, "x")
        name.raw = raw
        return name

    def encode(self, *_: object, **__: object) -> bytes:
        return self.raw


@pytest.fixture(scope="module")
def compressed(
    bootstrap_servers: str, broker_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, list[bytes]]:
    """A topic of one partition, its values: batches of every codec by librdkafka, Kafka's own tool and kafka-python."""
    topic, values = "compressed", [b'{"n":%d,"text":"%s"}' % (n, b"compressible " * 40) for n in range(50)]
    topics.create(bootstrap_servers, topic, 1)
    for codec in CODECS:
        client = Producer({"bootstrap.servers": bootstrap_servers, "compression.type": codec, "linger.ms": 50})
        for value in values:
            client.produce(topic, value, b"librdkafka", partition=0)
        assert client.flush(10) == 0
    with locked(broker_home, lambda _: None) as home:
        command = tool_command(home, "console-producer", lambda _: None)
    lines = tmp_path_factory.mktemp("console") / "lines"
    lines.write_bytes(b"\n".join(values))
    options = ["--bootstrap-server", bootstrap_servers, "--topic", topic, "--compression-codec"]
    tools = [subprocess.Popen([*command, *options, codec], stdin=lines.open("rb")) for codec in BY_JAVA]
    assert [tool.wait(60) for tool in tools] == [0] * len(BY_JAVA)
    with pytest.MonkeyPatch.context() as patch:
        for codec, name, encode in (
            ("snappy", "snappy_encode", kafka.codec.snappy_encode),  # framed as Java does
            ("snappy", "snappy_encode", lambda data: kafka.codec.snappy_encode(bytes(data), xerial_compatible=False)),
            ("gzip", "gzip_encode", _two_members),
            ("zstd", "zstd_encode", _two_frames),
        ):
            patch.setattr(f"kafka.record.default_records.{name}", encode)
            topics.send(bootstrap_servers, topic, [(0, b"kafka-python", value) for value in values], codec=codec)
    return topic, sorted(values * (len(CODECS) + len(BY_JAVA) + 4))


def _two_members(data: Any, **_: Any) -> bytes:
    middle = len(data) // 2
    return b"".join(kafka.codec.gzip_encode(bytes(part)) for part in (data[:middle], data[middle:]))


def _two_frames(data: Any) -> bytes:
    middle = len(data) // 2
    return b"".join(kafka.codec.zstd_encode(bytes(part)) for part in (data[:middle], data[middle:]))


def test_every_codec_of_every_producer_is_read(
    made: type[KafkaSource],
    compressed: tuple[str, list[bytes]],
    bootstrap_servers: str,
) -> None:
    topic, values = compressed
    source = made(topic, {"bootstrap_servers": bootstrap_servers}, max_poll_records=70)
    try:
        found = records(list(source.read(ranged({0: (0, len(values))}))))
    finally:
        source.close()
    assert sorted(record.value or b"" for record in found) == values
    assert [record.offset for record in found] == list(range(len(values)))


def test_every_codec_of_every_producer_is_read_again_by_verify(
    compressed: tuple[str, list[bytes]], bootstrap_servers: str
) -> None:
    topic, values = compressed
    assert sorted(value for _, _, value, _, _ in _read_again(bootstrap_servers, topic, len(values))) == values


def test_console_producer_sends_what_headrace_produce_sends(stage: Stage, broker_home: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(
        b"\n".join([b"1|" + job(1), b"|" + job(2), "ü|é".encode(), b"3|a|b", b"4|", b" 5 | {} ", b'6|{"a": "x|y"}\r'])
    )
    produce(stage.deployment, stage.deployment.dataset("jobs"), lines)
    with locked(broker_home, lambda _: None) as home:
        command = tool_command(home, "console-producer", lambda _: None)
    topics.create(servers(stage), f"{topic_of(stage)}-java", 1)
    options = ["--bootstrap-server", servers(stage), "--topic", f"{topic_of(stage)}-java"]
    keyed = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=|"]  # as the README has it
    with lines.open("rb") as file:
        subprocess.run([*command, *options, *keyed], stdin=file, check=True, timeout=60)
    ours, theirs = KafkaSource(topic_of(stage), stage.deployment.kafka()), _read_again(servers(stage), options[-1], 7)
    try:
        ends = {p: Range(0, state.end_offset) for p, state in ours.describe().partitions.items()}
        sent = [(record.key, record.value) for chunk in ours.read(ends) for record in chunk.records]
    finally:
        ours.close()
    assert sorted(sent) == sorted((key, value) for _, key, value, _, _ in theirs)


def _read_again(servers: str, topic: str, end: int) -> list[Any]:
    reader = TopicReader(topic, {"bootstrap_servers": servers})
    try:
        return list(reader.visible_records(0, 0, end))
    finally:
        reader.close()


HEADERS: list[list[tuple[str, bytes | None]]] = [
    [(RawName(b"\xff\xfe"), b"v"), ("ok", b"1")],
    [(RawName(b"Gr\xf6\xdfe"), b"\xff")] * 2,  # Latin-1, twice
    [("", b"")],
    [("a", b"1"), ("a", b"2"), ("b", b"\x00")],
    [(f"h{n}", b"v") for n in range(3_000)],
    [],
]


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_headers_and_times_of_any_kind_are_stored_and_verified(
    stage: Stage, client: Literal["kafka-python", "confluent"]
) -> None:
    stage = _reading_by(stage, client)
    topic = f"{topic_of(stage)}"
    topics.delete(servers(stage), topic)
    topics.create(servers(stage), topic, 3, retention_ms="-1", message_timestamp_after_max_ms=str(2**63 - 1))
    times = [0, 1, 1_700_000_000_000, 2**62, 253_402_300_800_000, 2**53]
    with topics.producer(servers(stage)) as sender:
        for number, (headers, at) in enumerate(zip(HEADERS, times, strict=True)):
            sender.send(
                topic, key=b"%d" % number, value=job(str(number)), headers=headers, timestamp_ms=at, partition=0
            )
            sender.send(topic, key=b"%d" % number, value=b"{", headers=headers, timestamp_ms=at, partition=1)
            sender.flush()
    plain = Producer({"bootstrap.servers": servers(stage)})
    plain.produce(topic, job("6"), b"6", partition=0, headers=[("null", None), ("null", b"")])
    nul = [] if client == "confluent" else [("a\0b", b"x\0")]  # librdkafka cuts such a name at the NUL
    with topics.producer(servers(stage)) as sender:
        assert plain.flush(10) == 0
        sender.send(topic, key=b"7", value=job("7"), headers=nul, partition=0)
    _, result = drain_dataset(stage.deployment, "jobs")
    assert (result.staged, result.dead) == (8, 6)
    stored = [headers_of(row) for (row,) in stage.query("select _headers from staging.jobs order by _offset")]
    sent = [[(getattr(name, "raw", name), value) for name, value in headers] for headers in HEADERS]
    assert stored == [*sent, [("null", None), ("null", b"")], nul]
    dead = [headers_of(row) for (row,) in stage.query('select headers from headrace.dead_letters order by "offset"')]
    assert dead == sent
    found = [at for (at,) in stage.query("select _timestamp from staging.jobs order by _offset limit 6")]
    assert found[:3] == [EPOCH, EPOCH + timedelta(milliseconds=1), datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)]
    assert found[3:] == [LATEST] * 3
    assert_ledger(stage)
    assert [finding.line() for finding in verify(stage.deployment, "jobs", deep=True).findings] == []


def _reading_by(stage: Stage, client: Literal["kafka-python", "confluent"]) -> Stage:
    settings = replace(stage.deployment.settings, kafka_client=client)
    return Stage(Deployment.from_settings(settings), stage.dsn)


@pytest.mark.parametrize("damage", ["payload", "crc"])
@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_damaged_batch_stops_its_partition_behind_the_good_records_and_no_other(
    stage: Stage, broker_home: Path, client: Literal["kafka-python", "confluent"], damage: str
) -> None:
    stage = _reading_by(stage, client)
    topic = topic_of(stage)
    for batch in range(3):
        messages = [(p, b"k", b"%d" % n * 300) for p in range(3) for n in range(batch * 10, batch * 10 + 10)]
        topics.send(servers(stage), topic, messages, codec="lz4")
    _damage(
        broker_home / "kafka" / "data" / f"{topic}-0" / "00000000000000000000.log",
        10,
        is_crc_right=damage == "payload",
    )
    began = time.monotonic()
    with pytest.raises(SourceError) as caught:
        drain_dataset(stage.deployment, "jobs")
    assert time.monotonic() - began < 60  # it is not polled for ever
    assert re.match(
        rf"{topic}\[0\]: the batch at offset 10 \(codec lz4\) cannot be read: .*; a new process may try again.*"
        r"delete its records below 20 \(kafka-delete-records.sh\)",
        str(caught.value),
    )
    assert stage.query("select partition, next_offset from headrace.checkpoints order by 1") == [
        (0, 10),
        (1, 30),
        (2, 30),
    ]
    assert_ledger(stage)
    topics.delete_records(servers(stage), topic, {0: 20})  # the remedy
    assert accept_loss(stage.deployment, stage.deployment.dataset("jobs"), 0, 20) == (10, 20)
    assert drain_dataset(stage.deployment, "jobs")[1].dead == 10


def _damage(segment: Path, offset: int, *, is_crc_right: bool) -> None:
    """Change a byte of the compressed records of the batch at an offset, where the broker has it."""
    data, at = bytearray(segment.read_bytes()), 0
    while struct.unpack_from(">q", data, at)[0] != offset:
        at += 12 + struct.unpack_from(">i", data, at + 8)[0]
    end = at + 12 + struct.unpack_from(">i", data, at + 8)[0]
    data[at + 61 : at + 65] = b"????"  # where lz4 has its magic number
    if is_crc_right:
        struct.pack_into(">I", data, at + 17, calc_crc32c(memoryview(bytes(data))[at + 21 : end]))
    with segment.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("codec", ["snappy", "lz4", "zstd"])
def test_codec_whose_library_is_missing_is_one_line_that_names_it(
    made: type[KafkaSource],
    codec: str,
    bootstrap_servers: str,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    values = [b"%d" % n * 300 for n in range(10)]
    topics.send(bootstrap_servers, topic, [(0, b"k", b"plain")])
    topics.send(bootstrap_servers, topic, [(0, b"k", value) for value in values], codec=codec)
    topics.send(bootstrap_servers, topic, [(1, b"k", b"other")])
    monkeypatch.setattr(kafka.codec, codec, None)
    source = made(topic, {"bootstrap_servers": bootstrap_servers})
    chunks: list[Any] = []
    try:
        reading = source.read(ranged({0: (0, 11), 1: (0, 1)}))
        if made is KafkaSource:
            with pytest.raises(
                CodecMissing,
                match=rf"{re.escape(topic)}\[0\]: .* offset 1 \(codec {codec}\).*install kafka-python\[{codec}\]",
            ):
                chunks.extend(reading)
            values = []
        else:  # librdkafka has them all built in
            chunks.extend(reading)
    finally:
        source.close()
    assert [record.value for record in records(chunks)] == [b"plain", *values]
    assert [record.value for record in records(chunks, 1)] == [b"other"]
