"""Does everything tie: ledger, rows, dead letters, claims, and with --deep the source's own records?"""

from headrace.verify.verification import verify

__all__ = ["verify"]
