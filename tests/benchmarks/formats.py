"""How fast each format is drained, beside JSON: the same jobs, written by confluent-kafka's serializers."""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from headrace.deployment import Deployment
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.repair.generations import reset
from headrace.sample.generate import generate_jobs
from headrace.settings import ROOT
from tests.benchmarks.outcome import BenchResult, Options, PrintLine, Spread, table
from tests.benchmarks.site import PARTITIONS, Site
from tests.faults.servers import Servers
from tests.support import topics
from tests.support.format_writers import single_object_writer
from tests.support.protobuf_orders import compiled_class

AVRO_MIN = 0.5  # of JSON's speed
FIELDS = {
    "JOBIDENTIFIER": "Integer", "USERID": "Integer", "JOBCREATEDATE": "Timestamp", "JOBDATE": "Timestamp | None = None",
    "JOBSTATUS": "Identifier", "LOCATION": "Identifier", "REVENUE": "Numeric", "SERVICENAME": "Identifier",
}  # fmt: skip
DECLARATION = """
from pydantic import BaseModel

from headrace.contract import Identifier, Integer, Numeric, Timestamp
from headrace.dataset import CONTRACT_CONFIG, Dataset, KafkaTopic
from headrace.formats import *


class Job(BaseModel):
    model_config = CONTRACT_CONFIG

{fields}


DATASET = Dataset(
    name="{name}", contract=Job, source=KafkaTopic(topic="{name}"), key="JOBIDENTIFIER", format={format}
)
"""
FORMATS = {
    "json": "Json()", "keyed_json": "KeyedJson()", "json_schema": "JsonSchema()", "avro": "Avro()",
    "avro_single_object": 'Avro("single_object", subject="avro-value")', "protobuf": "Protobuf()",
}  # fmt: skip
TIME = {"type": "long", "logicalType": "timestamp-micros"}
MONEY = {"type": "bytes", "logicalType": "decimal", "precision": 15, "scale": 2}
AVRO_KINDS: dict[str, Any] = {
    "JOBIDENTIFIER": "long", "USERID": "long", "JOBCREATEDATE": TIME, "JOBDATE": ["null", TIME], "REVENUE": MONEY,
}  # fmt: skip
PROTO = """\
syntax = "proto3";
package bench;
import "google/protobuf/timestamp.proto";
message Job {
  int64 JOBIDENTIFIER = 1;
  int64 USERID = 2;
  google.protobuf.Timestamp JOBCREATEDATE = 3;
  google.protobuf.Timestamp JOBDATE = 4;
  string JOBSTATUS = 5;
  string LOCATION = 6;
  string REVENUE = 7;
  string SERVICENAME = 8;
}
"""

Job = dict[str, Any]
Write = Callable[[Job], bytes]


def run(options: Options, print_line: PrintLine) -> BenchResult:
    """One process drains each topic in turn, round by round; the first round warms up."""
    spent: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        servers = Servers(only=("postgres", "kafka", "registry"))
        stack.callback(servers.close)
        servers.start()
        site = _filled(servers, options.topic_records, print_line)
        for number in range(options.rounds):
            for name in FORMATS:
                seconds = _drained(site, name)
                print_line(f"round {number}, {name}: {site.records / seconds:,.0f} records/s")
                if number or options.rounds == 1:
                    spent[name].append(site.records / seconds)
    return _result(spent, options)


def _result(spent: Mapping[str, list[float]], options: Options) -> BenchResult:
    """Speeds, and the medians of their ratios to JSON's speed in the same round: rounds differ more than ratios do."""
    ratios = {
        name: Spread.of([speed / json for speed, json in zip(speeds, spent["json"], strict=True)])
        for name, speeds in spent.items()
    }
    rows = [
        [f"`{FORMATS[name]}`", f"{found.median:,.0f}", f"{found.least:,.0f}-{found.most:,.0f}",
         f"{ratios[name].median:.2f}", f"{ratios[name].least:.2f}-{ratios[name].most:.2f}"]
        for name in FORMATS
        for found in (Spread.of(spent[name]),)
    ]  # fmt: skip
    text = f"{options.topic_records:,} jobs drained, records per second:\n\n" + table(
        ["format", "median", "least-most", "of JSON's", "least-most"], rows
    )
    share = ratios["avro"].median
    missed = [f"avro: {share:.2f} of JSON's speed, expected {AVRO_MIN}"] if share < AVRO_MIN else []
    return BenchResult(text, {"records_per_s": spent}, missed)


