"""Adding a file's records to a dataset's Redis stream."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import redis
from redis.exceptions import RedisError

from headrace.dataset import Dataset, RedisStream
from headrace.exceptions import DatasetError, FileSourceError, SourceUnavailable
from headrace.produce import Progress

PIPELINE = 1_000
WHOLE = b"data"  # the field of an entry that is one JSON document


def produce_entries(dataset: Dataset, url: str, path: Path, *, progress: Progress = lambda _sent, _total: None) -> int:
    """Add every JSON line of a file to the dataset's stream and return how many were added.

    A flat object becomes an entry of its fields; any other line, broken ones too, an entry of one field, `data`.
    """
    if not isinstance(dataset.source, RedisStream):
        raise DatasetError(f"{dataset.name}: comes from elsewhere, expected a stream; use `headrace produce`")
    total = sum(1 for _ in _lines(path))
    lines = _lines(path)
    sent = 0
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=5, socket_timeout=30, retry=None) as client:
            while some := list(islice(lines, PIPELINE)):
                pipeline = client.pipeline(transaction=False)
                for line in some:
                    pipeline.xadd(dataset.source.stream, _fields(line))
                pipeline.execute()
                sent += len(some)
                progress(sent, total)
    except RedisError as error:
        raise SourceUnavailable(
            f"{dataset.source.stream}: {sent} of {total} entries were added, then: {error}; start the server "
            "(`headrace up`) or correct HEADRACE_REDIS_URL"
        ) from error
    return sent


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            for line in file:
                if line.strip():
                    yield line.rstrip(b"\r\n")
    except OSError as error:
        raise FileSourceError(f"{path}: cannot be read: {error.strerror}; name a file that exists") from error


def _fields(line: bytes) -> dict[bytes, bytes]:
    try:
        document = json.loads(line, parse_float=str, parse_int=str, object_pairs_hook=_flat)
    except (ValueError, RecursionError):
        return {WHOLE: line}
    return document if isinstance(document, dict) and document else {WHOLE: line}


def _flat(pairs: list[tuple[str, object]]) -> dict[bytes, bytes]:
    fields = {name.encode(): value.encode() for name, value in pairs if isinstance(value, str)}
    if len(fields) != len(pairs):
        raise ValueError("not flat, or a field that stands twice")
    return fields
