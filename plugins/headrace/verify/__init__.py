"""Compares ledger, rows, dead letters and claims; with --deep also the source's own records."""

from headrace.verify.verification import verify

__all__ = ["verify"]