def _filled(servers: Servers, records: int, print_line: PrintLine) -> Site:
    """A topic of the same jobs, and a declaration, for each format."""
    datasets_dir = servers.home / "datasets"
    datasets_dir.mkdir()
    fields = "\n".join(f"    {name}: {kind}" for name, kind in FIELDS.items())
    for name, format in FORMATS.items():
        declaration = DECLARATION.format(fields=fields, name=name, format=format)
        (datasets_dir / f"{name}.py").write_text(declaration)
    settings = replace(
        servers.settings,
        postgres_dsn=servers.database("bench"),
        kafka_bootstrap_servers=servers.address("kafka"),
        registry_url=servers.address("registry"),
        datasets_dir=datasets_dir,
    )
    initialise(Deployment.from_settings(settings))
    registry = SchemaRegistryClient({"url": servers.address("registry")})
    for name, write in _writers(registry).items():
        began = time.monotonic()
        topics.create(servers.address("kafka"), name, PARTITIONS, retention_ms="-1")
        producer = Producer({"bootstrap.servers": servers.address("kafka"), "linger.ms": 20, "compression.type": "lz4"})
        for job in _jobs(records):
            while True:
                try:
                    key = None if name == "keyed_json" else str(job["JOBIDENTIFIER"]).encode()
                    producer.produce(name, key=key, value=write(job))
                    break
                except BufferError:
                    producer.poll(0.1)
        assert producer.flush(120) == 0
        print_line(f"{name}: {records:,} jobs produced in {time.monotonic() - began:.0f} s")
    return Site(settings, records)


def _jobs(records: int) -> Iterator[Job]:
    for line in generate_jobs(records, 1, 0.0, Path(ROOT) / "data-files" / "users.ndjson", is_plain=True):
        yield json.loads(line[line.index(b"{") :])


def _writers(registry: SchemaRegistryClient) -> dict[str, Write]:
    """The second client's serializers."""
    avro_fields = [{"name": name, "type": AVRO_KINDS.get(name, "string")} for name in FIELDS]
    schema = json.dumps({"type": "record", "name": "Job", "fields": avro_fields})
    avro = AvroSerializer(registry, schema)
    checked = JSONSerializer(json.dumps({"title": "Job", "type": "object", "properties": {}}), registry)
    message_class = compiled_class("bench_jobs", PROTO, "Job")
    protobuf = ProtobufSerializer(message_class, registry, {"use.deprecated.format": False})

    def context(name: str) -> SerializationContext:
        return SerializationContext(name, MessageField.VALUE)

    texts = ("JOBIDENTIFIER", "USERID", "JOBSTATUS", "LOCATION", "SERVICENAME")

    def message(job: Job) -> Any:
        made = message_class(**{name: value for name, value in job.items() if name in texts})
        made.REVENUE = str(job["REVENUE"])
        for name in ("JOBCREATEDATE", "JOBDATE"):
            if job.get(name):
                getattr(made, name).FromDatetime(datetime.fromisoformat(job[name]))
        return made

    single_object = single_object_writer(schema)

    return {
        "json": lambda job: json.dumps(job, separators=(",", ":")).encode(),
        "keyed_json": lambda job: f"{job['JOBIDENTIFIER']}|{json.dumps(job, separators=(',', ':'))}".encode(),
        "json_schema": lambda job: bytes(checked(job, context("json_schema")) or b""),
        "avro": lambda job: bytes(avro(_typed(job), context("avro")) or b""),
        "avro_single_object": lambda job: single_object(_typed(job)),
        "protobuf": lambda job: bytes(protobuf(message(job), context("protobuf")) or b""),
    }


def _typed(job: Job) -> Job:
    """A job with the types that Avro's logical types are written from."""
    times = {name: job.get(name) and datetime.fromisoformat(job[name]) for name in ("JOBCREATEDATE", "JOBDATE")}
    zoned = {name: at and (at if at.tzinfo else at.replace(tzinfo=UTC)) for name, at in times.items()}
    return job | zoned | {"REVENUE": Decimal(str(job["REVENUE"]))}


def _drained(site: Site, name: str) -> float:
    """The seconds of one drain from the topic's start."""
    deployment = Deployment.from_settings(site.settings)
    reset(deployment, deployment.dataset(name))
    site.settle()
    _, result = drain_dataset(deployment, name)
    assert (result.staged, result.dead) == (site.records, 0)
    return result.seconds
