"""Airflow DAG `check_freshness`: fails when a dataset exceeds the thresholds of its declaration."""

from headrace.airflow.freshness_dag import freshness_dag

check_freshness = freshness_dag()
