"""Batches that unpack to a quarter of a gigabyte: what memory they take."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.sources.kafka_unpack import GZIP, LZ4, NONE, SNAPPY, ZSTD, pieces
from tests import bombs

NAMES = {NONE: "none", GZIP: "gzip", SNAPPY: "snappy", LZ4: "lz4", ZSTD: "zstd"}
MB = 1024 * 1024


# reads a batch in the way named first, and says what it found and what memory it took at most
CHILD = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30))  # the machine survives what does not keep to its bounds
from kafka import TopicPartition
from kafka.record.memory_records import MemoryRecords
from headrace.sources.kafka_batches import TolerantRecords
from headrace.sources.kafka_records import Meter, MeteredRecords
from headrace.sources.bounds import Bounds, is_kept
def peak_kb():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
data, meter, kept, lost = open(sys.argv[2], "rb").read(), Meter(2**40), [], []
bound = meter if sys.argv[1] == "ours" else Bounds()
before = peak_kb()
kind = MeteredRecords if bound is meter else TolerantRecords
records = kind(bound, 0, TopicPartition("topic", 0), MemoryRecords(data))
while records:
    for record in records.take(1):
        (kept if is_kept(record.headers) else lost).append(record.offset)
        del record
print(json.dumps([kept, lost, (peak_kb() - before) // 1024]))
"""


@pytest.mark.parametrize(
    ("codec", "reader"),
    [(GZIP, "ours"), (SNAPPY, "ours"), (LZ4, "ours"), (ZSTD, "ours"), (LZ4, "theirs"), (ZSTD, "theirs")],
    ids=lambda each: NAMES.get(each, each),
)
def test_batch_that_unpacks_to_256_mb_takes_little_memory(codec: int, reader: str, tmp_path: Path) -> None:
    size = 256 * MB
    large = bombs.batch(codec, bombs.packed(codec, bombs.one_large(size)), 3)
    many = bombs.batch(codec, bombs.packed(codec, bombs.many(size // MB, MB)), size // MB, offset=3)
    assert len(large) < 14 * MB
    bomb = tmp_path / "bomb"
    bomb.write_bytes(large + many)
    done = subprocess.run([sys.executable, "-c", CHILD, reader, bomb], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    kept, lost, megabytes = json.loads(done.stdout)
    assert megabytes < 100
    assert sorted(kept + lost) == list(range(3 + size // MB))
    assert kept[:2] == [0, 2]
    # of many records as much is kept as 200 times the batch, or 64 MiB
    assert len(kept) - 2 == min(max(200 * (len(many) - 61), 64 * MB) // (MB + 12), size // MB)


def test_unpacking_is_linear_in_members_and_blocks() -> None:
    empty = bombs.packed(GZIP, iter([b""]))
    assert b"".join(pieces(GZIP, empty * 50_000 + bombs.packed(GZIP, iter([b"end"])))) == b"end"
    blocks = bombs.packed(SNAPPY, (b"x" for _ in range(200_000)))  # 1.4 MB
    assert b"".join(pieces(SNAPPY, blocks)) == b"x" * 200_000
