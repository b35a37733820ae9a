"""Airflow DAGs `ingest_<dataset>`: one for every dataset that comes from a Kafka topic or a Redis stream."""

from headrace.airflow.dag_factory import declarations, ingest_dags

globals().update(ingest_dags(declarations()))
