"""Jobs as JSON, and ways to send them to a test's topic."""

import json
from pathlib import Path
from typing import Any

from headrace.sample.generate import generate_jobs
from headrace.sample.produce import produce
from tests.support import topics
from tests.support.stage import Stage


def job(identifier: int | str, **fields: Any) -> bytes:
    """A valid job's payload."""
    return json.dumps(
        {
            "JOBCREATEDATE": "2019-03-01 10:00:00",
            "JOBDATE": "2019-03-01 11:00:00",
            "JOBIDENTIFIER": identifier,
            "JOBSTATUS": "SUCCESS",
            "LOCATION": "LOC_1",
            "REVENUE": 12.5,
            "SERVICENAME": "S",
            "USERID": 7,
        }
        | fields
    ).encode()


def jobs(count: int, partitions: int = 3) -> list[topics.Message]:
    """Valid jobs, dealt out to partitions in turn."""
    return [(n % partitions, b"%d" % n, job(n)) for n in range(count)]


def send_jobs(stage: Stage, count: int, partitions: int = 3) -> list[tuple[int, int]]:
    return topics.send(servers(stage), topic_of(stage), jobs(count, partitions))


def servers(stage: Stage) -> str:
    return stage.deployment.settings.require_kafka_bootstrap_servers()


def topic_of(stage: Stage) -> str:
    source = stage.deployment.dataset("jobs").source
    return str(getattr(source, "topic", None))


def produce_jobs(stage: Stage, path: Path, records: int, bad_percent: float = 5, seed: int = 3) -> list[bytes]:
    lines = list(generate_jobs(records, seed, bad_percent, stage.deployment.settings.data_dir / "users.ndjson"))
    path.write_bytes(b"".join(lines))
    produce(stage.deployment, stage.deployment.dataset("jobs"), path)
    return [line.rstrip(b"\n") for line in lines]


def recreate(stage: Stage, partitions: int = 3) -> None:
    topics.delete(servers(stage), topic_of(stage))
    topics.create(servers(stage), topic_of(stage), partitions)
