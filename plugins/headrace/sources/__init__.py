"""Sources: the declarations of topics, streams and files, and the records of each by offset.

May import the root, formats and contracts; does not use Postgres. `headrace.dataset` imports `sources.declarations`;
deployment and the packages above it import also `sources.base` and what opens brokers; postgres imports nothing from
here.
"""
