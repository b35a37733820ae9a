"""The `headrace` command: one module per group of commands, registered with `group.main` when it is imported.

A command parses options, calls one function of the package that owns the subject, and prints. It imports that
function inside the command: `headrace --help` takes 0.3 s at most. May import all packages; none imports it.
"""

from headrace.cli import data, dead_letters, ingest, inspect, marts, repair, services  # noqa: F401 - registers them
from headrace.cli.group import main

__all__ = ["main"]
