"""dbt in this process, spared what tests do not look at, and as a process that a fork server starts warm."""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from dbt.cli.main import dbtRunner
from dbt_common.tests import enable_test_caching

from headrace.marts.dbt_costs import spare_costs


@cache
def spare_dbt() -> None:
    """Spare dbt most of what a small run takes.

    As builds are spared it, and a macro's text is parsed once in this process, not once per invocation: dbt's own tests
    do so.
    """
    spare_costs()
    enable_test_caching()


def spared_runner(manifest: Any = None) -> dbtRunner:
    """dbt for this process."""
    spare_dbt()
    return dbtRunner(manifest=manifest)


def run_dbt(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run dbt and end as its command does: 0 done, 1 failed, 2 not even begun."""
    os.environ.update(environment)
    outcome = spared_runner().invoke(list(arguments))
    if outcome.exception:
        print(outcome.exception, file=sys.stderr)
        sys.exit(2)
    for result in outcome.result.results:  # type: ignore[union-attr]
        if result.status == "error":
            print(f"{result.node.name}: {result.message}", file=sys.stderr)
    sys.exit(0 if outcome.success else 1)
