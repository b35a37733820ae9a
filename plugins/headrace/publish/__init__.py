"""Output to brokers: dead-letter topics, and records that are sent to topics and streams.

May import `ingest`, `postgres`, `sources` and what these import. The commands, the DAGs, `follow` and `sample` import
it.
"""
