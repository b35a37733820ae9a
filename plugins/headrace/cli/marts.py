"""The command that builds the marts: build."""

import click

from headrace.cli.group import main, read_settings
from headrace.cli.names import MODEL
from headrace.cli.report import JSON, report
from headrace.output import complain, say


@main.command()
@click.option("--select", type=MODEL, help="dbt's node selection. Defaults to everything.")
@click.option("--vars", "variables", help="dbt variables, as YAML.")
@click.option("--full-refresh", is_flag=True, help="Rebuild from all rows.")
@JSON
def build(select: str | None, variables: str | None, full_refresh: bool, as_json: bool) -> None:
    """Build the marts from all committed batches that are not yet built."""
    from headrace.marts.build import build as build_marts

    result = build_marts(
        read_settings(),
        select=select,
        vars=variables,
        full_refresh=full_refresh,
        print_line=complain if as_json else say,
    )
    report(as_json, result.document, lambda: [result.summary()])
