"""An audit: every mart is computed as a whole and compared with its table, and the data tests read all rows.

Builds do the same for a few random grains and for the rows that they changed: their cost does not grow with history.
"""

from headrace.callbacks import PrintLine
from headrace.marts.build import BuildResult, build
from headrace.postgres.ledger import RunContext
from headrace.settings import Settings

VARS = {"headrace_audit": "all"}  # dbt/packages/headrace_dbt reads it


def audit(
    settings: Settings,
    select: str | None = None,
    print_line: PrintLine = lambda _line: None,
    run: RunContext = RunContext(),  # noqa: B008 - frozen
) -> BuildResult:
    """Build what is new, then compare every mart (or those selected) with its SELECT, in one snapshot for each.

    Raises BuildError that names model, grain and columns where a table differs; each later build computes that model
    as a whole until its config is corrected. Raises what `build` raises.
    """
    return build(settings, select=select, vars=VARS, print_line=print_line, run=run)
