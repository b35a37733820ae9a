"""Checks that ledger, rows, dead letters and claims agree, and with --deep that they agree with the source.

`verification` runs the checks, each in the module of its subject, and `report` holds the findings. Reads the source
with its own readers (`readers`, `records`), not with the loader's code. May import `marts` and what that may import;
`cli` and dags/ import it.
"""

from headrace.verify.verification import verify

__all__ = ["verify"]
