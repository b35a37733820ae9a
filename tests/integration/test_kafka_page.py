"""`make tools`: docs/kafka-ui.md; Kafka's tools run every command of the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.ingest.parallel import drain_dataset
from tests.support import topics
from tests.support.jobs import jobs
from tests.support.stage import Stage

pytestmark = pytest.mark.faults

PAGE = Path(__file__).parents[2] / "docs/kafka-ui.md"
SHOWN = ("PartitionCount: 3", "JOBIDENTIFIER", "jobs:0:", "headrace.jobs", "JOBIDENTIFIER")


def test_tools_run_every_command_of_the_page(stage: Stage, topic: str, bootstrap_servers: str) -> None:
    topics.send(bootstrap_servers, topic, jobs(6))
    drain_dataset(stage.deployment, "jobs")
    commands = re.findall(r"`headrace (kafka \w.*?)`", PAGE.read_text().replace("`headrace kafka TOOL`", ""))
    assert len(commands) == len(SHOWN)
    home = stage.deployment.settings.home
    environ = os.environ | {"HEADRACE_HOME": str(home), "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers}
    for command, shown in zip(commands, SHOWN, strict=True):
        arguments = [topic if word == "jobs" else word for word in command.split()]
        done = subprocess.run(
            [sys.executable, "-m", "headrace.cli", *arguments],
            env=environ, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done
        assert shown.replace("jobs:0", f"{topic}:0") in done.stdout, command
