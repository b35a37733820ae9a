"""Headrace's tables in Postgres: connections, migrations, staging, COPY, checkpoints, the ledger, dead letters, roles.

May import `dataset`, `record` and what these import; no source. `deployment`, `ingest` and all packages after it import
it. SQL stands in sql/ or is composed with psycopg.sql.
"""
