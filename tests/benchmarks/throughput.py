"""Topic to staging, committed: ours, the limit, reading alone, and what others do with the same records.

All of it in turns, on the same services: after every turn the server writes out what it has, so that nobody pays for
the one before. Peers that would take minutes are given fewer records. Ours is the command `headrace drain`, measured
twice: cold is the whole command, imports and plan included, warm is from its first record to its last commit.
"""

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from headrace.deployment import Deployment
from headrace.repair.generations import reset
from headrace.sources.base import Range
from headrace.sources.kafka import KafkaSource
from tests.benchmarks.limit import Limit
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.benchmarks.peers import airflow_rows, debezium, loops
from tests.benchmarks.shapes import Shapes, outcome
from tests.benchmarks.site import HEADRACE, PARTITIONS, TOPIC, Site, Speed, filled
from tests.faults.servers import Servers

CASE_RECORDS, VALUES_RECORDS, AIRFLOW_RECORDS = 3_000, 100_000, 10_000  # of as many records as there are
LIMIT, DEBEZIUM, CASE = "limit: prebuilt COPY, same table", "Debezium JDBC sink, 2 tasks", "the case's loop"
READING = {"kafka-python": "reading alone, kafka-python", "confluent": "reading alone, confluent-kafka"}
CLIENTS = tuple(READING)

Measurement = Callable[[Site], dict[str, Speed]]  # what one turn measured, by the name of its row


@dataclass(frozen=True, slots=True)
class RatioTarget:
    """At least this ratio between two rows."""

    row: str
    to: str
    ratio: float


def _row(client: str, processes: int, state: str = "warm") -> str:
    return f"headrace, {client}, {processes} process{'es' if processes > 1 else ''}, {state}"


TARGETS = (
    RatioTarget(_row("kafka-python", 3), DEBEZIUM, 2.7),
    RatioTarget(_row("kafka-python", 3), LIMIT, 0.38),
    RatioTarget(_row("confluent", 3), DEBEZIUM, 4.0),
    RatioTarget(_row("confluent", 3), LIMIT, 0.55),
    RatioTarget(_row("kafka-python", 3), CASE, 100.0),
    RatioTarget(_row("confluent", 3), CASE, 100.0),
    *(RatioTarget(_row(client, 1), READING[client], 0.6) for client in CLIENTS),
)


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """Every contestant in turns; a ratio below its target is a miss."""
    speeds: dict[str, list[float]] = {}
    of_shapes: dict[str, list[float]] = {}
    with ExitStack() as stack:
        servers = Servers()
        stack.callback(servers.close)
        servers.start()
        site = filled(servers, options.topic_records, print_line)
        measurements = _measurements(site)
        shapes = Shapes(site, print_line)
        for number in range(options.rounds):
            for measure_once in measurements if number % 2 else reversed(measurements):
                site.settle()
                for row, speed in measure_once(site).items():
                    print_line(f"round {number}, {row}: {speed.per_second:,.0f}/s")
                    if number or options.rounds == 1:  # the first round warms up
                        speeds.setdefault(row, []).append(speed.per_second)
            for row, measure in shapes.measurements():
                site.settle()
                speed = measure()
                print_line(f"round {number}, {row}: {speed.per_second:,.0f}/s")
                if number or options.rounds == 1:
                    of_shapes.setdefault(row, []).append(speed.per_second)
    found = _outcome(site.records, speeds)
    text, ratios, missed = outcome(of_shapes, shapes.records)
    figures = {**found.figures, "shapes": of_shapes, "ratios_of_shapes": ratios}
    return BenchResult(f"{found.text}\n\n{text}", figures, found.missed + missed)


def _measurements(site: Site) -> list[Measurement]:
    _drain(site, "kafka-python", 1)  # what the limit copies
    limit = Limit(site, TOPIC)
    return [
        *(lambda site, c=client, p=processes: _drain(site, c, p) for client in CLIENTS for processes in (1, 2, 3)),
        lambda site: {LIMIT: _limit(site, limit)},
        lambda site: {READING["kafka-python"]: _read_by_kafka_python(site)},
        lambda site: {READING["confluent"]: _read_by_confluent(site)},
        lambda site: {"reading alone, headrace's kafka-python source": _read_by_source(site)},
        lambda site: {DEBEZIUM: debezium.upsert(site, debezium.ALL_RECORDS)},
        lambda site: {
            "execute_values in thousands": loops.values_in_thousands(site, min(VALUES_RECORDS, site.records))
        },
        lambda site: {CASE: loops.commit_per_record(site, CASE_RECORDS)},
        lambda site: {"Airflow insert_rows": airflow_rows.insert_rows(site, AIRFLOW_RECORDS)},
    ]


