"""Records of the four original pipelines' producers: every valid one is staged, every invalid one a dead letter.

tests/cases/originals holds a few of them with what is expected; the producers' modules say of each record that they
build whether it must be rejected, and why.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest

from headrace.dataset import load_dataset
from headrace.deployment import Deployment
from headrace.ingest.load import load_file
from headrace.ingest.parallel import drain_dataset
from headrace.ingest.prepare import initialise
from headrace.sample.generate import SampleRecord, generate_records
from headrace.sample.produce import produce_files
from headrace.settings import Settings
from headrace.verify import verify
from tests.support import jobs_oracle, streams, topics
from tests.support.ledger_checks import assert_ledger
from tests.support.stage import Stage
from tests.support.warehouse import Warehouse

CASES = Path(__file__).parents[1] / "cases" / "originals"
TOPICS = ("jobs", "events", "rides")
RECORDS = 2_000
BAD_PERCENT = 2
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Originals:
    """A deployment of all five datasets, and its topics."""

    stage: Stage
    warehouse: Warehouse
    servers: str
    names: dict[str, str]

    def send(self, dataset: str, messages: list[topics.Message]) -> None:
        """Send to the dataset's topic."""
        topics.send(self.servers, self.names[dataset], messages)

    def add(self, entries: list[list[bytes]]) -> None:
        """Add entries to the telemetry stream, each as its fields' names and values in turn."""
        streams.add(self.stage.deployment.redis(), self.names["telemetry"], entries)

    def drain(self, *datasets: str) -> dict[str, tuple[int, int]]:
        """Staged and dead records of each."""
        found = {}
        for dataset in datasets:
            _, result = drain_dataset(self.stage.deployment, dataset)
            found[dataset] = (result.staged, result.dead)
        return found

    def reasons(self, dataset: str) -> list[str]:
        """Of the dead letters in the order of their offsets."""
        query = 'select reason from headrace.dead_letters where dataset = %s order by partition, "offset"'
        return [reason for (reason,) in self.stage.query(query, dataset)]


@pytest.fixture
def originals(
    database: str, bootstrap_servers: str, redis_url: str, topic: str, stream: str, tmp_path: Path, session_home: Path
) -> Originals:
    """All datasets as they are declared, reading from topics and a stream of the test's own; users are loaded."""
    names = {dataset: f"{topic}-{dataset}" for dataset in TOPICS} | {"telemetry": stream}
    datasets_dir = tmp_path / "datasets"
    datasets_dir.mkdir()
    for path in Settings().datasets_dir.glob("*.py"):
        text = path.read_text()
        for dataset, name in names.items():
            text = text.replace(f'topic="{dataset}"', f'topic="{name}"')
        text = text.replace('dead_letter_topic="events_dlq"', f'dead_letter_topic="{topic}-dlq"')
        (datasets_dir / path.name).write_text(text.replace('stream="telemetry_stream"', f'stream="{stream}"'))
    for dataset in TOPICS:
        topics.create(bootstrap_servers, names[dataset], 3)
    settings = Settings(
        home=session_home,
        postgres_dsn=database,
        kafka_bootstrap_servers=bootstrap_servers,
        redis_url=redis_url,
        datasets_dir=datasets_dir,
    )
    deployment = Deployment.from_settings(settings)
    initialise(deployment)
    load_file(deployment, "users")
    return Originals(Stage(deployment, database), Warehouse(settings, database), bootstrap_servers, names)


