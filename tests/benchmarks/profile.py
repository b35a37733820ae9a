"""Where the time of one process goes, from topic to staging: microseconds per record, stage by stage."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any
from unittest.mock import patch

from headrace.deployment import Deployment
from headrace.ingest.batch import Batch
from headrace.ingest.commit import Committer
from headrace.ingest.commit_thread import CommitThread
from headrace.ingest.drain import DrainOptions, DrainResult, drain
from headrace.ingest.opening import open_source
from headrace.ingest.runner import plan
from headrace.postgres.lock_watchdog import drain_name
from headrace.record import KafkaRecord
from headrace.repair.generations import reset
from headrace.sources.base import Chunk, Range, Source
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.benchmarks.site import TOPIC, Site, filled
from tests.benchmarks.throughput import CLIENTS
from tests.faults.servers import Servers

# what ends at each of the committer's steps
STEPS = {
    "advanced": "fence: the checkpoint moves",
    "staged": "COPY, and its wait",
    "dead_lettered": "dead letters",
    "before_commit": "the ledger's line",
    "committed": "COMMIT",
}
FETCH, DECODE, WAIT = "fetch and unpack", "decode and format", "wait for the commit before"
IDENTITY, CONTRACT = "is it the same topic", "by the contract"
ELAPSED, SEQUENTIAL = "on the clock", "on the clock, were each batch committed before the next is read"
SAMPLE = 50_000  # records that are decoded by the contract too, to compare


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """One drain per client and round; the first round warms up."""
    spent: dict[str, dict[str, list[float]]] = {client: defaultdict(list) for client in CLIENTS}
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.close)
        servers.start()
        site = filled(servers, options.topic_records, print_line)
        for number in range(options.rounds):
            for client in CLIENTS:
                found = _profile(site, client)
                found[SEQUENTIAL] = _profile(site, client, sequential=True)[ELAPSED]
                print_line(
                    f"round {number}, {client}: {found[ELAPSED]:.2f} us a record, in turn {found[SEQUENTIAL]:.2f}"
                )
                for stage, microseconds in found.items():
                    if number or options.rounds == 1:
                        spent[client][stage].append(microseconds)
        slow = _contract(site)
    stages = list(spent[CLIENTS[0]])
    medians = {client: {stage: Spread.of(spent[client][stage]).median for stage in stages} for client in CLIENTS}
    rows: list[list[Any]] = [[stage, *(f"{medians[client][stage]:.2f}" for client in CLIENTS)] for stage in stages]
    text = (
        f"{options.topic_records:,} jobs drained by one process, microseconds per record, medians:\n\n"
        + table(["stage", *CLIENTS], rows)
        + f"\n\ndecoded {CONTRACT} instead, as odd records are: {slow:.2f} us a record"
    )
    return BenchResult(text, {"us_per_record": spent, "contract_us_per_record": slow})


class _Watch(threading.local):
    """Adds up the time between a thread's laps, by what it went into."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.seconds = seconds
        self.start()

    def start(self) -> None:
        """What was done before goes nowhere."""
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """What was done since the last lap was this."""
        now = time.perf_counter()
        self.seconds[stage] += now - self._since
        self._since = now


class _Watched:
    """A source whose answers are laps."""

    def __init__(self, source: Source, watch: _Watch) -> None:
        self._source, self._watch = source, watch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, ranges: Mapping[int, Range]) -> Generator[Chunk]:
        """The source's chunks."""
        chunks = self._source.read(ranges)
        while True:
            self._watch.lap(DECODE)
            chunk = next(chunks, None)
            self._watch.lap(FETCH)
            if chunk is None:
                return
            yield chunk

    def topic_id(self) -> str:
        """The source's identity."""
        self._watch.start()
        found = self._source.topic_id()
        self._watch.lap(IDENTITY)
        return found


class _WatchedCommitThread(CommitThread[Any]):
    """Waiting for the commit before is a lap, too."""

    def __init__(self, watch: _Watch, settled: Callable[[Any], None]) -> None:
        super().__init__(settled)
        self._watch = watch

    def _settle(self, *, hides_errors: bool = False) -> None:
        self._watch.lap(DECODE)
        super()._settle(hides_errors=hides_errors)
        self._watch.lap(WAIT)


class _Sequential(CommitThread[Any]):
    """No overlap: what it would cost without."""

    def __init__(self, _watch: _Watch, settled: Callable[[Any], None]) -> None:
        super().__init__(settled)

    def run(self, call: Callable[[], Any]) -> None:
        """Run the call here and now."""
        self._settled(call())


def _profile(site: Site, client: str, *, sequential: bool = False) -> dict[str, float]:
    deployment = Deployment.from_settings(replace(site.settings, kafka_client=client))  # type: ignore[arg-type]
    dataset = deployment.dataset(TOPIC)
    reset(deployment, dataset)
    planned = plan(deployment, dataset)
    site.settle()
    connect = deployment.connect(drain_name(dataset.name))
    seconds = dict.fromkeys((FETCH, DECODE, WAIT, IDENTITY, *STEPS.values()), 0.0)
    watch = _Watch(seconds)
    committer = Committer(
        connect, deployment.retries(), limits=deployment.lock_timeouts, barrier=lambda step: watch.lap(STEPS[step])
    )
    source = open_source(deployment, dataset)
    limits = DrainOptions(batch_rows=site.settings.batch_rows, batch_bytes=site.settings.batch_bytes)
    try:
        committer.connection()
        watch.start()
        with patch(
            "headrace.ingest.drain.CommitThread", partial(_Sequential if sequential else _WatchedCommitThread, watch)
        ):
            result = drain(dataset, _Watched(source, watch), planned, committer, limits, DrainResult(dataset.name))
        watch.lap(DECODE)
        seconds[ELAPSED] = result.seconds
    finally:
        source.close()
        committer.close()
    assert result.records == site.records
    return {stage: spent / result.records * 1e6 for stage, spent in seconds.items()}


def _contract(site: Site) -> float:
    """Microseconds a record where the fast way takes none."""
    deployment = Deployment.from_settings(site.settings)
    dataset = deployment.dataset(TOPIC)
    source = open_source(deployment, dataset)
    try:
        state = source.describe().partitions
        chunks = source.read({p: Range(found.log_start_offset, found.end_offset) for p, found in state.items()})
        records: list[Any] = list(islice((record for chunk in chunks for record in chunk.records), SAMPLE))
        chunks.close()
    finally:
        source.close()
    assert all(isinstance(record, KafkaRecord) for record in records)
    batch = Batch(dataset, 1, 0, 0)
    for record in records:
        batch.add(record)
    began = time.perf_counter()
    batch.decode_by_contract()
    return (time.perf_counter() - began) / len(records) * 1e6
