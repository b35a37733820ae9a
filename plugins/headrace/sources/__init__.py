"""Sources: what a declaration says of a topic, a stream or a file, and the records of each by offset.

May import the root, formats and contracts; knows nothing of Postgres. `headrace.dataset` imports
`sources.declarations`, deployment and the packages above it also `sources.base` and what opens brokers; postgres
imports nothing from here.
"""