def keyed(line: bytes) -> topics.Message:
    key, _, value = line.partition(b"|")
    return 0, key, value


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_small_samples_of_the_originals_give_what_is_expected_of_them(originals: Originals) -> None:
    lines = {path.name: path.read_bytes().splitlines() for path in CASES.iterdir()}
    originals.send("jobs", [keyed(line) for line in lines["jobs.kafka"]])
    assert originals.drain("jobs") == {"jobs": (5, 0)}
    originals.send("jobs", [(0, None, line) for line in lines["jobs.kafka"]])  # without parse.key
    originals.send("events", [keyed(line) for line in lines["events.keyed"]])
    originals.send("rides", [(0, None, line) for line in lines["rides.ndjson"]])
    originals.add([line.split() for line in lines["telemetry.fields"]])
    assert originals.drain("jobs", "events", "rides", "telemetry") == {
        "jobs": (5, 0),
        "events": (3, 1),
        "rides": (2, 0),
        "telemetry": (2, 3),
    }
    assert originals.reasons("events") == ["missing_field"]
    assert originals.reasons("telemetry") == ["out_of_range", "unknown_zone", "unknown_kpi"]
    originals.warehouse.build(tests=True)
    originals.warehouse.assert_right()
    query = originals.stage.query
    assert query(
        "select jobidentifier, userid, revenue, reported_revenue, jobcreatedate, jobdate from marts.jobs "
        "order by jobidentifier desc"
    ) == [
        (
            1000004,
            98770148834,
            Decimal("71.30000000000001"),
            Decimal("71.30000000000001"),
            at("2019-03-01 00:02"),
            None,
        ),
        (1000003, 98770148834, 0, None, at("2019-03-01 00:02:00.123"), None),
        (1000002, 98770148834, 0, None, at("2019-03-01 00:01:07"), at("2019-03-02")),
        (1000001, 98770148834, 30, 30, at("2019-03-01 00:00:41"), at("2019-03-04 09:00")),
    ]
    assert query("select user_id, event_type, payload, schema_version from marts.events order by 1") == [
        ("user_7", "page_view", {"value": 17}, 1),
        ("user_9", "click", {}, 1),
    ]
    assert query("select device_id, value, is_degraded, ts from marts.telemetry order by ts") == [
        ("device-007", 82.35, True, at("2024-01-15 10:00:03.451200")),
        ("device-001", 4.99, False, at("2024-01-15 10:00:03.900000")),
    ]
    assert query("select total_amount, trip_distance from marts.rides order by 1") == [
        (Decimal("-9.0"), Decimal("0.97")),
        (Decimal("17.31"), Decimal("1.72")),
    ]


def test_produce_sends_the_lines_of_a_file_whole_where_it_is_told_to(originals: Originals) -> None:
    deployment, path = originals.stage.deployment, CASES / "jobs.kafka"
    files = [(path, False), (path, True)]
    assert produce_files(deployment, deployment.dataset("jobs"), files, transactional_id=originals.names["jobs"]) == 10
    assert originals.drain("jobs") == {"jobs": (10, 0)}
    keys = originals.stage.query("select _key, count(*) from staging.jobs group by 1 order by 1 nulls first")
    assert keys == [(None, 5), (b"1000001", 2), (b"1000002", 1), (b"1000003", 1), (b"1000004", 1)]


def test_thousands_of_records_of_each_producer_are_staged_or_dead_as_it_says(originals: Originals) -> None:
    data_dir = originals.stage.deployment.settings.data_dir
    made = {
        dataset: list(generate_records(dataset, RECORDS, 23, BAD_PERCENT, data_dir))
        for dataset in (*TOPICS, "telemetry")
    }
    for dataset in TOPICS:
        originals.send(dataset, [_message(dataset, n, record) for n, record in enumerate(made[dataset])])
    originals.add([_entry(record.value) for record in made["telemetry"]])
    found = originals.drain(*made)
    for dataset, records in made.items():
        bad = sum(record.reason is not None for record in records)
        assert found[dataset] == (RECORDS - bad, bad)
        assert bad >= RECORDS * BAD_PERCENT / 100 * 0.7
        _assert_each(originals, dataset, records)
    originals.warehouse.build(tests=True)
    originals.warehouse.assert_right()
    _assert_jobs_are_the_oracles(originals, made["jobs"])
    verification = verify(originals.stage.deployment, "jobs", deep=True)
    assert verification.is_clean, list(verification.lines())


def _message(dataset: str, number: int, record: SampleRecord) -> topics.Message:
    """As it is sent: a job's partition follows from its id; every fifth record of jobs comes whole, without a key."""
    if record.key is None:
        return number % 3, None, record.value
    partition = sum(record.key) % 3
    if dataset == "jobs" and number % 5 == 0:
        return partition, None, record.key + b"|" + record.value
    return partition, record.key, record.value


