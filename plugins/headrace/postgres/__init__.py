"""Headrace's tables in Postgres: connections, migrations, staging, COPY, checkpoints, the ledger, dead letters, roles.

May import `dataset`, `record` and what these import, but no source. `deployment`, `ingest` and all packages after it
import it. SQL is in sql/ or composed with psycopg.sql.
"""
