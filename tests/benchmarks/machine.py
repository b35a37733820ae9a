"""What was measured on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from headrace.local.postgres import binary

PACKAGES = ("dbt-core", "dbt-postgres", "psycopg", "kafka-python", "confluent-kafka")


def describe() -> str:
    """One line: processor, memory, system and versions."""
    cores = len(os.sched_getaffinity(0))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    server = subprocess.run([binary("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"machine: {cores} cores of {_processor()}, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {server.strip()}, {packages}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
