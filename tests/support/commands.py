"""The `headrace` command in this process: what it prints, without what it costs to start."""

import os
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from click.testing import CliRunner

from headrace import logs
from headrace.cli import main


@dataclass(frozen=True, slots=True)
class CommandOutput:
    """How a command ended, and all that it printed; a traceback, if it came to that."""

    status: int
    output: str


def headrace(environ: Mapping[str, str], *arguments: str) -> CommandOutput:
    """Run a command with these HEADRACE_ variables and no others."""
    hidden = dict.fromkeys(name for name in os.environ if name.startswith(("HEADRACE_", "DBT_")))
    logger = logs.logger
    before = logger.handlers, logger.level, logger.propagate
    try:
        done = CliRunner().invoke(main, arguments, env=hidden | dict(environ))
    finally:
        logger.handlers, logger.level, logger.propagate = before  # HEADRACE_LOG_FORMAT=json changes them
    output = done.output
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        output += "".join(traceback.format_exception(done.exception))
    return CommandOutput(done.exit_code, output)