def _entry(value: bytes) -> list[bytes]:
    try:
        fields = json.loads(value, object_pairs_hook=list)
    except ValueError:
        return [b"data", value]
    if any(not isinstance(text, str) for _, text in fields) or len(dict(fields)) < len(fields):
        return [b"data", value]
    return [part.encode() for pair in fields for part in pair]


def _assert_each(originals: Originals, dataset: str, records: list[SampleRecord]) -> None:
    """Every record is where its producer's account says, and a dead letter has the bytes that were sent."""
    sent_at = {}
    offsets = [0, 0, 0]
    for number, record in enumerate(records):
        partition, key, value = (0, None, record.value) if dataset == "telemetry" else _message(dataset, number, record)
        sent_at[partition, offsets[partition]] = (key, value, record.reason)
        offsets[partition] += 1
    staged = originals.stage.query(f"select _partition, _offset from staging.{dataset}")
    assert set(staged) == {coordinate for coordinate, (_, _, reason) in sent_at.items() if reason is None}
    dead = originals.stage.query(
        'select partition, "offset", reason, key, value from headrace.dead_letters where dataset = %s', dataset
    )
    assert {row[:3] for row in dead} == {
        (*coordinate, reason) for coordinate, (_, _, reason) in sent_at.items() if reason is not None
    }
    if dataset != "telemetry":  # an entry's key is its id, and its value is made of its fields
        assert all(sent_at[partition, offset][:2] == (key, value) for partition, offset, _, key, value in dead)
    assert_ledger(originals.stage, list(sent_at), dataset)


def _assert_jobs_are_the_oracles(originals: Originals, records: list[SampleRecord]) -> None:
    jobs: dict[int, dict[str, Any]] = {}
    for record in records:
        if record.reason is None and record.key is not None:
            job = jobs_oracle.decode_job(record.key.decode(), record.value.decode())
            jobs[job["JOBIDENTIFIER"]] = job  # one id is one partition, so the order is the topic's
    fields = ("JOBIDENTIFIER", "USERID", "JOBCREATEDATE", "JOBDATE", "JOBSTATUS", "LOCATION", "REVENUE", "SERVICENAME")
    assert set(
        originals.stage.query(
            "select jobidentifier, userid, jobcreatedate, jobdate, jobstatus, location, reported_revenue, servicename "
            "from marts.jobs"
        )
    ) == {tuple(job[field] for field in fields) for job in jobs.values()}
    assert dict(originals.stage.query("select jobidentifier, revenue from marts.jobs")) == {
        identifier: jobs_oracle.revenue(job) for identifier, job in jobs.items()
    }
    minutes = originals.stage.query("select minute, jobs, revenue from marts.jobs_per_minute")
    assert {minute: tuple(row) for minute, *row in minutes} == jobs_oracle.jobs_per_minute(jobs)
    locations = jobs_oracle.user_locations(Settings().data_dir / "users.ndjson")
    with psycopg.connect(originals.stage.dsn, options="-c search_path=marts") as connection:
        newest = connection.execute("SELECT jobidentifier FROM jobs ORDER BY jobidentifier DESC LIMIT 5").fetchall()
        assert [identifier for (identifier,) in newest] == sorted(jobs, reverse=True)[:5]
        assert {len(str(identifier)) for identifier in jobs} == {6, 7}  # as text, 999999 would come first
        for location, expected in list(jobs_oracle.top_users(jobs, locations).items())[:50]:
            found = connection.execute("select userid, revenue from top_users(%s)", (location,)).fetchall()
            assert found == expected, location


def test_settings_extend_the_zones_and_kpis_that_a_reading_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TELEMETRY_ZONES", "zone-z")
    monkeypatch.setenv("HEADRACE_TELEMETRY_KPIS", "radiation")
    contract = load_dataset(Settings().datasets_dir, "telemetry").compiled
    reading = {
        "event_id": "e", "device_id": "d", "zone": "zone-z", "ts": "1705312804.25", "kpi": "radiation", "value": "1.0"
    }  # fmt: skip
    found = contract.decode(None, json.dumps(reading).encode())
    assert found == ["e", "d", "zone-z", EPOCH + timedelta(seconds=1705312804.25), "radiation", 1.0, None]
