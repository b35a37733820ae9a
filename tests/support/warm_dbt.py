"""The `dbt` command as a process that a fork server starts: imported there, dbt is warm."""

import os
import sys
from collections.abc import Mapping, Sequence

from dbt.cli.main import dbtRunner


def run_dbt(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run dbt and end as its command does: 0 done, 1 failed, 2 not even begun."""
    os.environ.update(environment)
    outcome = dbtRunner().invoke(list(arguments))
    if outcome.exception:
        print(outcome.exception, file=sys.stderr)
        sys.exit(2)
    for result in outcome.result.results:  # type: ignore[union-attr]
        if result.status == "error":
            print(f"{result.node.name}: {result.message}", file=sys.stderr)
    sys.exit(0 if outcome.success else 1)
