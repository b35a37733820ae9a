"""Airflow DAG `reload_range`: a range of a topic is read again, and its rows are replaced."""

from headrace.airflow.dag_factory import declarations
from headrace.airflow.reload_dag import reload_dag

reload_range = reload_dag(declarations())
