"""The README's guide "Add a dataset", followed exactly: its records, its commands, and no other file."""

import json
import re
import shutil
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

from kafka import KafkaProducer

from tests.support import topics
from tests.support.ledger_checks import environment
from tests.support.stage import Stage

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
HEADRACE = str(Path(sys.executable).with_name("headrace"))
FIVE_MINUTES_S = 300


def guide() -> str:
    return (ROOT / "README.md").read_text().split("## Add a dataset\n", 1)[1].split("\n## ", 1)[0]


def files_of_the_guide() -> dict[str, str]:
    """What the guide shows of each file: the last one that the paragraph before a block names."""
    found = {}
    for match in FENCE.finditer(guide()):
        before = guide()[: match.start()].rstrip().rsplit("\n\n", 1)[-1]
        if match[1] in ("python", "sql", "yaml", "json"):
            name = re.findall(r"`([\w/]+\.\w+)`", before)[-1]
            found[name] = match[2]
    return found


def commands_of_the_guide() -> list[list[str]]:
    blocks = [match[2] for match in FENCE.finditer(guide()) if match[1] == ""]
    return [line.split() for block in blocks for line in block.splitlines()]


def produce_as_others_do(bootstrap_servers: str, lines: list[str]) -> None:
    """The topic of the guide, with its records, which another program sent."""
    topics.create(bootstrap_servers, "payments", 3, retention_ms="-1")
    producer = KafkaProducer(bootstrap_servers=bootstrap_servers)
    for line in lines:
        producer.send("payments", key=json.loads(line)["PAYMENTID"].encode(), value=line.encode())
    producer.close()


def test_guide_followed_exactly_adds_a_dataset(stage: Stage, tmp_path: Path, bootstrap_servers: str) -> None:
    checkout = tmp_path / "checkout"
    for part in ("plugins/datasets", "dbt"):
        shutil.copytree(ROOT / part, checkout / part, ignore=shutil.ignore_patterns("__pycache__", "target", "logs"))
    files = files_of_the_guide()
    assert sorted(files) == ["more.ndjson", "payments.ndjson", "plugins/datasets/payments.py"]
    (checkout / "more.ndjson").write_text(files["more.ndjson"])
    produce_as_others_do(bootstrap_servers, files["payments.ndjson"].splitlines())
    variables = environment(stage.deployment.settings) | {
        "HEADRACE_DATASETS_DIR": str(checkout / "plugins" / "datasets"),
        "HEADRACE_DBT_DIR": str(checkout / "dbt"),
    }
    began = time.monotonic()
    outputs: dict[str, list[str]] = {}
    for command in commands_of_the_guide():
        assert command[0] == "headrace"
        done = subprocess.run(
            [HEADRACE, *command[1:]], cwd=checkout, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.setdefault(command[1], []).append(done.stdout)
    assert time.monotonic() - began < FIVE_MINUTES_S
    assert list(outputs) == ["infer", "drain", "build", "check", "produce", "dead-letters"]
    assert "of the sample: 2 staged, 0 tombstones, 0 dead letters" in outputs["infer"][0]
    assert (checkout / "plugins" / "datasets" / "payments.py").read_text() == files["plugins/datasets/payments.py"]
    assert "2 staged" in outputs["drain"][0]
    assert "1 dead" in outputs["drain"][1]
    assert "wrong_type" in outputs["dead-letters"][0]
    assert sorted(stage.query("select paymentid, amount from marts.payments")) == [
        ("P1", Decimal("12.50")),
        ("P2", Decimal(7)),
    ]
