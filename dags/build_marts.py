"""Airflow DAG `build_marts`: dbt, when a dataset's staging asset is updated, and every ten minutes."""

from headrace.airflow.dag_factory import build_dag, declarations

build_marts = build_dag(declarations())
