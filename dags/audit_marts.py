"""Airflow DAG `audit_marts`: compares every mart with its SELECT once a day."""

from headrace.airflow.audit_dag import audit_dag

audit_marts = audit_dag()
