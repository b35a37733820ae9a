"""A real Debezium connector for PostgreSQL between a table and a mart: `make debezium`."""
