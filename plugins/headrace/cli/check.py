"""The command that checks declarations and models offline: check."""

import sys

from headrace.cli.group import main, read_settings
from headrace.cli.report import JSON, report


@main.command()
@JSON
def check(as_json: bool) -> None:
    """Check all declarations and dbt models without any service; print every fault.

    One line per fault: file, line, found, expected, remedy. Exit status 1 if there is one.
    """
    from headrace.check import check as check_all

    findings = check_all(read_settings())
    count = f"{len(findings)} faults" if findings else "no faults in declarations and models"
    report(
        as_json,
        lambda: {"findings": [finding.document() for finding in findings]},
        lambda: [*(finding.text() for finding in findings), count],
    )
    if findings:
        sys.exit(1)
