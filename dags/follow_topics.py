"""Airflow DAG `follow_topics`: every topic and stream as records arrive; paused until somebody wants it."""

from headrace.airflow.dag_factory import declared_datasets, follow_dag

follow_topics = follow_dag(declared_datasets())
