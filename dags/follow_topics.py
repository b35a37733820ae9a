"""Airflow DAG `follow_topics`: every topic and stream as records arrive; paused by default."""

from headrace.airflow.dag_factory import declarations, follow_dag

follow_topics = follow_dag(declarations())
