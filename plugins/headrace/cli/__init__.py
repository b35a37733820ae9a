"""The `headrace` command: one module per group of commands, registered with `group.main` when it is imported.

A command parses options, calls one function of the package that owns the subject, and prints. It imports that
function inside the command, so that `headrace --help` takes at most 0.3 s. May import all packages; none imports it.
"""

from headrace.cli import (  # noqa: F401 - registers them
    check,
    completion,
    data,
    dead_letters,
    generations,
    infer,
    ingest,
    inspect,
    marts,
    new,
    pauses,
    repair,
    services,
)
from headrace.cli.group import main

__all__ = ["main"]
