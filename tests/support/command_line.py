"""The headrace command, run as a process."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.ledger_checks import environment
from tests.support.stage import Stage

HEADRACE = Path(sys.executable).with_name("headrace")

TIME_LIMIT_S = 25.0


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str


def start(environ: dict[str, str], *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [HEADRACE, *arguments],
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )


def finish(process: "subprocess.Popen[str]") -> CommandResult:
    try:
        stdout, stderr = process.communicate(timeout=TIME_LIMIT_S)
    finally:
        process.kill()
        process.wait()
    return CommandResult(process.returncode, stdout, stderr)


def run(stage: Stage, *arguments: str, **settings: str) -> CommandResult:
    return finish(start(environment(stage.deployment.settings) | settings, *arguments))


def assert_refused(outcome: CommandResult, *parts: str) -> None:
    assert outcome.status == 1, outcome
    assert outcome.stderr.count("\n") == 1, outcome.stderr
    assert outcome.stderr.startswith("headrace: ")
    assert outcome.stdout == ""
    for part in parts:
        assert part in outcome.stderr
