"""Ingest: from a source's offsets to committed batches: prepare, plan, drain, and the load of files.

May import deployment, sources, postgres, contracts and the root. Callers import `runner` (one plan), `parallel` (a
dataset) or `load` (a file); repair and verify also `identity`, `exclusive` and `prepare`. Within the package `parallel`
and `load` import `runner`, `drain` and `batch`, never the reverse.
"""
