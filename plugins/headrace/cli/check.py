"""The command that checks declarations and models offline: check."""

import sys

import click

from headrace.cli.group import main, read_settings
from headrace.output import json_text, say


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def check(as_json: bool) -> None:
    """Check all declarations and dbt models without any service; print every fault.

    One line per fault: file, line, found, expected, remedy. Exit status 1 if there is one.
    """
    from headrace.check import check as check_all

    findings = check_all(read_settings())
    if as_json:
        print(json_text({"findings": [finding.document() for finding in findings]}, indent=2))
    else:
        for finding in findings:
            say(finding.text())
        say(f"{len(findings)} faults" if findings else "no faults in declarations and models")
    if findings:
        sys.exit(1)