def _limit(site: Site, limit: Limit) -> Speed:
    deployment = Deployment.from_settings(site.settings)
    reset(deployment, deployment.dataset(TOPIC))
    return limit.copy(site)


def _drain(site: Site, client: str, processes: int) -> dict[str, Speed]:
    deployment = Deployment.from_settings(site.settings)
    reset(deployment, deployment.dataset(TOPIC))
    site.settle()
    began = time.monotonic()
    subprocess.run(
        [HEADRACE, "drain", TOPIC, "--parallel", str(processes)],
        env=site.environ(client),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    cold = time.monotonic() - began
    with site.connect() as connection:
        found = connection.execute(
            "select sum(staged + dead + tombstones), extract(epoch from max(committed_at) - min(started_at)) "
            "from headrace.batches where dataset = %s and kind = 'drain'",
            (TOPIC,),
        ).fetchone()
    assert found is not None
    records, warm = int(found[0]), float(found[1])
    assert records == site.records, f"{records} of {site.records} drained"
    return {
        _row(client, processes): Speed(records, warm),
        _row(client, processes, "cold"): Speed(records, cold),
    }


def _read_by_kafka_python(site: Site) -> Speed:
    consumer = site.consumer(isolation_level="read_committed")
    try:
        began, left = time.monotonic(), site.records
        while left > 0:
            left -= sum(map(len, consumer.poll(timeout_ms=1_000).values()))
        return Speed(site.records, time.monotonic() - began)
    finally:
        consumer.close()


def _read_by_confluent(site: Site) -> Speed:
    import confluent_kafka

    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": site.bootstrap_servers,
            "group.id": "bench",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    try:
        consumer.assign([confluent_kafka.TopicPartition(TOPIC, partition, 0) for partition in range(PARTITIONS)])
        began, left = time.monotonic(), site.records
        while left > 0:
            for message in consumer.consume(min(left, 10_000), 1.0):
                assert message.error() is None
                message.key(), message.value(), message.offset(), message.timestamp(), message.headers()
                left -= 1
        return Speed(site.records, time.monotonic() - began)
    finally:
        consumer.close()


def _read_by_source(site: Site) -> Speed:
    source = KafkaSource(TOPIC, {"bootstrap_servers": site.bootstrap_servers})
    try:
        state = source.describe()
        ranges = {p: Range(found.log_start_offset, found.end_offset) for p, found in state.partitions.items()}
        began = time.monotonic()
        records = sum(len(chunk.records) for chunk in source.read(ranges))
        return Speed(records, time.monotonic() - began)
    finally:
        source.close()


def _outcome(records: int, speeds: dict[str, list[float]]) -> BenchResult:
    medians = {row: Spread.of(values).median for row, values in speeds.items()}
    rows: list[list[Any]] = []
    for row, median in sorted(medians.items(), key=lambda item: -item[1]):
        spread = Spread.of(speeds[row])
        ratios = [f"{median / medians[other]:.2f}" for other in (LIMIT, DEBEZIUM)]
        rows.append([row, f"{median:,.0f}", f"{spread.least:,.0f}", f"{spread.most:,.0f}", *ratios])
    found = {target: medians[target.row] / medians[target.to] for target in TARGETS}
    targets = [[t.row, t.to, f"{ratio:.2f}", f"{t.ratio:g}"] for t, ratio in found.items()]
    rounds = len(next(iter(speeds.values())))
    text = (
        f"{records:,} jobs in {PARTITIONS} partitions, records per second over {rounds} rounds:\n\n"
        + table(["topic to staging", "median", "least", "most", "of the limit", "of Debezium"], rows)
        + "\n\n"
        + table(["what", "against", "ratio", "target"], targets)
    )
    missed = [
        f"throughput: {target.row}: {ratio:.2f} of {target.to}, expected at least {target.ratio:g}"
        for target, ratio in found.items()
        if ratio < target.ratio
    ]
    figures = {
        "records": records,
        "records_per_s": speeds,
        "ratios": {f"{t.row} / {t.to}": r for t, r in found.items()},
    }
    return BenchResult(text, figures, missed)
