"""Headrace: Kafka topics into Postgres staging tables, exactly once, and on into dbt marts."""

__version__ = "0.1.0"
