"""Airflow DAG `verify_ingestion`: compares ledger, rows, dead letters and claims once a day."""

from headrace.airflow.dag_factory import declarations
from headrace.airflow.verify_dag import verify_dag

verify_ingestion = verify_dag(declarations())
