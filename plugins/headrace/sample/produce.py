"""Sends the lines of a file, or an endless sample, to a dataset's topic or stream."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event

from headrace.callbacks import ProgressCallback
from headrace.dataset import Dataset
from headrace.deployment import Deployment
from headrace.exceptions import FileSourceError, TopicMissing
from headrace.ingest.opening import open_source
from headrace.publish.publishers import open_publisher, split_line
from headrace.sources.base import Range

REPORT_EVERY_S = 5.0


def produce(
    deployment: Deployment,
    dataset: Dataset,
    path: Path,
    *,
    keyless: bool = False,
    transactional_id: str | None = None,
    on_progress: ProgressCallback = lambda _sent, _total: None,
) -> int:
    """Send every line of a file to the dataset's topic or stream and return how many were sent.

    Lines are `key|value`, as Kafka's console producer reads them with parse.key=true and key.separator=|, or JSON
    documents, whose key is the dataset's key field. keyless: each line is sent whole, as a value without a key, as the
    console producer does without parse.key. With a transactional_id all become visible together or not at all.

    The file is read through before anything is sent: FileSourceError names the first line that cannot be sent.
    """
    files = [(path, keyless)]
    return produce_files(deployment, dataset, files, transactional_id=transactional_id, on_progress=on_progress)


def produce_files(
    deployment: Deployment,
    dataset: Dataset,
    files: Sequence[tuple[Path, bool]],
    *,
    transactional_id: str | None = None,
    on_progress: ProgressCallback = lambda _sent, _total: None,
) -> int:
    """Send the lines of several files as `produce` does, each file with or without keys, in one transaction."""
    opened = open_publisher(deployment, dataset, transactional_id=transactional_id)
    total = sum(check_lines(path, dataset, keyless=keyless) for path, keyless in files)
    sent = 0
    with opened as publisher:
        for path, keyless in files:
            for _, line in _lines(path):
                publisher.send(line, keyless=keyless)
                sent += 1
                if sent % 2_000 == 0:
                    on_progress(sent, total)
    on_progress(total, total)
    return total


def produce_paced(
    deployment: Deployment,
    dataset: Dataset,
    lines: Iterator[bytes],
    per_second: float,
    *,
    stop: Event,
    on_sent: Callable[[int], None] = lambda _sent: None,
) -> int:
    """Send lines at a steady rate until they end or `stop` is set; return how many were sent.

    Late lines are sent at once. `on_sent` is called every few seconds with the number of acknowledged lines.
    """
    began = reported = time.monotonic()
    sent = 0
    with open_publisher(deployment, dataset) as publisher:
        while not stop.is_set():
            due = int((time.monotonic() - began) * per_second) + 1
            for _ in range(due - sent):
                line = next(lines, None)
                if line is None:
                    return sent
                publisher.send(line.rstrip(b"\n"))
                sent += 1
            publisher.flush()
            if time.monotonic() - reported >= REPORT_EVERY_S:
                reported = time.monotonic()
                on_sent(sent)
            stop.wait(max(began + sent / per_second - time.monotonic(), 0.02))
    return sent


def has_records(deployment: Deployment, dataset: Dataset) -> bool:
    """Whether a drain would see any record in the dataset's topic or stream.

    Offsets do not show it: an aborted transaction leaves offsets without records.
    """
    source = open_source(deployment, dataset)
    try:
        ranges = {p: Range(s.log_start_offset, s.end_offset) for p, s in source.describe().partitions.items()}
        return any(chunk.records for chunk in source.read(ranges))
    except TopicMissing:
        return False
    finally:
        source.close()


def check_lines(path: Path, dataset: Dataset, *, keyless: bool = False) -> int:
    """The number of a file's lines; raises FileSourceError for the first that cannot be sent to the dataset's topic."""
    count = 0
    for number, line in _lines(path):
        count += 1
        if dataset.source.has_record_keys and not keyless and split_line(line, ()) is None:
            raise FileSourceError(
                f"{path}: line {number}: found {line[:40]!r}, expected key|value or a JSON object; nothing was sent"
            )
    return count


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                yield number, line.rstrip(b"\r\n")
    except OSError as error:
        raise FileSourceError(f"{path}: cannot be read: {error.strerror}; name a file that exists") from error
