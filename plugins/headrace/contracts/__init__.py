"""Contracts: from a record's document to a row, or to a rejection with its reason.

May import the root and formats. Sources, postgres and everything above import it; users' declarations import
`headrace.contract` and `headrace.dataset`, which re-export what they need.
"""
