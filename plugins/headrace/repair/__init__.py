"""Commands that change what was ingested: adopt, accept-loss, reset, replay, reload, fill.

May import `ingest`, `postgres`, `sources` and what these import. The commands, the DAGs and `follow` import it.
"""
